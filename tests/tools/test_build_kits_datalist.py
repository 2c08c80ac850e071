"""The command line that turns a KiTS folder into a datalist with folds and creatinine."""

from __future__ import annotations

import json

import pytest

from shared_nets.data.studies import list_studies
from shared_nets.transforms.ckd_epi import egfr_from_creatinine
from tools.build_kits_datalist import main

HEADER = "case_id,age,sex,bmi,egfr,egfr_is_lower_bound,egfr_days_before_surgery,chronic_kidney_disease"


@pytest.fixture
def kits_folder(tmp_path):
    lines = [HEADER]
    lines += [f"case_{i:05d},{40 + i},{('male', 'female')[i % 2]},25,{50 + i},0,7,0" for i in range(20)]
    lines += ["case_00020,60,male,25,90,1,7,0", "case_00021,60,male,25,,,,1", "case_00022,9,male,17,80,0,7,0"]
    (tmp_path / "clinical.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "masks").mkdir()
    for line in lines[1:]:
        (tmp_path / "masks" / f"{line.split(',')[0]}.nii.gz").touch()
    return tmp_path


def build(folder, *options):
    output = folder / "datalist.json"
    assert main([str(folder), "--output", str(output), *options]) == 0
    return json.loads(output.read_text(encoding="utf-8"))


def test_people_are_listed_by_what_is_known_of_them(kits_folder, capsys):
    datalist = build(kits_folder)
    assert {key: len(datalist[key]) for key in ("training", "unlabelled", "minors")} == {
        "training": 21, "unlabelled": 1, "minors": 1,
    }  # fmt: skip
    assert "21 training, 1 unlabelled, 1 minors" in capsys.readouterr().out
    assert datalist["minors"][0]["is_minor"] is True
    assert "creatinine_mg_dl" not in datalist["minors"][0]
    assert "fold" not in datalist["unlabelled"][0]


def test_creatinine_gives_back_the_egfr(kits_folder):
    for item in build(kits_folder)["training"]:
        person = item["clinical"]["age"], item["clinical"]["sex"] == "female"
        egfr = egfr_from_creatinine(item["creatinine_mg_dl"], *person)
        assert float(egfr) == pytest.approx(item["egfr_ml_min"], rel=1e-3)  # creatinine has four decimals


def test_a_worked_example(kits_folder):
    """A man of 40 with 50 mL/min: 0.9 · (142 · 0.9938⁴⁰ / 50)^(1 / 1.2) = 1.74 mg/dL."""
    first = build(kits_folder)["training"][0]
    assert first["creatinine_mg_dl"] == pytest.approx(0.9 * (142 * 0.9938**40 / 50) ** (1 / 1.2), abs=1e-4)


def test_the_answer_is_left_out_of_the_inputs(kits_folder):
    datalist = build(kits_folder)
    for item in datalist["training"] + datalist["unlabelled"] + datalist["minors"]:
        assert set(item["clinical"]) <= {"age", "sex", "bmi"}


def test_minors_join_only_when_asked_for(kits_folder):
    datalist = build(kits_folder, "--include-minors")
    assert datalist["minors"] == []
    child = next(item for item in datalist["training"] if item["is_minor"])
    assert (child["study_id"], child["egfr_ml_min"]) == ("case_00022", 80.0)
    assert "creatinine_mg_dl" not in child


def test_the_same_seed_writes_the_same_bytes(kits_folder):
    build(kits_folder)
    first = (kits_folder / "datalist.json").read_bytes()
    build(kits_folder)
    assert (kits_folder / "datalist.json").read_bytes() == first
    other = build(kits_folder, "--seed", "1")
    assert [i["fold"] for i in other["training"]] != [i["fold"] for i in json.loads(first)["training"]]
    assert {i["fold"] for i in build(kits_folder, "--folds", "3")["training"]} == {0, 1, 2}


def test_the_datalist_is_one_that_runs_read(kits_folder):
    build(kits_folder)
    studies = list_studies(datalist=str(kits_folder / "datalist.json"), datalist_key="training")
    assert len(studies) == 21
    assert studies[0]["mask"] == str(kits_folder / "masks/case_00000.nii.gz")


def test_a_folder_that_is_no_kits_ends_in_status_3_and_writes_nothing(tmp_path, capsys):
    assert main([str(tmp_path), "--output", str(tmp_path / "datalist.json")]) == 3
    assert "INPUT_NOT_FOUND" in capsys.readouterr().err
    assert not (tmp_path / "datalist.json").exists()


def test_a_value_that_the_model_would_refuse_is_refused_here(kits_folder, capsys):
    text = (
        (kits_folder / "clinical.csv")
        .read_text(encoding="utf-8")
        .replace("case_00000,40,male,25", "case_00000,40,male,250")
    )
    (kits_folder / "clinical.csv").write_text(text)
    assert main([str(kits_folder), "--output", str(kits_folder / "datalist.json")]) == 3
    assert 'CLINICAL_OUT_OF_RANGE: "bmi" is 250' in capsys.readouterr().err


def test_more_folds_than_people_is_a_usage_error(kits_folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(kits_folder), "--output", "x.json", "--folds", "99"])
    assert "num_folds must be 2 to the number of cases (21), got 99." in capsys.readouterr().err
