"""The FHIR bundle: valid under R4, whole in itself, honest about estimates, and the same bytes every time."""

import dataclasses
import json
import logging
import re
from datetime import datetime, timedelta, timezone
from typing import Any
from xml.etree import ElementTree

import pytest
from pydicom.sr.codedict import codes

from shared_nets.types import RESEARCH_USE_ONLY, Finding
from shared_nets.writers.fhir_report import fhir_report
from tests.writers.fhir_reading import CREATED, observation, only, r4_problems, resources, walk, written
from tests.writers.lesion_results import abstaining_result, lesion_result

HEADER = {
    "patient_id": "P-17", "issuer_of_patient_id": "Ward 3", "patient_name": "Doe^Jane^Q^Dr^Jr",
    "birth_date": "19601231", "sex": "F", "study_date": "20250203", "accession_number": "A-99",
}  # fmt: skip
LOINC, SNOMED_CT, UCUM = "http://loinc.org", "http://snomed.info/sct", "http://unitsofmeasure.org"


@pytest.fixture
def of_dicom(make_result):
    """Give ``of_dicom(result) -> result`` whose image came as DICOM."""

    def changed(result):
        image = {"source": "dicom", "study_uid": "1.2.3", "series_uid": "1.2.3.4"}
        return dataclasses.replace(result, provenance=dataclasses.replace(result.provenance, image=image))

    return changed


@pytest.fixture(
    params=[
        *("ckd", "ckd-of-dicom", "classification", "kidneys", "no-kidney", "kidneys-of-dicom"),
        *("lesion", "no-label", "lesion-of-dicom"),
    ]
)
def bundle(request, make_result, make_kidney_result, of_dicom) -> dict[str, Any]:
    measures = {"right_kidney_volume_ml": 150.0, "left_kidney_length_mm": 110.0, "cyst_volume_ml": 2.5}
    return {
        "ckd": lambda: written(make_result(kidney_measurements=measures)),
        "ckd-of-dicom": lambda: written(of_dicom(make_result()), patient=HEADER),
        "classification": lambda: written(make_result(creatinine=None, egfr=None)),
        "kidneys": lambda: written(make_kidney_result()),
        "no-kidney": lambda: written(make_kidney_result(kidneys={}, total_volume_ml=0.0)),
        "kidneys-of-dicom": lambda: written(of_dicom(make_kidney_result()), patient=HEADER),
        "lesion": lambda: written(lesion_result()),
        "no-label": lambda: written(abstaining_result()),
        "lesion-of-dicom": lambda: written(of_dicom(lesion_result(label="mel")), patient=HEADER),
    }[request.param]()


def test_the_bundle_is_valid_under_r4(bundle):
    assert r4_problems(bundle) == []


def _set(kind: str, key: str, value: Any):
    return lambda bundle: resources(bundle, kind)[0].update({key: value})


def _drop(kind: str, key: str):
    return lambda bundle: resources(bundle, kind)[0].pop(key)


@pytest.mark.parametrize(
    ("breaks", "problem"),
    [
        pytest.param(_drop("Observation", "status"), "R4: .*status", id="no status"),
        pytest.param(_drop("Observation", "code"), "R4: .*code", id="no code"),
        pytest.param(_drop("Provenance", "recorded"), "R4: .*recorded", id="no moment"),
        pytest.param(_set("Observation", "status", "verified"), "verified is none of", id="unknown status"),
        pytest.param(lambda b: b.update(type="bag"), "bag is none of", id="unknown kind of bundle"),
        pytest.param(_set("Patient", "gender", "F"), "F is none of", id="DICOM's word for a sex"),
        pytest.param(_set("Patient", "birthDate", "1960-31-12"), "R4B?: ", id="no date"),
        pytest.param(_set("DiagnosticReport", "issued", "2026-01-02"), "R4B: ", id="a day for an instant"),
        pytest.param(_set("Observation", "note", "text"), "R4: .*note", id="a text for a list"),
        pytest.param(_set("Observation", "valueString", "1"), "R4B: ", id="two values"),
        pytest.param(_set("Observation", "triggeredBy", []), "R4: .*triggeredBy", id="an element of R5"),
        pytest.param(_set("DiagnosticReport", "note", [{"text": "x"}]), "R4: .*note", id="another of R5"),
        pytest.param(
            _set("DiagnosticReport", "imagingStudy", [{"type": "Patient", "display": "x"}]),
            "Patient is none of",
            id="a reference to the wrong kind",
        ),
    ],
)
def test_a_broken_bundle_is_found_invalid(make_result, of_dicom, breaks, problem):
    bundle = written(of_dicom(make_result()), patient=HEADER)
    assert r4_problems(bundle) == []
    breaks(bundle)
    assert [found for found in r4_problems(bundle) if re.search(problem, found, re.DOTALL)] != []


def test_every_reference_leads_to_an_entry_of_the_bundle(bundle):
    urls = [entry["fullUrl"] for entry in bundle["entry"]]
    assert urls == [f"urn:uuid:{entry['resource']['id']}" for entry in bundle["entry"]]
    assert len(set(urls)) == len(urls)
    references = {
        part["reference"] for part in walk(bundle) if isinstance(part, dict) and "reference" in part
    }
    assert references <= set(urls)
    targets = {target["reference"] for target in only(bundle, "Provenance")["target"]}
    findings = [*resources(bundle, "Observation"), only(bundle, "DiagnosticReport")]
    assert targets == {f"urn:uuid:{finding['id']}" for finding in findings}
    assert len(only(bundle, "DiagnosticReport").get("result", [])) == len(findings) - 1


def test_everything_is_preliminary_and_for_research_only(bundle):
    findings = [*resources(bundle, "Observation"), only(bundle, "DiagnosticReport")]
    assert {finding["status"] for finding in findings} == {"preliminary"}
    assert {finding["meta"]["security"][0]["code"] for finding in findings} == {"HRESCH"}
    assert only(bundle, "DiagnosticReport")["conclusion"].startswith(RESEARCH_USE_ONLY)
    assert {o["note"][0]["text"] for o in resources(bundle, "Observation")} <= {RESEARCH_USE_ONLY}
    assert only(bundle, "Device")["note"] == [{"text": RESEARCH_USE_ONLY}]


def test_no_code_claims_a_disease(bundle):
    snomed = {
        part["code"] for part in walk(bundle) if isinstance(part, dict) and part.get("system") == SNOMED_CT
    }
    # volume, length; kidney, right kidney, left kidney; skin; the shape of a melanoma, which is no disorder
    assert snomed <= {"118565006", "410668003", "64033007", "9846003", "18639004", "39937001", "2092003"}
    assert "conclusionCode" not in only(bundle, "DiagnosticReport")


def test_creatinine_is_an_estimate_in_mg_per_dl_with_its_interval(make_result):
    found = observation(written(make_result()), "creatinine-estimate")
    assert found["code"]["coding"][1] == {
        "system": LOINC, "code": "2160-0", "display": "Creatinine [Mass/volume] in Serum or Plasma",
    }  # fmt: skip
    assert found["valueQuantity"] == {"value": 1.35, "unit": "mg/dL", "system": UCUM, "code": "mg/dL"}
    assert "not measured" in found["code"]["text"]
    assert "not measured" in found["method"]["text"]
    interval, level = found["component"]
    assert interval["code"]["text"] == "90% prediction interval"
    assert [interval["valueRange"][end]["value"] for end in ("low", "high")] == [0.95, 1.9]
    assert level["valueQuantity"] == {"value": 90.0, "unit": "%", "system": UCUM, "code": "%"}


def test_egfr_and_stage_are_derived_from_what_was_estimated_before(make_result):
    bundle = written(make_result())
    creatinine, egfr, stage = (
        observation(bundle, code)
        for code in ("creatinine-estimate", "egfr-estimate", "kdigo-gfr-category-estimate")
    )
    assert egfr["code"]["coding"][1]["code"] == "98979-8"
    assert egfr["valueQuantity"] == {
        "value": 54.2, "unit": "mL/min/1.73 m²", "system": UCUM, "code": "mL/min/{1.73_m2}",
    }  # fmt: skip
    assert egfr["derivedFrom"] == [{"reference": f"urn:uuid:{creatinine['id']}"}]
    assert stage["derivedFrom"] == [{"reference": f"urn:uuid:{egfr['id']}"}]
    assert stage["valueCodeableConcept"]["coding"][0]["code"] == "G3a"
    assert "not a diagnosis" in stage["valueCodeableConcept"]["text"]
    probabilities = {c["code"]["coding"][0]["code"]: c["valueQuantity"] for c in stage["component"]}
    assert list(probabilities) == [f"probability-{name}" for name in ("G1", "G2", "G3a", "G3b", "G4", "G5")]
    assert probabilities["probability-G3a"] == {"value": 0.5, "system": UCUM, "code": "1"}


def test_a_classification_gives_a_stage_and_no_numbers(make_result):
    bundle = written(make_result(creatinine=None, egfr=None, kidney_measurements={}))
    (stage,) = resources(bundle, "Observation")
    assert stage["code"]["coding"][0]["code"] == "kdigo-gfr-category-estimate"
    assert "derivedFrom" not in stage


def test_each_kidney_has_its_sizes_with_unit_and_site(make_kidney_result):
    bundle = written(make_kidney_result())
    found = {
        o["code"]["coding"][0]["code"]: (
            o["valueQuantity"]["value"], o["valueQuantity"]["code"], o["bodySite"]["coding"][0]["code"],
        )
        for o in resources(bundle, "Observation")
    }  # fmt: skip
    assert found == {
        "right-kidney-volume": (151.2, "mL", "9846003"),
        "right-kidney-length": (108.0, "mm", "9846003"),
        "right-kidney-density": (142.0, "[hnsf'U]", "9846003"),
        "left-kidney-volume": (163.4, "mL", "18639004"),
        "left-kidney-length": (112.5, "mm", "18639004"),
        "left-kidney-density": (139.5, "[hnsf'U]", "18639004"),
        "kidney-volume": (314.6, "mL", "64033007"),
    }
    left, right = (observation(bundle, f"{side}-kidney-volume") for side in ("left", "right"))
    assert [left["component"][0]["valueBoolean"], right["component"][0]["valueBoolean"]] == [True, False]
    assert "The value is that of the visible part." in [note["text"] for note in left["note"]]


def test_sizes_of_a_ckd_result_are_told_apart_by_name_and_a_cyst_of_no_size_is_left_out(make_result):
    measures = {"left_kidney_length_mm": 110.44, "cyst_volume_ml": 0.0, "tumour_volume_ml": 3.0}
    bundle = written(make_result(kidney_measurements=measures))
    length, tumour = observation(bundle, "left-kidney-length"), observation(bundle, "tumour-volume")
    assert length["valueQuantity"]["value"] == 110.4
    assert length["bodySite"]["coding"][0]["code"] == "18639004"
    assert tumour["code"]["text"] == "Tumour volume"
    assert "cyst-volume" not in json.dumps(bundle)


def test_terms_borrowed_from_dicom_are_those_of_its_dictionary(make_kidney_result):
    found = {
        c["code"]: c["display"]
        for o in resources(written(make_kidney_result()), "Observation")
        for c in o["code"]["coding"][1:]
    }
    terms = (codes.SCT.Volume, codes.SCT.Length, codes.DCM.MeanAttenuationCoefficient)
    assert found == {term.value: term.meaning for term in terms}


def test_warnings_and_statements_stand_in_the_conclusion_and_warnings_with_every_value(make_result):
    bundle = written(make_result(warnings=(Finding(code="CUT", message="It is cut."),)))
    conclusion = only(bundle, "DiagnosticReport")["conclusion"]
    assert "Warning CUT: It is cut." in conclusion
    assert all(statement in conclusion for statement in make_result().statements)
    for found in resources(bundle, "Observation"):
        assert found["note"][-1] == {"text": "Warning CUT: It is cut."}


def test_markup_in_a_warning_stays_text(make_result):
    bundle = written(make_result(warnings=(Finding(code="ODD", message="<script>a&b</script>\x07"),)))
    narrative = ElementTree.fromstring(only(bundle, "DiagnosticReport")["text"]["div"])
    assert narrative.tag == "{http://www.w3.org/1999/xhtml}div"
    assert {child.tag.split("}")[1] for child in narrative} == {"p"}
    assert "Warning ODD: <script>a&b</script>" in [child.text for child in narrative]
    assert r4_problems(bundle) == []


def test_study_and_series_of_a_dicom_source_are_named_by_uid(make_result, of_dicom):
    bundle = written(of_dicom(make_result()), patient=HEADER)
    study = {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}
    report = only(bundle, "DiagnosticReport")
    assert [image["identifier"] for image in report["imagingStudy"]] == [study]
    assert observation(bundle, "creatinine-estimate")["derivedFrom"][-1]["identifier"] == study
    sources = [entity["what"]["identifier"]["value"] for entity in only(bundle, "Provenance")["entity"]]
    assert sources == ["urn:oid:1.2.3", "urn:oid:1.2.3.4"]
    assert report["effectiveDateTime"] == "2025-02-03"
    assert report["basedOn"][0]["identifier"]["value"] == "A-99"


def test_the_person_of_a_dicom_source_is_carried_over(make_result, of_dicom):
    patient = only(written(of_dicom(make_result()), patient=HEADER), "Patient")
    assert patient["identifier"] == [{"value": "P-17", "assigner": {"display": "Ward 3"}}]
    assert patient["name"] == [
        {
            "text": "Dr Jane Q Doe Jr", "family": "Doe", "given": ["Jane", "Q"],
            "prefix": ["Dr"], "suffix": ["Jr"],
        }
    ]  # fmt: skip
    assert (patient["gender"], patient["birthDate"]) == ("female", "1960-12-31")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("Yamada^Tarou=山田^太郎=やまだ^たろう", "Tarou Yamada", id="three scripts"),
        pytest.param("=山田^太郎", "太郎 山田", id="no Latin script"),
        pytest.param("  ^ ", None, id="empty"),
        pytest.param("One word", "One word", id="no parts"),
    ],
)
def test_a_name_is_taken_in_the_first_script_that_is_there(make_result, name, text):
    bundle = written(make_result(), patient={**HEADER, "patient_name": name})
    names = only(bundle, "Patient").get("name", [])
    assert [found["text"] for found in names] == ([] if text is None else [text])
    assert r4_problems(bundle) == []


def test_what_the_header_does_not_say_or_says_wrongly_is_left_out(make_result):
    odd = {"patient_id": "P", "birth_date": "19600231", "sex": "?", "study_date": "2025"}
    bundle = written(make_result(), patient=odd)
    assert set(only(bundle, "Patient")) == {"resourceType", "id", "identifier"}
    assert "effectiveDateTime" not in only(bundle, "DiagnosticReport")


@pytest.mark.parametrize("header", [None, {}, {**HEADER, "patient_id": " "}], ids=["none", "empty", "blank"])
def test_without_a_patient_id_the_subject_is_the_study_alone(make_result, header):
    patient = only(written(make_result(), patient=header), "Patient")
    assert [identifier["value"] for identifier in patient["identifier"]] == ["case_00001"]
    assert set(patient) == {"resourceType", "id", "identifier"}


def test_the_device_names_bundle_weights_configuration_and_packages(make_result):
    device = only(written(make_result()), "Device")
    assert device["deviceName"][0]["name"] == "ckd_staging_classification"
    assert {version["type"]["text"]: version["value"] for version in device["version"]} == {
        "bundle": "0.1.0",
        "configuration sha256": "a" * 64,
        "weights model sha256": "0123456789abcdef" * 4,
        "package monai": "1.6.1",
    }


def test_equal_input_gives_equal_bytes_and_another_moment_or_person_other_identifiers(make_result):
    first = fhir_report(make_result(), created=CREATED, patient=HEADER)
    assert first == fhir_report(make_result(), created=CREATED, patient=dict(HEADER))
    later = fhir_report(make_result(), created=CREATED + timedelta(seconds=1), patient=HEADER)
    other = fhir_report(make_result(), created=CREATED, patient={**HEADER, "patient_id": "P-18"})
    identifiers = [{entry["fullUrl"] for entry in json.loads(b)["entry"]} for b in (first, later, other)]
    assert identifiers[0].isdisjoint(identifiers[1])
    assert identifiers[0].isdisjoint(identifiers[2])


def test_the_moment_keeps_its_time_zone_and_must_have_one(make_result):
    moment = datetime(2026, 7, 1, 12, 0, tzinfo=timezone(timedelta(hours=-5)))
    bundle = json.loads(fhir_report(make_result(), created=moment))
    assert bundle["timestamp"] == "2026-07-01T12:00:00-05:00"
    assert only(bundle, "Provenance")["recorded"] == only(bundle, "DiagnosticReport")["issued"]
    assert r4_problems(bundle) == []
    with pytest.raises(ValueError, match="created must have a time zone"):
        fhir_report(make_result(), created=datetime(2026, 7, 1))


def test_nothing_of_the_person_is_logged_or_warned_of(make_result, caplog, recwarn):
    with caplog.at_level(logging.DEBUG):
        written(make_result(), patient={**HEADER, "patient_name": "Doe\\Jane^^^^^^^too^many^" + "long" * 40})
    told = caplog.text + "".join(str(warning.message) for warning in recwarn)
    assert told == ""
