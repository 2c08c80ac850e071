"""From what people write of a lesion to the row of a network: words, units, leaks, and refusals."""

from __future__ import annotations

import json

import pytest
import torch
from monai.data import MetaTensor

from shared_nets.refusals import InputRefused
from shared_nets.transforms.lesion_metadata import LesionMetadatad, parse_lesion_metadata
from shared_nets.transforms.lesion_schema import lesion_schema

ISIC, CLINIC = lesion_schema("isic2024"), lesion_schema("dermoscopy_clinic")
#: Made up, with the column names and spellings of the challenge's training table.
ISIC_ROW = {
    "isic_id": "ISIC_0000001", "target": "0", "patient_id": "IP_0000001", "age_approx": "60.0",
    "sex": "male", "anatom_site_general": "lower extremity", "clin_size_long_diam_mm": "3.04",
    "image_type": "TBP tile: close-up", "tbp_tile_type": "3D: white", "tbp_lv_A": "20.24",
    "tbp_lv_location": "Right Leg - Upper", "tbp_lv_location_simple": "Right Leg",
    "attribution": "Memorial Sloan Kettering Cancer Center", "copyright_license": "CC-BY",
    "lesion_id": "", "iddx_full": "Benign", "iddx_1": "Benign", "mel_thick_mm": "",
    "tbp_lv_dnn_lesion_confidence": "97.5",
}  # fmt: skip


def codes(values):
    return [finding.code for finding in values.findings]


def refuse(given, schema=CLINIC):
    with pytest.raises(InputRefused) as refusal:
        parse_lesion_metadata(given, schema)
    return refusal.value


def test_a_row_of_the_challenge_is_read_without_what_tells_the_answer():
    sample = LesionMetadatad(schema="isic2024")({"study_id": "ISIC_0000001", "clinical": ISIC_ROW})
    row = dict(zip(ISIC.names, sample["metadata"].tolist(), strict=True))
    assert row["age_approx"] == 60.0
    assert row["tbp_lv_A"] == pytest.approx(20.24)
    assert row["tbp_tile_type"] == 2.0  # 3D: XP, 3D: white
    assert row["attribution"] == 5.0
    assert sample["metadata_used"]["tbp_lv_location"]["value"] == "Right Leg - Upper"
    assert len(sample["metadata_missing"]) == 40 - 9
    messages = [finding.message for finding in sample["metadata_findings"]]
    assert messages == [
        '"target", "iddx_full", "iddx_1" were not used: it is the diagnosis or follows from it.',
        '"patient_id", "image_type", "copyright_license" were not used: it does not describe the lesion.',
        '"tbp_lv_dnn_lesion_confidence" was not used: it was computed where the diagnosis was known, and is '
        "not known elsewhere.",
    ]


def test_a_row_is_found_in_the_table_by_the_id_of_the_picture(tmp_path):
    other = {**ISIC_ROW, "isic_id": "ISIC_0000002", "age_approx": "35"}
    path = tmp_path / "metadata.csv"
    rows = [ISIC_ROW.keys(), ISIC_ROW.values(), other.values()]
    path.write_text("\n".join(",".join(row) for row in rows))
    sample = LesionMetadatad(schema=ISIC)({"study_id": "ISIC_0000002", "clinical": path})
    assert sample["metadata"][0] == 35.0


def test_a_row_of_ham10000_is_read():
    values = parse_lesion_metadata(
        {"lesion_id": "HAM_1", "dx": "nv", "dx_type": "histo", "age": 80.0, "sex": "female",
         "localization": "scalp", "dataset": "rosendahl"},
        CLINIC,
    )  # fmt: skip
    assert values.used == {"age": 80.0, "sex": "female", "anatomical_site": "head/neck"}
    assert codes(values) == ["CLINICAL_NOT_USED", "CLINICAL_NOT_USED"]


def test_a_json_file_of_a_clinic_is_read(tmp_path):
    path = tmp_path / "values.json"
    path.write_text(json.dumps({"id": "a", "Age": "49 years", "gender": "f", "site": "Back"}))
    sample = LesionMetadatad()({"study_id": "a", "clinical": str(path)})
    assert sample["metadata"].tolist() == [49.0, 1.0, 3.0]
    assert sample["metadata_used"]["age"] == {"value": 49.0, "unit": "years", "source": "user"}
    assert (sample["metadata_missing"], sample["metadata_findings"]) == ((), ())


@pytest.mark.parametrize("given", [{}, {"clinical": None}, {"clinical": {"age": "", "sex": "unknown"}}])
def test_without_metadata_every_value_is_missing(given):
    sample = LesionMetadatad()(given)
    assert sample["metadata"].isnan().tolist() == [True, False, False]
    assert sample["metadata"][1:].tolist() == [0.0, 0.0]
    assert sample["metadata"].dtype == torch.float32
    assert sample["metadata_missing"] == CLINIC.names


def test_a_word_outside_the_vocabulary_is_unknown_with_a_warning_that_does_not_repeat_it():
    values = parse_lesion_metadata({"sex": "Jane Doe", "site": "tail"}, CLINIC)
    assert values.used == {}
    assert codes(values) == ["CLINICAL_UNKNOWN_CATEGORY"] * 2
    assert values.findings[0].message == (
        'What stands under "sex" is not in the vocabulary and was left out. Known words: female, male.'
    )
    assert CLINIC.encode(values.used)[1:].tolist() == [0.0, 0.0]


def test_lengths_and_areas_are_converted_and_the_conversion_is_told():
    values = parse_lesion_metadata({"diameter_mm": "0.5 cm", "tbp_lv_areaMM2": "0.1 cm2"}, ISIC)
    assert values.used == pytest.approx({"clin_size_long_diam_mm": 5.0, "tbp_lv_areaMM2": 10.0})
    assert codes(values) == ["CLINICAL_UNIT_CONVERTED"] * 2


@pytest.mark.parametrize(
    ("given", "schema", "code"),
    [
        pytest.param({"age": 130}, CLINIC, "CLINICAL_OUT_OF_RANGE", id="age"),
        pytest.param({"tbp_lv_L": 101}, ISIC, "CLINICAL_OUT_OF_RANGE", id="lightness"),
        pytest.param({"shoe_size": 43}, CLINIC, "CLINICAL_UNKNOWN_COLUMN", id="column"),
        pytest.param({"age": "49 stone"}, CLINIC, "CLINICAL_UNKNOWN_UNIT", id="unit"),
        pytest.param({"sex": 1}, CLINIC, "CLINICAL_BAD_VALUE", id="number for a word"),
        pytest.param({"sex": "1"}, CLINIC, "CLINICAL_BAD_VALUE", id="number as text for a word"),
        pytest.param({"site": "arm", "localization": "leg"}, CLINIC, "CLINICAL_GIVEN_TWICE", id="twice"),
        pytest.param({"age": "young"}, CLINIC, "CLINICAL_BAD_VALUE", id="word for a number"),
    ],
)
def test_what_could_be_misread_is_refused(given, schema, code):
    assert refuse(given, schema).code == code


def test_another_id_is_refused():
    with pytest.raises(InputRefused, match="CLINICAL_CASE_NOT_FOUND"):
        LesionMetadatad()({"study_id": "a", "clinical": {"image_id": "b", "age": 3}})


def test_age_and_sex_of_a_dicom_header_fill_what_nobody_wrote():
    image = MetaTensor(torch.zeros(3, 2, 2), meta={"header": {"PatientAge": "049Y", "PatientSex": "F"}})
    sample = LesionMetadatad()({"image": image, "clinical": {"sex": "male"}})
    assert sample["metadata"].tolist() == [49.0, 2.0, 0.0]
    assert sample["metadata_used"]["age"]["source"] == "image header"
    found = [finding.code for finding in sample["metadata_findings"]]
    assert found == ["CLINICAL_FROM_HEADER", "CLINICAL_HEADER_CONFLICT"]


@pytest.mark.parametrize("given", [{"age": 49}, "metadata.csv"])
def test_a_network_without_a_schema_says_that_metadata_were_not_read(given):
    sample = LesionMetadatad(schema=None)({"study_id": "a", "clinical": given})
    assert [finding.code for finding in sample["metadata_findings"]] == ["METADATA_NOT_USED"]
    assert "metadata" not in sample


@pytest.mark.parametrize("data", [{}, {"clinical": None}, {"clinical": {}}])
def test_where_no_metadata_were_given_nothing_is_said(data):
    assert LesionMetadatad(schema=None)(data)["metadata_findings"] == ()


def test_one_key_is_read():
    with pytest.raises(ValueError, match="keys must name one key"):
        LesionMetadatad(keys=("a", "b"))
