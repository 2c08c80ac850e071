"""What a header tells fills up what nobody gave, in the right units, and contradictions are told."""

from __future__ import annotations

import pytest

from shared_nets.transforms.clinical_header import header_values
from shared_nets.transforms.clinical_schema import KITS
from shared_nets.transforms.clinical_values import parse_clinical_values
from shared_nets.transforms.lesion_schema import lesion_schema

BODY = {"PatientSize": "1.6", "PatientWeight": "64"}  # 64 / 1.6² = 25


def values_by_name(header) -> dict[str, float | str]:
    return {value.feature.name: value.value for value in header_values(KITS, header)[0]}


def test_height_in_metres_and_weight_in_kilograms_make_the_body_mass_index():
    header = {"PatientAge": "018M", "PatientSex": "m", **BODY}
    assert values_by_name(header) == pytest.approx({"age": 1.5, "sex": "male", "bmi": 25.0})


def test_the_age_by_the_dates_stands_in_for_one_that_is_not_written():
    assert values_by_name({"AgeFromDates": "060Y"}) == {"age": 60.0}
    assert values_by_name({"AgeFromDates": "060Y", "PatientAge": "061Y"}) == {"age": 61.0}
    assert values_by_name({"AgeFromDates": "060Y", "PatientAge": "old"}) == {"age": 60.0}


@pytest.mark.parametrize(
    "missing", [{"PatientSize": ""}, {"PatientSize": "0"}, {"PatientWeight": "0.0"}, {"PatientWeight": None}]
)
def test_without_height_or_weight_there_is_no_index_and_nothing_is_said(missing):
    assert header_values(KITS, {**BODY, **missing}) == ([], [])


@pytest.mark.parametrize(
    ("odd", "name"),
    [
        pytest.param({"PatientSize": "160"}, "PatientSize", id="centimetres"),
        pytest.param({"PatientSize": "-1.6"}, "PatientSize", id="negative"),
        pytest.param({"PatientWeight": "64000"}, "PatientWeight", id="grams"),
        pytest.param({"PatientWeight": "heavy"}, "PatientWeight", id="word"),
    ],
)
def test_a_number_that_cannot_be_one_is_not_used_and_told_without_quoting_it(odd, name):
    values, findings = header_values(KITS, {**BODY, **odd})
    assert values == []
    assert [finding.code for finding in findings] == ["CLINICAL_HEADER_NOT_USED"]
    assert findings[0].message.startswith(name)
    assert next(iter(odd.values())) not in findings[0].message


def test_an_index_that_no_adult_has_is_not_used():
    assert header_values(KITS, {"PatientSize": "1.0", "PatientWeight": "399"}) == ([], [])


def test_the_values_say_where_they_stood():
    values = parse_clinical_values({"sex": "female"}, KITS, header={"AgeFromDates": "060Y", **BODY})
    assert values.used == pytest.approx({"sex": "female", "age": 60.0, "bmi": 25.0})
    assert values.sources == {"sex": "user", "age": "image header", "bmi": "image header"}
    told = [finding.message for finding in values.findings]
    assert told == [
        '"age" was taken from the image header (the dates of birth and study).',
        '"bmi" was taken from the image header (PatientSize and PatientWeight).',
    ]


@pytest.mark.parametrize(("given", "codes"), [(28.1, ["CLINICAL_HEADER_CONFLICT"]), (27.9, [])])
def test_a_given_index_wins_and_one_that_is_far_from_the_header_is_told(given, codes):
    values = parse_clinical_values({"bmi": given}, KITS, header=BODY)
    assert values.used["bmi"] == given
    assert [finding.code for finding in values.findings] == codes


def test_a_table_without_the_index_does_not_look_at_height_and_weight():
    schema = lesion_schema("dermoscopy_clinic").values
    assert header_values(schema, {"PatientSize": "160", "PatientWeight": "64"}) == ([], [])
