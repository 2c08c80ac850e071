"""Which code a bundle is run by, and how refusals travel between copies of the package."""

from __future__ import annotations

import sys

import pytest

from shared_nets.refusals import InputRefused
from shared_nets.runtime import carried_code
from shared_nets.runtime.carried_code import (
    carried_package,
    module_of,
    open_bundle,
    refusals_of_carried_code,
)

NAME = "shared_nets_0123456789ab"
RUNTIME = """
class BundleRuntime:
    def __init__(self, bundle_root, **options):
        self.bundle_root, self.options = bundle_root, options
"""


def make_bundle(folder, name=NAME, runtime=RUNTIME):
    for path, content in {"__init__.py": "", "runtime/__init__.py": "", "runtime/bundle.py": runtime}.items():
        (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / path).write_text(content)
    return folder


@pytest.fixture(autouse=True)
def forget():
    yield
    for name in [name for name in sys.modules if name.startswith("shared_nets_")]:
        del sys.modules[name]


def other_refusal(code="MASK_EMPTY", module=f"{NAME}.refusals"):
    """Make a refusal as another copy of the package defines it."""
    facts = {"code": code, "message": "The mask shows no kidney.", "remedy": "Check it."}
    kind = type(
        "InputRefused", (Exception,), {"__module__": module, "code": code, "as_dict": lambda self: facts}
    )
    return kind("refused")


def test_a_bundle_without_code_of_its_own_is_run_by_the_installed_package(tmp_path, monkeypatch):
    monkeypatch.setattr(carried_code, "BundleRuntime", lambda root, **options: (root, options))
    assert carried_package(tmp_path) is None
    assert open_bundle(tmp_path, device="cpu") == (tmp_path, {"device": "cpu"})


def test_a_bundle_with_code_of_its_own_is_run_by_that_and_the_path_stays(tmp_path):
    path = list(sys.path)
    runtime = open_bundle(make_bundle(tmp_path), created="now")
    assert type(runtime).__module__ == f"{NAME}.runtime.bundle"
    assert (runtime.bundle_root, runtime.options) == (tmp_path, {"created": "now"})
    assert sys.path == path


def test_two_bundles_with_equal_code_share_it(tmp_path):
    first, second = (type(open_bundle(make_bundle(tmp_path / folder))) for folder in ("a", "b"))
    assert first is second


def test_a_copy_that_opens_a_bundle_of_its_own_kind_uses_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(carried_code, "_OWN_NAME", NAME)
    monkeypatch.setattr(carried_code, "BundleRuntime", lambda root: "mine")
    assert open_bundle(make_bundle(tmp_path)) == "mine"


def test_other_folders_are_no_carried_code(tmp_path):
    for name in ("scripts", "shared_nets", "shared_nets_of_mine"):
        make_bundle(tmp_path, name)
    assert carried_package(tmp_path) is None


def test_code_of_two_releases_in_one_folder_is_refused(tmp_path):
    make_bundle(tmp_path)
    make_bundle(tmp_path, "shared_nets_" + "f" * 12)
    with pytest.raises(
        ValueError, match="must carry one package, got shared_nets_0123456789ab, shared_nets_fff"
    ):
        carried_package(tmp_path)


def test_code_that_cannot_be_loaded_leaves_nothing_behind(tmp_path):
    make_bundle(tmp_path)
    (tmp_path / NAME / "__init__.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        open_bundle(tmp_path)
    assert NAME not in sys.modules


def test_a_refusal_of_another_copy_becomes_one_of_this_copy():
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = other_refusal()
    for error in (other_refusal(), wrapped):
        with (
            pytest.raises(
                InputRefused, match=r"^MASK_EMPTY: The mask shows no kidney\. Check it\.$"
            ) as caught,
            refusals_of_carried_code(),
        ):
            raise error
        assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ZeroDivisionError("a defect"), id="defect"),
        pytest.param(other_refusal(module="elsewhere.refusals"), id="another package"),
        pytest.param(other_refusal(code="NEW_IN_2050"), id="code that this copy does not know"),
        pytest.param(InputRefused("MASK_EMPTY", "a.", "b."), id="refusal of this copy"),
    ],
)
def test_every_other_error_passes_unchanged(error):
    with pytest.raises(type(error)) as caught, refusals_of_carried_code():
        raise error
    assert caught.value is error


def test_a_module_is_given_of_the_code_that_the_bundle_is_run_by(tmp_path):
    runtime = open_bundle(make_bundle(tmp_path))
    assert module_of(runtime, "runtime").__name__ == f"{NAME}.runtime"
