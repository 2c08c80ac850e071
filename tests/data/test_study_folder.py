"""Photographs in a folder: each a study, with what lies beside it; scans are found as ever."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from shared_nets.data.dicom_synthetic import synthetic_series, write_series
from shared_nets.data.photograph_synthetic import write_dicom_photograph
from shared_nets.data.studies import list_studies
from shared_nets.refusals import InputRefused


@pytest.fixture
def lay_out(tmp_path):
    """Give ``lay_out(*names) -> list of items`` of a folder with empty files of these names."""

    def make(*names: str, **contents: str) -> list[dict]:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for name, content in contents.items():
            (tmp_path / f"{name}.csv").write_text(content)
        return list_studies(dataset_dir=str(tmp_path))

    return make


def relative(studies: list[dict], folder: Path) -> list[dict]:
    return [
        {key: v if key == "study_id" else str(Path(v).relative_to(folder)) for key, v in study.items()}
        for study in studies
    ]


def ids(studies: list[dict]) -> list[str]:
    return [study["study_id"] for study in studies]


def refused(code: str):
    return pytest.raises(InputRefused, match=f"^{code}: ")


def test_every_photograph_of_a_folder_is_a_study_with_the_metadata_beside_it(lay_out, tmp_path):
    found = lay_out("mole b.JPG", "a.png", "a.json", "c.webp", "notes.txt", "._c.webp")
    assert relative(found, tmp_path) == [
        {"study_id": "a", "image": "a.png", "clinical": "a.json"},
        {"study_id": "c", "image": "c.webp"},
        {"study_id": "mole_b", "image": "mole b.JPG"},
    ]


def test_one_table_holds_the_metadata_of_all_photographs(lay_out, tmp_path):
    found = lay_out("a.jpg", "b.tiff", metadata="study_id,age\na,50\nb,61\n")
    assert relative(found, tmp_path) == [
        {"study_id": "a", "image": "a.jpg", "clinical": "metadata.csv"},
        {"study_id": "b", "image": "b.tiff", "clinical": "metadata.csv"},
    ]


def test_one_row_is_not_taken_for_several_photographs(lay_out):
    with refused("CLINICAL_CASE_NOT_FOUND") as caught:
        lay_out("a.jpg", "b.jpg", metadata="age,sex\n50,female\n\n")
    assert "one row for 2 photographs" in caught.value.message


def test_one_row_is_enough_for_one_photograph(lay_out):
    (study,) = lay_out("a.jpg", metadata="age,sex\n50,female\n")
    assert study["clinical"].endswith("metadata.csv")


def test_metadata_from_two_places_are_not_guessed_between(lay_out):
    with refused("SERIES_AMBIGUOUS") as caught:
        lay_out("a.jpg", "a.json", metadata="study_id,age\na,50\nb,61\n")
    assert "a.json, metadata.csv" in caught.value.message


def test_photographs_may_have_folders_of_their_own(lay_out, tmp_path):
    found = lay_out("s1/image.jpeg", "s1/clinical.json", "s2/Image.BMP", "s2/thumb.jpg")
    assert relative(found, tmp_path) == [
        {"study_id": "s1", "image": "s1/image.jpeg", "clinical": "s1/clinical.json"},
        {"study_id": "s2", "image": "s2/Image.BMP"},
    ]


def test_two_photographs_in_one_study_are_not_guessed_between(lay_out):
    with refused("SERIES_AMBIGUOUS") as caught:
        lay_out("s1/image.jpg", "s1/image.png")
    assert "s1 holds more than one image: image.jpg, image.png" in caught.value.message


def test_photographs_in_folders_and_loose_ones_are_not_mixed(lay_out):
    with refused("SERIES_AMBIGUOUS") as caught:
        lay_out("s1/image.jpg", "b.jpg")
    assert "in folders of their own and loose ones: b.jpg" in caught.value.message


def test_two_photographs_of_one_name_are_refused(lay_out):
    with pytest.raises(InputRefused, match="Several studies have the study_id a"):
        lay_out("a.jpg", "a.png")


def test_pictures_beside_scans_change_nothing(lay_out, tmp_path, caplog):
    (tmp_path / "s1" / "ct").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        found = lay_out("overview.png", "s1/mask.nii.gz", "s1/image.png")
    assert relative(found, tmp_path) == [{"study_id": "s1", "image": "s1/ct", "mask": "s1/mask.nii.gz"}]
    assert "1 photographs in" in caplog.text
    assert "image.png of s1 is skipped: the study is a scan." in caplog.text


def test_a_dicom_photograph_is_a_study_and_a_slice_of_a_scan_is_none(tmp_path):
    write_series(tmp_path, synthetic_series())
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with refused("INPUT_EMPTY") as caught:
        list_studies(dataset_dir=str(tmp_path))
    assert "NAME.jpg" in caught.value.remedy
    write_dicom_photograph(tmp_path / "mole.dcm")
    assert ids(list_studies(dataset_dir=str(tmp_path))) == ["mole"]


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "tif", "tiff", "bmp", "webp", "dcm"])
def test_one_photograph_is_named_without_its_suffix(suffix):
    assert ids(list_studies(image=f"/photos/mole.7.{suffix}")) == ["mole.7"]
