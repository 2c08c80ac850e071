"""What lies in the input folder is taken for what it is, and what could be two things is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared_nets.refusals import InputRefused
from tools.deploy_app.study_input import find_bundle, find_study


@pytest.fixture
def folder(tmp_path):
    """Give ``folder(*names) -> folder`` with these files; a name may lie in a folder."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / "study" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        (tmp_path / "study").mkdir(exist_ok=True)
        return tmp_path / "study"

    return make


def relative(study: dict[str, str], folder: Path) -> dict[str, str]:
    return {key: str(Path(value).relative_to(folder)) for key, value in study.items() if key != "study_id"}


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        pytest.param(["1.dcm", "2.dcm"], {"image": "."}, id="DICOM files"),
        pytest.param(["a/1", "b/1"], {"image": "."}, id="two series"),
        pytest.param(["1.dcm", "2.dcm", "clinical.json"], {"image": ".", "clinical": "clinical.json"},
            id="DICOM files and values"),
        pytest.param(["scan.nii.gz", "clinical.csv"], {"image": "scan.nii.gz", "clinical": "clinical.csv"},
            id="volume"),
        pytest.param(["photo.dcm", "clinical.json"], {"image": "photo.dcm", "clinical": "clinical.json"},
            id="one DICOM file"),
        pytest.param(["notes.txt"], {"image": "."}, id="no image, which the reader of the folder says"),
        pytest.param(["PHOTO.JPG"], {"image": "PHOTO.JPG"}, id="photograph"),
        pytest.param(["ct/1", "mask.nii.gz", "a.txt"], {"image": "ct", "mask": "mask.nii.gz"}, id="study"),
        pytest.param(["image.png", "other.png"], {"image": "image.png"}, id="named photograph"),
    ],
)  # fmt: skip
def test_parts_of_a_folder_are_found(folder, names, parts):
    study = find_study(folder(*names))
    assert study["study_id"] == "study"
    assert relative(study, folder()) == parts


@pytest.mark.parametrize(
    ("others", "clinical"),
    [
        (["scan.json", "clinical.json"], "scan.json"),
        (["clinical.json", "other.json"], "clinical.json"),
        (["other.json"], None),
    ],
)
def test_a_file_has_the_values_of_its_own_name_or_else_those_of_the_folder(folder, others, clinical):
    study = find_study(folder("scan.nii.gz", *others) / "scan.nii.gz")
    assert study["study_id"] == "scan"
    assert relative(study, folder()).get("clinical") == clinical


def test_the_name_of_the_study_can_be_given(folder):
    assert find_study(folder("1.dcm"), "case 7")["study_id"] == "case_7"


@pytest.mark.parametrize(
    ("names", "code"),
    [
        pytest.param([], "INPUT_EMPTY", id="nothing"),
        pytest.param(["clinical.json"], "INPUT_EMPTY", id="values alone"),
        pytest.param(["a.nii.gz", "b.nii.gz"], "SERIES_AMBIGUOUS", id="two volumes"),
        pytest.param(["ct/1", "image.png"], "SERIES_AMBIGUOUS", id="scan and photograph"),
        pytest.param(["1.dcm", "clinical.json", "clinical.csv"], "SERIES_AMBIGUOUS", id="values twice"),
    ],
)
def test_what_is_no_single_study_is_refused(folder, names, code):
    with pytest.raises(InputRefused, match=code):
        find_study(folder(*names))


def test_an_input_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputRefused, match="INPUT_NOT_FOUND"):
        find_study(tmp_path / "nowhere")


def test_a_model_folder_is_a_bundle_or_holds_some(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "configs").mkdir(parents=True)
        (tmp_path / name / "configs" / "inference.json").write_text("{}")
    assert find_bundle(tmp_path / "one", None, tmp_path) == tmp_path / "one"
    assert find_bundle(tmp_path, "two", tmp_path / "x") == tmp_path / "two"
    assert find_bundle(None, "two", tmp_path) == tmp_path / "two"
    for model, name in ((tmp_path, None), (tmp_path, "three"), (tmp_path / "one", "two")):
        with pytest.raises(ValueError, match="must"):
            find_bundle(model, name, tmp_path)
    (tmp_path / "two" / "configs" / "inference.json").unlink()
    assert find_bundle(tmp_path, None, tmp_path) == tmp_path / "one"
