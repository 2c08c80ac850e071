"""A result as FHIR R4 (4.0.1): one bundle with report, observations, device and provenance.

Everything in it is preliminary, because nobody has verified it. The creatinine is an estimate of a network
and not a laboratory's, and the GFR category is no diagnosis: local codes and words say so beside the LOINC
codes, and no code of a disease is used.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict

from shared_nets.types import CKDResult, Estimate, StudyResult
from shared_nets.writers.fhir_terms import (
    BODY_SITES,
    DICOM_UIDS,
    HL7,
    QUANTITIES,
    SEXES,
    STUDY_NAMES,
    Json,
    coded,
    coding,
    concept,
    fhir_date,
    for_research,
    human_name,
    local,
    loinc,
    narrative,
    plain,
    quantity,
)
from shared_nets.writers.result_json import result_as_dict, to_json_bytes
from shared_nets.writers.result_words import (
    KidneyMeasure,
    estimate_in_words,
    kidney_measures,
    result_in_words,
)

_IDS = uuid.UUID("6a032141-d74c-412f-874a-be7eba6d7ecd")
_ESTIMATED = "Estimated by a neural network from the image and clinical values; not measured in a laboratory."
_COMPUTED = "CKD-EPI 2021 equation, applied to an estimated creatinine; no creatinine was measured."
_MEASURED = "Measured in a mask of the kidneys on the image."


class SourceHeader(TypedDict, total=False):
    """What a DICOM header says of person and study, as DICOM writes it; empty where it says nothing.

    Keys: ``patient_id``, ``issuer_of_patient_id``, ``patient_name``, ``birth_date``, ``sex``, ``study_date``,
    ``accession_number``.
    """

    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    birth_date: str
    sex: str
    study_date: str
    accession_number: str


def fhir_report(result: StudyResult, *, created: datetime, patient: SourceHeader | None = None) -> bytes:
    """Write a result as one FHIR R4 bundle of type ``collection``.

    Args:
        result: the result; the UIDs of a DICOM source stand in its provenance.
        created: when the results are said to have been made; with a time zone.
        patient: person and study from the header of a DICOM source, carried over as they are. Without one, or
            without a patient's ID in it, the subject is a placeholder that has the study's name only.

    Returns:
        JSON in UTF-8. Equal input gives equal bytes, identifiers too.

    Raises:
        ValueError: ``created`` has no time zone.
        jsonschema.ValidationError: the result is not what its schema promises.
    """
    if created.utcoffset() is None:
        raise ValueError(f"created must have a time zone, got {created.isoformat()}.")
    return to_json_bytes(_Report(result, created.isoformat(), patient or {}).bundle())


class _Report:
    """The resources of one result; they refer to each other by what they are for."""

    def __init__(self, result: StudyResult, instant: str, header: SourceHeader) -> None:
        self.result, self.instant, self.header = result, instant, header
        content = {"result": result_as_dict(result), "instant": instant, "header": dict(header)}
        self._seed = hashlib.sha256(to_json_bytes(content)).hexdigest()
        self._imaged_on = fhir_date(header.get("study_date", ""))
        image = result.provenance.image
        study, series = (str(image.get(key) or "") for key in ("study_uid", "series_uid"))
        self._study = [{"type": "ImagingStudy", **_dicom_object(study, "DICOM study")}] if study else []
        self._series = [_dicom_object(series, "DICOM series that was read")] if series else []

    def bundle(self) -> Json:
        """Put report first, then what it refers to, then where it comes from."""
        observations = self._observations()
        resources = {
            "report": self._diagnostic_report(list(observations)),
            "patient": self._patient(),
            "device": self._device(),
            **observations,
            "provenance": self._provenance(["report", *observations]),
        }
        return {
            "resourceType": "Bundle",
            "id": self._id("bundle"),
            "type": "collection",
            "timestamp": self.instant,
            "entry": [
                {
                    "fullUrl": f"urn:uuid:{self._id(role)}",
                    "resource": {
                        "resourceType": content["resourceType"],
                        "id": self._id(role),
                        **{key: value for key, value in content.items() if value},
                    },
                }
                for role, content in resources.items()
            ],
        }

    def _id(self, role: str) -> str:
        return str(uuid.uuid5(_IDS, f"{self._seed} {role}"))

    def _reference(self, role: str) -> Json:
        return {"reference": f"urn:uuid:{self._id(role)}"}

    def _diagnostic_report(self, observations: Sequence[str]) -> Json:
        result = self.result
        sentences = [
            result.notice,
            "Made by software; not verified by a person.",
            result_in_words(result),
            *(f"Warning {finding.code}: {finding.message}" for finding in result.warnings),
            *result.statements,
        ]
        accession = self.header.get("accession_number", "")
        kind = "CKD staging" if isinstance(result, CKDResult) else "kidney measurement"
        return {
            "resourceType": "DiagnosticReport",
            "meta": for_research(),
            "text": narrative(sentences),
            "basedOn": [_by_accession_number(accession)] if accession else [],
            "status": "preliminary",
            "category": [concept(f"{HL7}/v2-0074", "IMG", "Diagnostic Imaging")],
            "code": coded([loinc("18748-4")], f"Automated {kind} from CT, research use only"),
            "subject": self._reference("patient"),
            "effectiveDateTime": self._imaged_on,
            "issued": self.instant,
            "result": [self._reference(role) for role in observations],
            "imagingStudy": self._study,
            "conclusion": plain(" ".join(sentences)),
        }

    def _patient(self) -> Json:
        header, identifier = self.header, plain(self.header.get("patient_id", ""))
        if not identifier:
            return {
                "resourceType": "Patient",
                "identifier": [{"system": STUDY_NAMES, "value": self.result.study_id}],
            }
        issuer = plain(header.get("issuer_of_patient_id", ""))
        name = human_name(header.get("patient_name", ""))
        return {
            "resourceType": "Patient",
            "identifier": [{"value": identifier, **({"assigner": {"display": issuer}} if issuer else {})}],
            "name": [name] if name else [],
            "gender": SEXES.get(header.get("sex", "").strip().upper(), ""),
            "birthDate": fhir_date(header.get("birth_date", "")),
        }

    def _device(self) -> Json:
        provenance = self.result.provenance
        versions = {
            "bundle": provenance.bundle_version,
            "configuration sha256": provenance.config_sha256,
            **{f"weights {name} sha256": digest for name, digest in provenance.weights_sha256.items()},
            **{f"package {name}": version for name, version in provenance.packages.items()},
        }
        return {
            "resourceType": "Device",
            "deviceName": [{"name": provenance.bundle, "type": "model-name"}],
            "type": {"text": "Image analysis software"},
            "version": [{"type": {"text": name}, "value": value} for name, value in versions.items()],
            "note": [{"text": self.result.notice}],
        }

    def _provenance(self, targets: Sequence[str]) -> Json:
        agent = concept(f"{HL7}/provenance-participant-type", "performer", "Performer")
        return {
            "resourceType": "Provenance",
            "target": [self._reference(role) for role in targets],
            "recorded": self.instant,
            "activity": concept(f"{HL7}/v3-DataOperation", "CREATE", "create"),
            "agent": [{"type": agent, "who": self._reference("device")}],
            "entity": [{"role": "source", "what": image} for image in (*self._study, *self._series)],
        }

    def _observations(self) -> dict[str, Json]:
        found = self._ckd_observations(self.result) if isinstance(self.result, CKDResult) else {}
        return {**found, **{m.name: self._measure(m) for m in kidney_measures(self.result)}}

    def _ckd_observations(self, result: CKDResult) -> dict[str, Json]:
        found: dict[str, Json] = {}
        if result.creatinine is not None:
            found["creatinine"] = self._estimate(
                coded(
                    [local("creatinine-estimate"), loinc("2160-0")],
                    "Serum creatinine, estimated from CT and clinical values (not measured)",
                ),
                result.creatinine,
                method=_ESTIMATED,
                digits=2,
            )
        if result.egfr is not None:
            found["egfr"] = self._estimate(
                coded(
                    [local("egfr-estimate"), loinc("98979-8")],
                    "eGFR by CKD-EPI 2021 from an estimated creatinine",
                ),
                result.egfr,
                method=_COMPUTED,
                digits=1,
                derived_from=[role for role in ("creatinine",) if role in found],
            )
        stage = f"KDIGO GFR category {result.stage}, estimated; not a diagnosis of chronic kidney disease"
        found["stage"] = self._observation(
            code=coded([local("kdigo-gfr-category-estimate")], "KDIGO GFR category, estimated"),
            value={"valueCodeableConcept": coded([local(result.stage, f"GFR {result.stage}")], stage)},
            method=_COMPUTED if "egfr" in found else _ESTIMATED,
            derived_from=[role for role in ("egfr",) if role in found],
            components=[
                {
                    "code": coded([local(f"probability-{name}")], f"Probability of GFR category {name}"),
                    "valueQuantity": quantity(probability, "1", digits=3),
                }
                for name, probability in result.stage_probabilities.items()
            ],
        )
        return found

    def _estimate(
        self, code: Json, estimate: Estimate, *, method: str, digits: int, derived_from: Sequence[str] = ()
    ) -> Json:
        return self._observation(
            code=code,
            value={"valueQuantity": quantity(estimate.value, estimate.unit, digits=digits)},
            method=method,
            notes=[f"{code['text']}: {estimate_in_words(estimate, digits=digits)}."],
            derived_from=derived_from,
            components=[
                {
                    "code": coded(
                        [local("prediction-interval")], f"{estimate.level:.0%} prediction interval"
                    ),
                    "valueRange": {
                        "low": quantity(estimate.low, estimate.unit, digits=digits),
                        "high": quantity(estimate.high, estimate.unit, digits=digits),
                    },
                },
                {
                    "code": coded([local("prediction-interval-level")], "Level of the prediction interval"),
                    "valueQuantity": quantity(100.0 * estimate.level, "%", digits=1),
                },
            ],
        )

    def _measure(self, measure: KidneyMeasure) -> Json:
        cut_off = {
            "code": coded([local("reaches-edge-of-scan")], "Kidney is cut off by the edge of the scan"),
            "valueBoolean": measure.is_cut_off,
        }
        return self._observation(
            code=coded([local(measure.name), coding(*QUANTITIES[measure.quantity])], measure.words),
            value={"valueQuantity": quantity(measure.value, measure.unit, digits=1)},
            method=_MEASURED,
            notes=["The value is that of the visible part."] if measure.is_cut_off else [],
            body_site=concept(*BODY_SITES[measure.side]),
            components=[cut_off] if measure.is_cut_off is not None else [],
        )

    def _observation(
        self,
        *,
        code: Json,
        value: Json,
        method: str,
        notes: Sequence[str] = (),
        body_site: Json | None = None,
        derived_from: Sequence[str] = (),
        components: Sequence[Json] = (),
    ) -> Json:
        warnings = [f"Warning {finding.code}: {finding.message}" for finding in self.result.warnings]
        return {
            "resourceType": "Observation",
            "meta": for_research(),
            "status": "preliminary",
            "category": [concept(f"{HL7}/observation-category", "imaging", "Imaging")],
            "code": code,
            "subject": self._reference("patient"),
            "effectiveDateTime": self._imaged_on,
            "issued": self.instant,
            **value,
            "note": [{"text": plain(text)} for text in (self.result.notice, *notes, *warnings)],
            "bodySite": body_site,
            "method": {"text": method},
            "device": self._reference("device"),
            "derivedFrom": [*(self._reference(role) for role in derived_from), *self._study],
            "component": list(components),
        }


def _dicom_object(uid: str, display: str) -> Json:
    """Name a study or series by its UID: it is in the archive and not in this bundle."""
    return {"identifier": {"system": DICOM_UIDS, "value": f"urn:oid:{uid}"}, "display": display}


def _by_accession_number(number: str) -> Json:
    kind = concept(f"{HL7}/v2-0203", "ACSN", "Accession ID")
    return {"type": "ServiceRequest", "identifier": {"type": kind, "value": plain(number)}}
