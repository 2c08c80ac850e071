"""The copy of the package in a release: what is renamed, what is not, and how the copy gets its name."""

from __future__ import annotations

import ast
import json

import pytest

from tools.bundle_rules import REPOSITORY
from tools.carried_package import carried_files, renamed_config_text, renamed_source

NAME = "shared_nets_0123456789ab"


def tree(folder, **files):
    package = folder / "shared_nets"
    for name, content in {"__init__": '__version__ = "1.0"\n', **files}.items():
        path = package / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return package


@pytest.mark.parametrize(
    ("source", "renamed"),
    [
        pytest.param("from shared_nets.data import x\n", f"from {NAME}.data import x\n", id="import"),
        pytest.param("from shared_nets import x\n", f"from {NAME} import x\n", id="import of the package"),
        pytest.param(
            "def f():\n    from shared_nets.a import (\n        b,\n    )\n",
            f"def f():\n    from {NAME}.a import (\n        b,\n    )\n",
            id="import at first use",
        ),
        pytest.param("x = 'shared_nets.a.B'\n", f"x = '{NAME}.a.B'\n", id="dotted name as a text"),
        pytest.param(
            "x = 'é'; y = 'shared_nets.a'\n", f"x = 'é'; y = '{NAME}.a'\n", id="after other letters"
        ),
    ],
)
def test_what_names_a_module_is_renamed(source, renamed):
    assert renamed_source(source, NAME) == renamed


@pytest.mark.parametrize(
    "source",
    [
        pytest.param('"""See :mod:`shared_nets.data`."""\n', id="docstring"),
        pytest.param('"""shared_nets.data"""\n', id="docstring that is a name"),
        pytest.param("MANUFACTURER = 'shared_nets'\n", id="what results say"),
        pytest.param("x = 'pip install shared_nets[ray]'\n", id="advice"),
        pytest.param("from shared_nets_of_others import x\n", id="another package"),
        pytest.param("# from shared_nets.data import x\n", id="comment"),
    ],
)
def test_what_people_and_results_read_stays(source):
    assert renamed_source(source, NAME) == source


@pytest.mark.parametrize("source", ["import shared_nets.data\n", "import shared_nets as s\n"])
def test_import_that_binds_the_name_itself_is_not_guessed_at(source):
    with pytest.raises(
        ValueError, match=r"^a\.py:1 must say from shared_nets … import, got import shared_nets"
    ):
        renamed_source(source, NAME, "a.py")


def test_configuration_keeps_its_formatting_and_only_targets_change():
    text = '{\n  "_target_" : "shared_nets.a.B", "x": ["shared_nets.a", {"_target_": "UNet"}]\n}\n'
    assert renamed_config_text(text, NAME) == text.replace('"shared_nets.a.B"', f'"{NAME}.a.B"')


def test_target_that_is_written_with_escapes_is_not_missed():
    with pytest.raises(ValueError, match="must be written without escapes"):
        renamed_config_text(
            json.dumps({"_target_": "shared_nets.a.B"}).replace("shared", "\\u0073hared"), NAME
        )


def test_equal_content_has_an_equal_name_and_any_change_another_one(tmp_path):
    names = [
        carried_files(tree(tmp_path / folder, **files))[0]
        for folder, files in {
            "a": {"x": "1\n"},
            "b": {"x": "1\n"},
            "c": {"x": "2\n"},
            "d": {"y": "1\n"},
            "e": {"sub__in__x": "1\n"},
        }.items()
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 4


def test_caches_are_left_out_and_files_of_other_kinds_are_refused(tmp_path):
    package = tree(tmp_path, x="1\n")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_bytes(b"x")
    name, files = carried_files(package)
    assert list(files) == [f"{name}/__init__.py", f"{name}/x.py"]
    (package / "weights.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"must hold \.cpp, \.json, \.py only, got weights\.pt"):
        carried_files(package)


def test_the_copy_of_the_package_imports_nothing_of_the_original():
    name, files = carried_files(REPOSITORY / "shared_nets")
    modules = {path: ast.parse(content) for path, content in files.items() if path.endswith(".py")}
    imported = {
        str(node.module).split(".")[0] if isinstance(node, ast.ImportFrom) else alias.name.split(".")[0]
        for tree in modules.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert name in imported
    assert "shared_nets" not in imported
    assert len(modules) > 100
