"""A fingerprint changes when the input or the bundle does, and not when a folder is mounted elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from shared_nets.refusals import InputRefused
from shared_nets.runtime.checks import file_sha256
from shared_nets.runtime.run_fingerprint import describe_run, input_sha256


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "here" / "s1"
    (folder / "ct").mkdir(parents=True)
    for number in range(3):
        (folder / "ct" / f"{number}.dcm").write_bytes(b"x" * 10)
    (folder / "mask.nii.gz").write_bytes(b"mask")
    (folder / "clinical.json").write_text('{"age": 65}')
    return item(folder)


def item(folder):
    names = {"image": "ct", "mask": "mask.nii.gz", "clinical": "clinical.json"}
    return {"study_id": "s1", **{key: str(folder / name) for key, name in names.items()}}


def test_a_folder_that_moved_is_the_same_input(study, tmp_path):
    before = input_sha256(study)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert input_sha256(item(tmp_path / "there" / "s1")) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("clinical.json", '{"age": 66}', id="a value of equal length"),
        pytest.param("mask.nii.gz", "another mask", id="mask"),
        pytest.param("ct/1.dcm", "x", id="a shorter slice"),
        pytest.param("ct/3.dcm", "x", id="one slice more"),
    ],
)
def test_changed_files_are_another_input(study, tmp_path, name, content):
    before = input_sha256(study)
    (tmp_path / "here" / "s1" / name).write_text(content)
    assert input_sha256(study) != before


@pytest.mark.parametrize(
    "change", [{"label_set": "kits"}, {"clinical": {"age": 65}}, {"mask": "gone.nii.gz"}, {"study_id": "s2"}]
)
def test_another_item_is_another_input(study, change):
    assert input_sha256({**study, **change}) != input_sha256(study)


def test_a_file_that_cannot_be_read_stops_nothing(study, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError("no")

    whole = input_sha256(study)
    monkeypatch.setattr(Path, "stat", denied)
    assert input_sha256(study) != whole


@pytest.fixture
def bundle(tmp_path):
    """A bundle with one knob and one weight file."""
    root = tmp_path / "bundle"
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "models" / "model.pt").write_bytes(b"weights")
    weights = {"models/model.pt": {"sha256": file_sha256(root / "models" / "model.pt")}}
    metadata = {"name": "small", "version": "1.2.3", "weights": weights}
    (root / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (root / "configs" / "inference.json").write_text('{"knob": 1}')
    return root


def test_a_run_is_described_by_its_bundle_and_its_weights(bundle):
    facts = describe_run(bundle)
    assert (facts["bundle"], facts["bundle_version"]) == ("small", "1.2.3")
    # printf weights | sha256sum
    expected = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    assert facts["weights_sha256"] == {"models/model.pt": expected}


def test_values_overlays_and_config_files_each_change_the_configuration(bundle, tmp_path):
    overlay = tmp_path / "overlay.json"
    overlay.write_text('{"knob": 2}')
    hashes = [
        describe_run(bundle)["config_sha256"],
        describe_run(bundle, overrides={"knob": 2})["config_sha256"],
        describe_run(bundle, overlays=[overlay])["config_sha256"],
    ]
    (bundle / "configs" / "inference.json").write_text('{"knob": 3}')
    hashes.append(describe_run(bundle)["config_sha256"])
    assert len(set(hashes)) == 4


def test_a_file_that_a_value_names_counts_by_its_content_and_not_by_its_folder(bundle, tmp_path):
    facts = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "mine.pt"
        path.write_bytes(b"mine")
        facts.append(describe_run(bundle, overrides={"ckpt_path": str(path)}))
    assert facts[0] == facts[1]
    path.write_bytes(b"other")
    assert describe_run(bundle, overrides={"ckpt_path": str(path)}) != facts[0]


def test_weights_that_are_not_those_of_the_bundle_are_refused(bundle):
    (bundle / "models" / "model.pt").write_bytes(b"other")
    with pytest.raises(InputRefused, match="WEIGHTS_MISMATCH"):
        describe_run(bundle)


@pytest.mark.parametrize("name", ["mole.bmp", "mole.DCM"])
def test_a_photograph_of_equal_name_and_size_is_another_input(tmp_path, name):
    size = 2**20 + 8
    for content in (b"a", b"b"):
        (tmp_path / content.decode()).mkdir()
        (tmp_path / content.decode() / name).write_bytes(content * size)
    first, second = (
        input_sha256({"study_id": "mole", "image": str(tmp_path / folder / name)}) for folder in "ab"
    )
    assert first != second
