"""A result as FHIR R4 (4.0.1): one bundle with report, observations, device and provenance.

Everything in it is preliminary, because nobody has verified it.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypedDict

from shared_nets.types import CKDResult, KidneyResult, LesionResult, StudyResult
from shared_nets.writers.fhir_kidney import ckd_report, kidney_report
from shared_nets.writers.fhir_lesion import lesion_report
from shared_nets.writers.fhir_terms import (
    DICOM_UIDS,
    HL7,
    SEXES,
    STUDY_NAMES,
    Json,
    Observed,
    ReportContent,
    coded,
    concept,
    fhir_date,
    for_research,
    human_name,
    loinc,
    narrative,
    plain,
)
from shared_nets.writers.result_json import result_as_dict, to_json_bytes
from shared_nets.writers.result_words import result_in_words

_IDS = uuid.UUID("6a032141-d74c-412f-874a-be7eba6d7ecd")
#: What is particular to each kind of result.
_CONTENTS: dict[type, Callable[[Any], ReportContent]] = {
    CKDResult: ckd_report,
    KidneyResult: kidney_report,
    LesionResult: lesion_report,
}


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
        self._content = _CONTENTS[type(result)](result)
        self._seed = hashlib.sha256(to_json_bytes(content)).hexdigest()
        self._imaged_on = fhir_date(header.get("study_date", ""))
        image = result.provenance.image
        study, series = (str(image.get(key) or "") for key in ("study_uid", "series_uid"))
        self._study = [{"type": "ImagingStudy", **_dicom_object(study, "DICOM study")}] if study else []
        self._series = [_dicom_object(series, "DICOM series that was read")] if series else []

    def bundle(self) -> Json:
        """Put report first, then what it refers to, then where it comes from."""
        observations = {role: self._observation(one) for role, one in self._content.observations.items()}
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
        return {
            "resourceType": "DiagnosticReport",
            "meta": for_research(),
            "text": narrative(sentences),
            "basedOn": [_by_accession_number(accession)] if accession else [],
            "status": "preliminary",
            "category": [concept(f"{HL7}/v2-0074", "IMG", "Diagnostic Imaging")],
            "code": coded([loinc("18748-4")], self._content.title),
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

    def _observation(self, observed: Observed) -> Json:
        warnings = [f"Warning {finding.code}: {finding.message}" for finding in self.result.warnings]
        return {
            "resourceType": "Observation",
            "meta": for_research(),
            "status": "preliminary",
            "category": [concept(f"{HL7}/observation-category", "imaging", "Imaging")],
            "code": observed.code,
            "subject": self._reference("patient"),
            "effectiveDateTime": self._imaged_on,
            "issued": self.instant,
            **observed.value,
            "note": [{"text": plain(text)} for text in (self.result.notice, *observed.notes, *warnings)],
            "bodySite": observed.body_site,
            "method": {"text": observed.method},
            "device": self._reference("device"),
            "derivedFrom": [*(self._reference(role) for role in observed.derived_from), *self._study],
            "component": list(observed.components),
        }


def _dicom_object(uid: str, display: str) -> Json:
    """Name a study or series by its UID: it is in the archive and not in this bundle."""
    return {"identifier": {"system": DICOM_UIDS, "value": f"urn:oid:{uid}"}, "display": display}


def _by_accession_number(number: str) -> Json:
    kind = concept(f"{HL7}/v2-0203", "ACSN", "Accession ID")
    return {"type": "ServiceRequest", "identifier": {"type": kind, "value": plain(number)}}
