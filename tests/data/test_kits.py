"""Miniature KiTS folders in both layouts: same people, same answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from shared_nets.data.kits import KitsCase, assign_folds, kits_item, parse_egfr, read_kits
from shared_nets.refusals import InputRefused

PATIENTS = [
    {
        "case_id": "case_00002", "gender": "male", "bmi": 28.13, "age_at_nephrectomy": 74,
        "comorbidities": {"copd": True, "chronic_kidney_disease": True},
        "smoking_history": "not_found_in_emr", "radiographic_size": None,
        "last_preop_egfr": {"value": None, "days_before_nephrectomy": None}, "surgery_type": "robotic",
    },
    {
        "case_id": "case_00000", "gender": "female", "body_mass_index": 29.47, "age_at_nephrectomy": 49,
        "comorbidities": {"copd": False, "chronic_kidney_disease": False},
        "smoking_history": "never_smoked", "radiographic_size": 2.4,
        "last_preop_egfr": {"value": ">=90", "days_before_nephrectomy": 54},
    },
    {
        "case_id": "case_00003", "gender": "male", "bmi": 20.0, "age_at_nephrectomy": 17,
        "comorbidities": {"copd": False, "chronic_kidney_disease": False},
        "smoking_history": "current_smoker", "radiographic_size": 3,
        "last_preop_egfr": {"value": 77.0, "days_before_nephrectomy": ">90"},
    },
]  # fmt: skip
TABLE = [
    "case_id,age,sex,bmi,smoking_history,radiographic_tumour_size_cm,egfr,egfr_is_lower_bound,"
    "egfr_days_before_surgery,copd,chronic_kidney_disease",
    "case_00002,74,male,28.13,not_found_in_emr,,,,,1,1",
    "case_00000,49,female,29.47,never_smoked,2.4,90.0,1,54,0,0",
    "case_00003,17,male,20.0,current_smoker,3,77.0,0,90,0,0",
]


@pytest.fixture(params=["public", "flat"])
def kits_folder(request, tmp_path):
    if request.param == "public":
        (tmp_path / "dataset").mkdir()
        (tmp_path / "dataset/kits23.json").write_text(json.dumps(PATIENTS))
        paths = ["dataset/{}/segmentation.nii.gz", "dataset/{}/imaging.nii.gz"]
    else:
        (tmp_path / "clinical.csv").write_text("\n".join(TABLE) + "\n")
        paths = ["masks/{}.nii.gz", "images/{}.nii.gz"]
    for patient in PATIENTS:
        touch(tmp_path / paths[0].format(patient["case_id"]))
    touch(tmp_path / paths[1].format("case_00000"))
    return tmp_path


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def case(number, egfr):
    return KitsCase(case_id=f"case_{number:05d}", mask=Path("m"), egfr_ml_min=egfr)


def test_both_layouts_tell_the_same_of_every_patient_in_order(kits_folder):
    first, second, third = read_kits(kits_folder)
    assert [c.case_id for c in (first, second, third)] == ["case_00000", "case_00002", "case_00003"]
    assert first.clinical == {
        "age": 49, "sex": "female", "bmi": 29.47, "smoking_history": "never_smoked",
        "radiographic_tumour_size_cm": 2.4, "copd": 0,
    }  # fmt: skip
    assert second.clinical == {"age": 74, "sex": "male", "bmi": 28.13, "copd": 1}
    assert [c.egfr_ml_min for c in (first, second, third)] == [90.0, None, 77.0]
    assert [c.egfr_is_lower_bound for c in (first, second, third)] == [True, False, False]
    assert [c.egfr_days_before_surgery for c in (first, second, third)] == [54.0, None, 90.0]
    assert [c.is_minor for c in (first, second, third)] == [False, False, True]


def test_the_answer_is_never_among_the_inputs(kits_folder):
    for patient in read_kits(kits_folder):
        assert "chronic_kidney_disease" not in patient.clinical
        assert not any("egfr" in name for name in patient.clinical)


def test_a_gender_that_the_equation_does_not_know_is_left_out(tmp_path):
    patient = {**PATIENTS[0], "gender": "transgender_male_to_female"}
    (tmp_path / "kits23.json").write_text(json.dumps([patient]))
    touch(tmp_path / "case_00002/segmentation.nii.gz")
    assert "sex" not in read_kits(tmp_path)[0].clinical


def test_items_have_relative_paths_and_an_image_only_where_there_is_one(kits_folder):
    first, second, _ = (kits_item(c, relative_to=kits_folder) for c in read_kits(kits_folder))
    for key in ("image", "mask"):
        assert (kits_folder / first[key]).is_file()
        assert not Path(first[key]).is_absolute()
    assert "image" not in second
    assert "egfr_ml_min" not in second
    assert (first["egfr_ml_min"], first["egfr_is_lower_bound"], first["is_minor"]) == (90.0, True, False)
    assert json.loads(json.dumps(first)) == first


def test_the_dataset_folder_itself_may_be_given(kits_folder):
    base = kits_folder / "dataset"
    if base.exists():
        assert read_kits(base) == read_kits(kits_folder)


def test_cases_without_a_mask_are_left_out_and_counted(kits_folder, caplog):
    next(kits_folder.rglob("*case_00002*/segmentation*"), kits_folder / "masks/case_00002.nii.gz").unlink()
    assert [c.case_id for c in read_kits(kits_folder)] == ["case_00000", "case_00003"]
    assert "1 of 3 cases are left out" in caplog.text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (77.0, (77.0, False)), ("77", (77.0, False)), (">=90", (90.0, True)), (">90", (90.0, True)),
        ("≥ 90", (90.0, True)), (None, (None, False)), ("", (None, False)), (float("nan"), (None, False)),
    ],
)  # fmt: skip
def test_an_egfr_may_be_a_lower_bound(value, expected):
    assert parse_egfr(value) == expected


@pytest.mark.parametrize("value", ["high", "0", "-3", "900", "<15"])
def test_an_egfr_that_is_no_number_is_refused(value):
    with pytest.raises(InputRefused, match="is not a number between 0 and 300") as refusal:
        parse_egfr(value)
    assert refusal.value.code == "CLINICAL_BAD_VALUE"


def test_folds_are_even_in_number_and_in_egfr():
    cases = [case(i, 30.0 + 60.0 * (i * 37 % 100) / 100.0) for i in range(100)]
    folds = assign_folds(cases, num_folds=5, seed=0)
    for fold in range(5):
        egfr = [c.egfr_ml_min for c, f in zip(cases, folds, strict=True) if f == fold]
        assert len(egfr) == 20
        assert sum(egfr) / 20 == pytest.approx(60.0, abs=3.0)


def test_folds_follow_the_seed_and_not_the_order():
    cases = [case(i, 40.0 + i % 50) for i in range(60)]
    names = [c.case_id for c in cases]
    folds = dict(zip(names, assign_folds(cases, num_folds=5, seed=0), strict=True))
    backwards = cases[::-1]
    again = dict(zip(names[::-1], assign_folds(backwards, num_folds=5, seed=0), strict=True))
    assert again == folds
    assert list(folds.values()) != assign_folds(cases, num_folds=5, seed=1)


def test_few_cases_and_equal_values_still_make_folds():
    assert sorted(assign_folds([case(0, 60.0), case(1, 90.0)], num_folds=2, seed=0)) == [0, 1]
    ties = assign_folds([case(i, 90.0) for i in range(10)], num_folds=5, seed=0)
    assert sorted(ties) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("cases", "num_folds", "message"),
    [
        pytest.param(
            [case(0, 60.0)], 2, r"num_folds must be 2 to the number of cases \(1\), got 2", id="few"
        ),
        pytest.param([case(0, 60.0)] * 3, 1, "got 1", id="one fold"),
        pytest.param([case(0, 60.0), case(1, None)], 2, "cases must have an eGFR", id="no answer"),
    ],
)
def test_folds_that_cannot_be_made_are_an_error(cases, num_folds, message):
    with pytest.raises(ValueError, match=message):
        assign_folds(cases, num_folds=num_folds, seed=0)


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        pytest.param("other.txt", "", "INPUT_NOT_FOUND", id="neither layout"),
        pytest.param("clinical.csv", "case_id,age\na,61\n", "INPUT_EMPTY", id="no mask"),
        pytest.param("clinical.csv", "id,age\na,61\n", "CLINICAL_UNREADABLE", id="no case_id"),
        pytest.param("clinical.csv", "case_id,age\na\n", "CLINICAL_UNREADABLE", id="short line"),
        pytest.param("clinical.csv", "case_id,age\na,61,1\n", "CLINICAL_UNREADABLE", id="long line"),
        pytest.param("kits23.json", "{", "CLINICAL_UNREADABLE", id="broken JSON"),
        pytest.param("kits23.json", '{"a": 1}', "CLINICAL_UNREADABLE", id="not a list"),
        pytest.param("kits23.json", '[{"gender": "male"}]', "CLINICAL_UNREADABLE", id="no name"),
    ],
)
def test_folders_that_are_no_kits_are_refused(tmp_path, name, text, code):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputRefused) as refusal:
        read_kits(tmp_path)
    assert refusal.value.code == code


def test_a_case_that_stands_twice_is_refused(tmp_path):
    with (tmp_path / "clinical.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["case_id", "age"], ["a", 61], ["a", 62]])
    touch(tmp_path / "masks/a.nii.gz")
    with pytest.raises(InputRefused, match="a stands twice"):
        read_kits(tmp_path)
