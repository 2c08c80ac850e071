"""From what people write to the vector: units, words, missing values, and what must be turned away."""

from __future__ import annotations

import json
import math

import pytest
import torch

from shared_nets.refusals import InputRefused
from shared_nets.transforms.clinical_schema import CKD_23, KITS, KITS_WITH_SHAPE
from shared_nets.transforms.clinical_values import ClinicalValuesd, parse_clinical_values

NO_CREATININE = CKD_23.without("Cr_48h_log")


def parse(given, schema=CKD_23, **other):
    return parse_clinical_values(given, schema, **other)


def codes(values):
    return [finding.code for finding in values.findings]


def refuse(given, schema=CKD_23, **other):
    with pytest.raises(InputRefused) as refusal:
        parse(given, schema, **other)
    return refusal.value


# units


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        pytest.param("Hb", 13.5, 13.5, id="number in the schema's unit"),
        pytest.param("Hb", "13.5", 13.5, id="text without a unit"),
        pytest.param("Hb", " 13.5\t", 13.5, id="blanks and tabs"),
        pytest.param("Hb", "13.5 g/dL", 13.5, id="text with the schema's unit"),
        pytest.param("Hb", "135 g/L", 13.5, id="text with another unit"),
        pytest.param("Hb", "135g/L", 13.5, id="no blank before the unit"),
        pytest.param("Hb", {"value": 135, "unit": "g/L"}, 13.5, id="object"),
        pytest.param("Hb", {"value": "13.5"}, 13.5, id="object without a unit"),
        pytest.param("Hb", {"value": "135 g/L", "unit": None}, 13.5, id="object with an empty unit"),
        pytest.param("P", "1.2 mmol/L", 3.716, id="phosphate"),
        pytest.param("Ca", "2.4 mmol/L", 9.619, id="calcium"),
        pytest.param("BUN", "5 mmol/L", 14.005, id="urea nitrogen from urea"),
        pytest.param("K", "4.1 mEq/L", 4.1, id="potassium"),
        pytest.param("Cr_48h_log", 0.18, 0.18, id="logarithm"),
        pytest.param("Cr_48h_log", "1.2 mg/dL", math.log(1.2), id="creatinine where its logarithm stands"),
        pytest.param("AGE", "049Y", 49.0, id="DICOM age"),
        pytest.param("AGE", "1e1", 10.0, id="exponent"),
    ],
)
def test_numbers_are_read_in_any_known_unit(name, given, expected):
    assert parse({name: given}).used[name] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("unit", ["umol/L", "µmol/L", "μmol/L", "mcmol/l"])
def test_creatinine_becomes_the_logarithm_of_milligrams(unit):
    values = parse({"creatinine": f"106.1 {unit}"})
    assert values.used["Cr_48h_log"] == pytest.approx(math.log(1.2), abs=1e-3)
    assert codes(values) == ["CLINICAL_UNIT_CONVERTED", "CLINICAL_COMPUTED"]
    assert "was read as 1.2 mg/dL" in values.findings[0].message


def test_bare_creatinine_is_milligrams():
    assert parse({"Serum creatinine": 1.2}).used["Cr_48h_log"] == pytest.approx(math.log(1.2))


def test_a_conversion_is_told_and_a_change_of_spelling_is_not():
    values = parse({"Hb": "135 g/L", "K": "4.1 mEq/L"})
    assert codes(values) == ["CLINICAL_UNIT_CONVERTED"]
    assert values.findings[0].message == '"Hb" 135 g/L was read as 13.5 g/dL.'


@pytest.mark.parametrize(
    ("name", "given", "remedy"),
    [
        pytest.param("creatinine", 106, '"106 µmol/L"', id="creatinine"),
        pytest.param("Hb", 135, '"135 g/L"', id="haemoglobin"),
        pytest.param("Albumin", 42, '"42 g/L"', id="albumin"),
        pytest.param("Ca", 2.4, '"2.4 mmol/L"', id="calcium"),
        pytest.param("height", 1.75, '"1.75 m"', id="height"),
        pytest.param("K", 41, "check the value", id="no unit would help"),
    ],
)
def test_a_likely_mix_up_of_units_is_refused_with_the_likely_unit(name, given, remedy):
    refusal = refuse({name: given})
    assert refusal.code == "CLINICAL_OUT_OF_RANGE"
    assert f'"{name}" is {given}, outside' in refusal.message
    assert remedy in refusal.remedy


def test_a_converted_value_out_of_range_shows_both():
    assert '"Hb" is 1350 g/L (135 g/dL), outside 2 to 25 g/dL.' in refuse({"Hb": "1350 g/L"}).message


def test_urea_without_a_unit_is_refused_because_it_could_be_two_things():
    refusal = refuse({"urea": 30})
    assert refusal.code == "CLINICAL_UNKNOWN_UNIT"
    assert '"30 mmol/L"' in refusal.remedy
    values = parse({"urea": "30 mg/dL"})
    assert values.used["BUN"] == pytest.approx(30.0 * 28.013 / 60.056, abs=0.01)  # share of nitrogen by mass
    assert values.findings[1].message == '"BUN" is 13.99 mg/dL, the nitrogen of 4.995 mmol/L urea.'
    assert codes(parse({"urea": "5 mmol/L"})) == ["CLINICAL_COMPUTED"]
    assert refuse({"urea": "300 mmol/L"}).code == "CLINICAL_OUT_OF_RANGE"


def test_body_mass_index_comes_from_height_and_weight():
    values = parse({"height": "1.75 m", "weight": 70})
    assert values.used["BMI"] == pytest.approx(70 / 1.75**2)
    assert codes(values) == ["CLINICAL_UNIT_CONVERTED", "CLINICAL_COMPUTED"]


def test_a_given_body_mass_index_wins_and_a_lone_height_is_told():
    values = parse({"BMI": 25, "height": 175, "weight": 90})
    assert values.used["BMI"] == 25.0
    assert values.findings[0].code == "CLINICAL_NOT_USED"
    lone = parse({"height": 175})
    assert "BMI" in lone.missing
    assert '"height" was not used: the other of the two is missing.' in lone.findings[0].message


def test_an_impossible_body_mass_index_names_both_columns():
    assert '"weight" and "height"' in refuse({"height": 250, "weight": 20}).message


@pytest.mark.parametrize(
    ("given", "code"),
    [
        pytest.param("high", "CLINICAL_BAD_VALUE", id="word"),
        pytest.param("<0.5", "CLINICAL_BAD_VALUE", id="bound"),
        pytest.param("13,5", "CLINICAL_BAD_VALUE", id="decimal comma"),
        pytest.param("13.5.1", "CLINICAL_UNKNOWN_UNIT", id="two points"),
        pytest.param(True, "CLINICAL_BAD_VALUE", id="boolean"),
        pytest.param([13.5], "CLINICAL_BAD_VALUE", id="list"),
        pytest.param(math.inf, "CLINICAL_BAD_VALUE", id="infinity"),
        pytest.param(10**400, "CLINICAL_BAD_VALUE", id="too large for a float"),
        pytest.param("1e999", "CLINICAL_BAD_VALUE", id="text too large for a float"),
        pytest.param({"value": 1, "units": "g/dL"}, "CLINICAL_BAD_VALUE", id="misspelled key"),
        pytest.param({"unit": "g/dL"}, "CLINICAL_BAD_VALUE", id="no value"),
        pytest.param({"value": 13, "unit": 5}, "CLINICAL_BAD_VALUE", id="unit is a number"),
        pytest.param({"value": "13 g/dL", "unit": "g/L"}, "CLINICAL_BAD_VALUE", id="two units"),
        pytest.param("13.5 bananas", "CLINICAL_UNKNOWN_UNIT", id="unknown unit"),
        pytest.param("-3", "CLINICAL_OUT_OF_RANGE", id="negative"),
    ],
)
def test_what_is_no_number_is_refused_with_the_name_of_the_column(given, code):
    refusal = refuse({"Hb": given})
    assert refusal.code == code
    assert '"Hb"' in refusal.message


# words


@pytest.mark.parametrize("given", ["F", "female", " Female ", "FEMALE", "woman"])
def test_sex_is_read_from_words(given):
    assert parse({"SEX": given}).used["SEX"] == "female"


@pytest.mark.parametrize("given", [0, 1, "1", 2.0])
def test_a_number_for_sex_is_refused_without_a_coding(given):
    refusal = refuse({"SEX": given})
    assert refusal.code == "CLINICAL_BAD_VALUE"
    assert "nothing says what it stands for" in refusal.message
    assert '"coding"' in refusal.remedy


def test_a_declared_coding_makes_numbers_words():
    inline = {"value": 2, "coding": {"1": "male", "2": "female"}}
    assert parse({"SEX": inline}).used["SEX"] == "female"
    assert parse({"SEX": "1.0"}, codings={"SEX": {"1": "male", "2": "female"}}).used["SEX"] == "male"
    assert refuse({"SEX": 3}, codings={"SEX": {"1": "male", "2": "female"}}).code == "CLINICAL_BAD_VALUE"


@pytest.mark.parametrize(
    ("given", "word"), [(1, "yes"), ("0", "no"), (True, "yes"), ("No", "no"), ("1.0", "yes")]
)
def test_yes_and_no_may_be_numbers(given, word):
    assert parse({"copd": given}, KITS).used["copd"] == word


def test_smoking_is_ordered():
    for place, word in enumerate(("never", "former smoker", "current_smoker")):
        values = parse({"smoking_history": word}, KITS)
        assert values.vector(with_missing_indicators=False)[KITS.names.index("smoking_history")] == place


def test_a_word_that_starts_with_a_digit_is_a_word():
    assert refuse({"smoking_history": "3D: XP"}, KITS).code == "CLINICAL_BAD_VALUE"


@pytest.mark.parametrize(
    ("name", "given"), [("sex", "O"), ("copd", 2), ("smoking_history", "sometimes"), ("sex", True)]
)
def test_a_word_that_is_not_allowed_is_refused_with_those_that_are(name, given):
    refusal = refuse({name: given}, KITS)
    assert refusal.code == "CLINICAL_BAD_VALUE"
    assert f'"{KITS[name].categories[0]}"' in refusal.remedy


# missing values


@pytest.mark.parametrize(
    "given",
    ["", "  ", None, "NA", "n/a", "nan", "NaN", math.nan, "?", "\t?", "not_found_in_emr", {"value": None}],
)
def test_missing_stays_missing(given):
    values = parse({"Hb": given, "SEX": given, "creatinine": given})
    assert values.used == {}
    assert values.missing == list(CKD_23.names)


def test_the_vector_ends_in_missing_indicators():
    vector = parse({"SEX": "female", "AGE": 61, "K": 4.1}).vector(with_missing_indicators=True)
    assert vector.dtype == torch.float32
    assert vector.shape == (46,)
    assert vector[[0, 1, 9]].tolist() == pytest.approx([1.0, 61.0, 4.1])
    assert vector[:23].isnan().tolist() == [flag == 1.0 for flag in vector[23:].tolist()]
    assert vector[23:].sum() == 20.0


# names


def test_an_unknown_name_comes_with_the_closest_known_one():
    refusal = refuse({"albumine": 4})
    assert refusal.code == "CLINICAL_UNKNOWN_COLUMN"
    assert '"albumine" is not a clinical value of CKD_23.' in refusal.message
    assert 'Did you mean "Albumin"?' in refusal.remedy
    assert 'Did you mean "creatinine"?' in refuse({"kreatinine": 1}).remedy


def test_a_name_like_no_other_comes_with_all_known_ones():
    remedy = refuse({"zzz": 4}).remedy
    assert "SEX, AGE, BMI" in remedy
    assert "original_shape" not in remedy


@pytest.mark.parametrize("name", ["chronic_kidney_disease", "eGFR", "stage", "CKD stage", "creatinine"])
def test_the_answer_among_the_inputs_is_refused_and_told_why(name):
    refusal = refuse({name: 1}, KITS)
    assert refusal.code == "CLINICAL_UNKNOWN_COLUMN"
    assert "It is the answer or tells it" in refusal.remedy


def test_creatinine_is_refused_where_the_schema_was_stripped_of_it():
    for name in ("creatinine", "Cr_48h_log"):
        assert "It is the answer" in refuse({name: 1.0}, NO_CREATININE).remedy


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"AGE": 61, "age_years": 61}, id="name and alias"),
        pytest.param({"creatinine": 1.2, "Cr_48h_log": 0.18}, id="creatinine and its logarithm"),
        pytest.param({"creatinine": 1.2, "Cr_48h_log": "1.2 mg/dL"}, id="creatinine twice"),
        pytest.param({"urea": "5 mmol/L", "BUN": 14}, id="urea and its nitrogen"),
        pytest.param({"height": 175, "height_cm": 175}, id="height twice"),
    ],
)
def test_a_value_given_twice_is_refused_with_both_names(given):
    refusal = refuse(given)
    assert refusal.code == "CLINICAL_GIVEN_TWICE"
    for name in given:
        assert f'"{name}"' in refusal.message


def test_a_second_name_without_a_value_does_no_harm():
    assert parse({"AGE": 61, "age_years": ""}).used["AGE"] == 61.0


# mask and header


def test_shape_features_are_taken_from_the_mask_unless_given():
    measured = {
        "kidney_volume_ml": 340.0,
        "cyst_volume_ml": 2.0,
        "left_kidney_length_mm": math.nan,
        "other": 1.0,
    }
    values = parse({"kidney_volume_ml": 300}, KITS_WITH_SHAPE, measured=measured)
    assert values.used == {"kidney_volume_ml": 300.0, "cyst_volume_ml": 2.0}
    assert values.sources == {"kidney_volume_ml": "user", "cyst_volume_ml": "kidney mask"}
    assert codes(values) == ["CLINICAL_GIVEN_OVER_MEASURED"]
    assert "kidney_volume_ml" in values.findings[0].message


def test_a_mask_that_measures_the_impossible_is_refused():
    refusal = refuse({}, KITS_WITH_SHAPE, measured={"kidney_volume_ml": 1e6})
    assert refusal.code == "CLINICAL_OUT_OF_RANGE"
    assert "Check the segmentation" in refusal.remedy


def test_age_and_sex_are_taken_from_the_header_and_it_is_told():
    values = parse({}, KITS, header={"PatientAge": "049Y", "PatientSex": "F"})
    assert values.used == {"age": 49.0, "sex": "female"}
    assert set(values.sources.values()) == {"image header"}
    assert codes(values) == ["CLINICAL_FROM_HEADER"] * 2


@pytest.mark.parametrize(
    "header",
    [
        {"PatientAge": "", "PatientSex": "O"},
        {"PatientAge": "old", "PatientSex": None},
        {"PatientAge": "999Y"},
    ],
)
def test_a_useless_header_changes_nothing(header):
    assert parse({}, KITS, header=header).used == {}


def test_given_values_win_over_the_header_and_a_contradiction_is_told():
    given = {"age": 61, "sex": "male"}
    values = parse(given, KITS, header={"PatientAge": "049Y", "PatientSex": "F"})
    assert values.used == {"age": 61.0, "sex": "male"}
    assert codes(values) == ["CLINICAL_HEADER_CONFLICT"] * 2
    assert codes(parse(given, KITS, header={"PatientAge": "060Y", "PatientSex": "M"})) == []


# the transform


def test_the_transform_writes_the_vector_and_its_story(tmp_path):
    path = tmp_path / "clinical.json"
    path.write_text(json.dumps({"study_id": "a", "age": 61, "sex": "F", "bmi": 24.5}))
    sample = ClinicalValuesd(schema="KITS")({"study_id": "a", "clinical": str(path)})
    assert sample["clinical"].shape == (2 * len(KITS),)
    values = sample["clinical_values"]
    assert values["age_years"] == 61.0
    assert values["is_female"] is True
    assert values["used"]["bmi"] == {"value": 24.5, "unit": "kg/m2", "source": "user"}
    assert values["used"]["sex"] == {"value": "female", "unit": "", "source": "user"}
    assert list(values["used"]) == ["age", "sex", "bmi"]
    assert values["missing"] == list(KITS.names[3:])
    assert (values["schema"], values["schema_sha256"]) == ("KITS", KITS.sha256)
    assert values["findings"] == []


def test_the_transform_reads_what_other_transforms_left():
    sample = {
        "kidney_shape": {"kidney_volume_ml": 340.0},
        "kidney_shape_findings": ["cut"],
        "slice_selection": {"image": {"header": {"PatientAge": "049Y", "PatientSex": "M"}}},
    }
    out = ClinicalValuesd(schema="KITS_WITH_SHAPE", with_missing_indicators=False)(sample)
    assert out["clinical"].shape == (len(KITS_WITH_SHAPE),)
    assert out["clinical_values"]["used"]["kidney_volume_ml"]["source"] == "kidney mask"
    assert out["clinical_values"]["is_female"] is False
    assert out["clinical_values"]["findings"][-1] == "cut"
    assert "clinical" not in sample
    plain = ClinicalValuesd(schema="KITS")(sample)
    assert "cut" not in plain["clinical_values"]["findings"]


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        pytest.param({"sex": "male"}, "CLINICAL_REQUIRED_MISSING", '"age" is missing', id="no age"),
        pytest.param({"age": 61}, "CLINICAL_REQUIRED_MISSING", '"sex" is missing', id="no sex"),
        pytest.param(None, "CLINICAL_REQUIRED_MISSING", '"age" is missing', id="nothing"),
        pytest.param({"age": 17.9, "sex": "male"}, "AGE_UNDER_18", "under 18", id="child"),
        pytest.param({"age": "017Y", "sex": "male"}, "AGE_UNDER_18", "under 18", id="child, DICOM age"),
    ],
)
def test_age_and_sex_are_needed_and_children_are_refused(given, code, message):
    with pytest.raises(InputRefused, match=message) as refusal:
        ClinicalValuesd(schema="KITS")({"clinical": given})
    assert refusal.value.code == code


def test_codings_reach_the_values():
    transform = ClinicalValuesd(schema="CKD_23", codings={"SEX": {"1": "male", "2": "female"}})
    assert transform({"clinical": {"SEX": 2, "AGE": 50}})["clinical_values"]["is_female"] is True


def test_a_schema_can_be_stripped_in_the_configuration():
    transform = ClinicalValuesd(schema="CKD_23", without=["Cr_48h_log"])
    assert transform.schema == NO_CREATININE
    with pytest.raises(ValueError, match="schema must have an age and a sex"):
        ClinicalValuesd(schema="CKD_23", without=["AGE"])
