"""HAM10000 from a folder like the published one."""

from __future__ import annotations

import logging

import pytest

from shared_nets.data.ham10000 import CLASS_NAMES, read_ham10000
from shared_nets.refusals import InputRefused
from shared_nets.transforms.lesion_metadata import parse_lesion_metadata
from shared_nets.transforms.lesion_schema import lesion_schema
from tests.data.lesion_sets import HAM_ROWS, jpeg, write_csv


@pytest.fixture
def folder(tmp_path):
    rows = [dict(row) for row in HAM_ROWS]
    rows[4] |= {"age": "", "sex": "unknown", "localization": "unknown"}
    write_csv(tmp_path / "HAM10000_metadata.csv", rows)
    for i, row in enumerate(rows):
        part = tmp_path / f"HAM10000_images_part_{1 + i % 2}"
        part.mkdir(exist_ok=True)
        (part / f"{row['image_id']}.jpg").write_bytes(jpeg(i))
    return tmp_path


def test_an_item_has_the_image_the_raw_values_and_the_class(folder):
    item = read_ham10000(folder, num_folds=2)[3]
    assert item["image"] == str(folder / "HAM10000_images_part_2" / "ISIC_0024309.jpg")
    assert CLASS_NAMES[item["label"]] == "mel"
    assert item["clinical"] == {"age": 33.0, "sex": "female", "localization": "back"}
    assert item["subgroup"] == {"sex": "female", "age_band": "under 40", "site": "back"}


def test_the_class_numbers_are_those_of_dermamnist():
    assert {name: i for i, name in enumerate(CLASS_NAMES)} == {
        "akiec": 0, "bcc": 1, "bkl": 2, "df": 3, "mel": 4, "nv": 5, "vasc": 6,
    }  # fmt: skip


def test_the_metadata_schema_understands_the_columns(folder):
    item = read_ham10000(folder, num_folds=2)[3]
    values = parse_lesion_metadata(item["clinical"], lesion_schema("dermoscopy_clinic"))
    assert set(values.used) == {"age", "sex", "anatomical_site"}


def test_unknown_values_are_left_out(folder):
    item = read_ham10000(folder, num_folds=2)[4]
    assert item["clinical"] == item["subgroup"] == {}


def test_images_of_one_lesion_lie_in_one_fold(folder):
    items = read_ham10000(folder, num_folds=3)
    for first, second in zip(items[::2], items[1::2], strict=True):
        assert (first["group"], first["fold"]) == (second["group"], second["fold"])
    assert len({item["fold"] for item in items}) == 3


def test_images_without_a_file_are_counted_and_left_out(folder, caplog):
    next((folder / "HAM10000_images_part_1").iterdir()).unlink()
    with caplog.at_level(logging.WARNING):
        assert len(read_ham10000(folder, num_folds=2)) == 19
    assert "1 of 20 images are left out" in caplog.text
    assert "HAM_" not in caplog.text


def test_the_table_may_lack_its_suffix(folder):
    (folder / "HAM10000_metadata.csv").rename(folder / "HAM10000_metadata")
    assert len(read_ham10000(folder, num_folds=2)) == 20


def test_a_folder_or_a_diagnosis_that_does_not_belong_is_refused(folder, tmp_path):
    write_csv(folder / "HAM10000_metadata.csv", [{**HAM_ROWS[0], "dx": "scc"}])
    with pytest.raises(InputRefused, match="CLINICAL_BAD_VALUE"):
        read_ham10000(folder)
    (folder / "HAM10000_metadata.csv").unlink()
    with pytest.raises(InputRefused, match=r"INPUT_NOT_FOUND: There is no HAM10000_metadata\.csv"):
        read_ham10000(folder)
    (tmp_path / "empty").mkdir()
    write_csv(tmp_path / "empty" / "HAM10000_metadata.csv", HAM_ROWS)
    with pytest.raises(InputRefused, match="INPUT_EMPTY: empty holds no image"):
        read_ham10000(tmp_path / "empty")
