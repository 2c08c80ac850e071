"""ISIC 2024 from a folder like the challenge's: what becomes metadata, whose fold, and what is refused."""

from __future__ import annotations

import pickle

import pytest

from shared_nets.data.isic2024 import COLUMNS, Isic2024
from shared_nets.refusals import InputRefused
from shared_nets.transforms.lesion_schema import lesion_schema
from tests.data.lesion_sets import LEAKING, isic_name, isic_rows, write_csv


@pytest.fixture
def folder(tmp_path):
    rows = isic_rows(200, num_patients=30)
    rows[7] |= {"patient_id": "", "clin_size_long_diam_mm": "NA", "sex": "", "age_approx": "NA"}
    write_csv(tmp_path / "train-metadata.csv", rows)
    (tmp_path / "train-image.hdf5").touch()
    return tmp_path


def test_an_item_has_the_image_the_raw_values_and_the_answer(folder):
    item = Isic2024(folder)[10]
    assert item["study_id"] == isic_name(10)
    assert item["image"] == f"{folder}/train-image.hdf5#ISIC_0000010"
    assert item["label"] == 1
    assert list(item["clinical"]) == list(COLUMNS)
    assert item["clinical"]["age_approx"] == 30.0
    assert item["clinical"]["tbp_lv_A"] == 5.0 + 2
    assert item["clinical"]["attribution"] == "attribution word"
    assert item["subgroup"] == {"sex": "male", "age_band": "under 40", "site": "head/neck"}


def test_columns_that_tell_the_answer_or_a_name_are_left_out(folder):
    assert not set(COLUMNS) & {*LEAKING, "patient_id", "isic_id", "target"}
    for item in Isic2024(folder):
        assert "Malignant" not in item["clinical"].values()
        assert not any("IP_" in str(value) for value in item.values())


def test_the_columns_are_those_of_the_metadata_schema():
    schema = lesion_schema("isic2024")
    assert [feature.name for feature in schema.values.features] == list(COLUMNS)


def test_missing_values_are_left_out(folder):
    item = Isic2024(folder)[7]
    assert not {"clin_size_long_diam_mm", "sex", "age_approx"} & set(item["clinical"])
    assert item["subgroup"] == {"site": "head/neck"}


def test_no_patient_straddles_and_an_unnamed_one_is_alone(folder):
    items = list(Isic2024(folder))
    folds = {}
    for item in items:
        folds.setdefault(item["group"], set()).add(item["fold"])
    assert {len(of_patient) for of_patient in folds.values()} == {1}
    assert [item["group"] for item in items].count(items[7]["group"]) == 1
    assert len(folds) == 31


def test_a_fold_and_all_but_it_share_no_patient_and_no_image(folder):
    held_out, rest = Isic2024(folder, fold=2), Isic2024(folder, without_fold=2)
    assert len(held_out) + len(rest) == 200
    assert not {item["group"] for item in held_out} & {item["group"] for item in rest}


def test_a_quick_part_keeps_all_positives_and_the_folds_of_the_whole(folder):
    whole = {item["study_id"]: item["fold"] for item in Isic2024(folder)}
    quick = Isic2024(folder, negatives_per_fold=4)
    assert (quick.labels.sum(), len(quick)) == (20, 20 + 5 * 4)
    assert all(item["fold"] == whole[item["study_id"]] for item in quick)


def test_it_is_a_sequence_that_workers_can_receive(folder):
    items = pickle.loads(pickle.dumps(Isic2024(folder)))
    assert items[-1]["study_id"] == isic_name(199)
    assert [item["study_id"] for item in items[:2]] == [isic_name(0), isic_name(1)]
    with pytest.raises(IndexError):
        items[200]


def test_images_in_a_folder_are_found_where_there_is_no_hdf5(folder):
    (folder / "train-image.hdf5").unlink()
    with pytest.raises(InputRefused, match="INPUT_NOT_FOUND"):
        Isic2024(folder)
    (folder / "train-image" / "image").mkdir(parents=True)
    assert Isic2024(folder)[3]["image"] == f"{folder}/train-image/image/ISIC_0000003.jpg"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(lambda rows: [r.pop("tbp_lv_z") for r in rows], "CLINICAL_UNREADABLE", id="column gone"),
        pytest.param(lambda rows: rows[3].update(tbp_lv_A="IP_0000003"), "CLINICAL_UNREADABLE", id="word"),
        pytest.param(lambda rows: rows[3].update(isic_id=isic_name(4)), "CLINICAL_GIVEN_TWICE", id="twice"),
        pytest.param(lambda rows: rows[3].update(target=2), "CLINICAL_BAD_VALUE", id="no answer"),
        pytest.param(lambda rows: rows[3].update(target=""), "CLINICAL_BAD_VALUE", id="missing answer"),
    ],
)
def test_a_broken_table_is_refused_without_naming_anybody(folder, change, code):
    rows = isic_rows(60, num_patients=10)
    change(rows)
    write_csv(folder / "train-metadata.csv", rows)
    with pytest.raises(InputRefused, match=code) as refused:
        Isic2024(folder)
    assert "IP_" not in str(refused.value)
    assert "ISIC_" not in str(refused.value)


def test_a_folder_without_a_table_is_refused(folder):
    (folder / "train-metadata.csv").unlink()
    with pytest.raises(InputRefused, match=r"INPUT_NOT_FOUND: There is no train-metadata\.csv"):
        Isic2024(folder)
