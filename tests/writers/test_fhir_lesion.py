"""A lesion in FHIR: a preliminary class of a model, with its probabilities, never a condition."""

import pytest
from pydicom.sr.codedict import codes

from tests.writers.fhir_reading import observation, only, resources, walk, written
from tests.writers.lesion_results import UNLIKE, abstaining_result, lesion_result, uncalibrated_result

CLASS, MALIGNANCY = "lesion-class-estimate", "malignant-class-probability"
SNOMED_CT = "http://snomed.info/sct"


def numbers_of(found) -> dict[str, tuple[float, str]]:
    return {
        part["code"]["coding"][0]["code"]: (part["valueQuantity"]["value"], part["valueQuantity"]["code"])
        for part in found["component"]
        if "valueQuantity" in part
    }


def test_the_class_carries_every_number_and_the_set():
    found = observation(written(lesion_result()), CLASS)
    assert found["valueCodeableConcept"]["text"] == "melanocytic naevus"
    assert numbers_of(found) == {
        "probability-class-akiec": (0.021, "1"),
        "probability-class-bcc": (0.034, "1"),
        "probability-class-bkl": (0.09, "1"),
        "probability-class-df": (0.002, "1"),
        "probability-class-mel": (0.201, "1"),
        "probability-class-nv": (0.648, "1"),
        "probability-class-vasc": (0.004, "1"),
        "prediction-set-coverage": (90.0, "%"),
        "ood-distance": (14.25, "1"),
        "ood-distance-limit": (60.5, "1"),
    }
    (chosen,) = [part["valueString"] for part in found["component"] if "valueString" in part]
    assert chosen == "melanocytic naevus, melanoma"
    assert found["bodySite"]["coding"][0]["code"] == codes.SCT.Skin.value
    assert "and what was said of the person" in found["method"]["text"]


def test_malignancy_is_an_observation_derived_from_the_class():
    bundle = written(lesion_result())
    found = observation(bundle, MALIGNANCY)
    assert found["valueQuantity"]["value"] == 0.256
    assert "(melanoma, basal cell carcinoma, actinic keratosis" in found["note"][1]["text"]
    of_class = f"urn:uuid:{observation(bundle, CLASS)['id']}"
    assert found["derivedFrom"] == [{"reference": of_class}]


def test_an_abstention_is_an_absent_value_with_its_reason():
    found = observation(written(abstaining_result()), CLASS)
    assert "valueCodeableConcept" not in found
    assert found["dataAbsentReason"]["coding"][0]["code"] == "unknown"
    assert UNLIKE.message in found["dataAbsentReason"]["text"]
    assert f"{UNLIKE.code}: {UNLIKE.message}" in [note["text"] for note in found["note"]]
    assert numbers_of(found)["probability-class-nv"] == (0.648, "1")
    assert "No label given." in only(written(abstaining_result()), "DiagnosticReport")["conclusion"]


@pytest.mark.parametrize(
    ("label", "snomed"), [("mel", "2092003"), ("bcc", "1338007"), ("akiec", None), ("nv", None)]
)
def test_snomed_names_a_class_only_where_a_concept_is_all_of_it(label, snomed):
    codings = observation(written(lesion_result(label=label)), CLASS)["valueCodeableConcept"]["coding"]
    assert codings[0]["code"] == f"class-{label}"
    assert [one["code"] for one in codings if one["system"] == SNOMED_CT] == ([snomed] if snomed else [])


def test_no_condition_is_claimed_and_the_report_says_what_it_is():
    bundle = written(lesion_result())
    kinds = {
        part["resourceType"] for part in walk(bundle) if isinstance(part, dict) and "resourceType" in part
    }
    assert kinds == {"Bundle", "DiagnosticReport", "Patient", "Device", "Observation", "Provenance"}
    report = only(bundle, "DiagnosticReport")
    assert report["code"]["text"] == (
        "Automated classification of a skin lesion from a photograph, research use only"
    )
    assert "conclusionCode" not in report
    assert len(resources(bundle, "Observation")) == 2


def test_without_a_calibration_there_is_no_coverage_and_no_distance():
    found = observation(written(uncalibrated_result()), CLASS)
    assert {name for name in numbers_of(found) if not name.startswith("probability")} == set()
    assert "person" not in found["method"]["text"]
