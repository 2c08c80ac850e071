"""The bundle's part of the provenance: hashes that change when the answer may change, and only then."""

import hashlib
import json
from importlib.metadata import version

import pytest

import shared_nets
from shared_nets.runtime import provenance
from shared_nets.runtime.provenance import BundleProvenance, config_sha256


@pytest.fixture
def write(tmp_path):
    """Give ``write(text, name="inference.json", folder="a") -> [path]``."""

    def write_config(text: str, name: str = "inference.json", folder: str = "a"):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return [path]

    return write_config


def test_the_hash_is_that_of_the_canonical_form(write):
    canonical = b'{"files":{"inference.json":{"a":1,"b":[2,3]}},"knobs":{"num_slices":24}}'
    files = write('{"b": [2, 3], "a": 1}')
    assert config_sha256(files, knobs={"num_slices": 24}) == hashlib.sha256(canonical).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"b":{"d":2,"c":[1,2]},"a":1.5}', id="order-of-keys"),
        pytest.param('\n{"a" : 1.50,\t"b": {"c": [1,\n 2], "d": 2}}\n', id="white-space"),
    ],
)
def test_neither_white_space_nor_the_order_of_keys_matters(write, text):
    first = config_sha256(write('{"a": 1.5, "b": {"c": [1, 2], "d": 2}}'), knobs={"x": 1, "y": None})
    assert config_sha256(write(text, folder="b"), knobs={"y": None, "x": 1}) == first


@pytest.mark.parametrize(
    ("text", "name", "knobs"),
    [
        pytest.param('{"a": [1, 2]}', "inference.json", {"x": 2}, id="a-knob"),
        pytest.param('{"a": [1, 2]}', "inference.json", {"x": 1, "y": 1}, id="one-more-knob"),
        pytest.param('{"a": [1, 2]}', "inference.json", {}, id="one-knob-less"),
        pytest.param('{"a": [2, 1]}', "inference.json", {"x": 1}, id="the-order-of-a-list"),
        pytest.param('{"a": [1, 3]}', "inference.json", {"x": 1}, id="a-value"),
        pytest.param('{"a": [1, 2]}', "train.json", {"x": 1}, id="the-name-of-the-file"),
    ],
)
def test_whatever_may_change_the_answer_changes_the_hash(write, text, name, knobs):
    first = config_sha256(write('{"a": [1, 2]}'), knobs={"x": 1})
    assert config_sha256(write(text, name, folder="b"), knobs=knobs) != first


def test_the_name_of_the_copy_that_a_release_carries_does_not_matter(write, monkeypatch):
    first = config_sha256(write('{"_target_": "shared_nets.a.B"}'), knobs={})
    monkeypatch.setattr(provenance, "__name__", "shared_nets_0123456789ab.runtime.provenance")
    for target, is_same in (("shared_nets_0123456789ab.a.B", True), ("shared_nets_ba9876543210.a.B", False)):
        files = write(f'{{"_target_": "{target}"}}', folder="b")
        assert (config_sha256(files, knobs={}) == first) is is_same


def test_the_folder_of_the_bundle_does_not_matter(write):
    first = config_sha256(write('{"a": 1}'), knobs={})
    assert config_sha256(write('{"a": 1}', folder="b"), knobs={}) == first


@pytest.fixture
def bundle(tmp_path):
    for folder in ("configs", "models"):
        (tmp_path / folder).mkdir()
    metadata = {"name": "ckd", "version": "0.1.0"}
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    (tmp_path / "configs" / "inference.json").write_text('{"num_slices": 24}', encoding="utf-8")
    (tmp_path / "models" / "model.pt").write_bytes(b"abc")
    return tmp_path


def describe(bundle, **knobs):
    return BundleProvenance(bundle_root=bundle, weights={"model": bundle / "models/model.pt"}, knobs=knobs)()


def test_the_provenance_names_bundle_weights_and_packages(bundle):
    said = describe(bundle, num_slices=24)
    assert (said["bundle"], said["bundle_version"]) == ("ckd", "0.1.0")
    # FIPS 180-2, appendix B.1
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert said["weights_sha256"] == {"model": abc}
    assert said["packages"]["shared_nets"] == shared_nets.__version__
    for name in ("monai", "torch", "numpy", "pydicom", "SimpleITK", "tabpfn"):
        assert said["packages"][name] == version(name)
    assert describe(bundle, num_slices=24) == said


def test_weights_that_take_no_part_are_not_named(bundle):
    weights = {"model": bundle / "models/model.pt", "calibration": None}
    said = BundleProvenance(bundle_root=bundle, weights=weights, knobs={})()
    assert list(said["weights_sha256"]) == ["model"]


def test_a_changed_knob_file_or_weight_shows_in_the_provenance(bundle):
    first = describe(bundle, num_slices=24)
    assert describe(bundle, num_slices=12)["config_sha256"] != first["config_sha256"]
    (bundle / "configs" / "evaluate.json").write_text("{}", encoding="utf-8")
    assert describe(bundle, num_slices=24)["config_sha256"] != first["config_sha256"]
    (bundle / "models" / "model.pt").write_bytes(b"abd")
    assert describe(bundle, num_slices=24)["weights_sha256"] != first["weights_sha256"]
