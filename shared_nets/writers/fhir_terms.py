"""The small parts of FHIR R4 resources: codes and their systems, quantities, dates, names, observations.

Codes: LOINC (loinc.org, © Regenstrief Institute and the LOINC Committee, used under its licence), SNOMED CT
as the DICOM standard uses it, UCUM units, terms of DICOM and HL7, and local codes for what has none.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom.config import IGNORE
from pydicom.valuerep import PersonName

from shared_nets.writers.result_words import unit_in_words

#: Code system of the codes that this software made up, and the name space of its study names.
LOCAL_CODES = "urn:uuid:8084878d-c85b-4d2b-96c5-ccf8e9f766db"
STUDY_NAMES = "urn:uuid:14def90b-937f-48db-acc6-792c4d35a2d9"
LOINC, SNOMED_CT, UCUM = "http://loinc.org", "http://snomed.info/sct", "http://unitsofmeasure.org"
DICOM_TERMS, DICOM_UIDS = "http://dicom.nema.org/resources/ontology/DCM", "urn:dicom:uid"
HL7 = "http://terminology.hl7.org/CodeSystem"
LOINC_NAMES = {
    "2160-0": "Creatinine [Mass/volume] in Serum or Plasma",
    "18748-4": "Diagnostic imaging study",
    "98979-8": (
        "Glomerular filtration rate/1.73 sq M.predicted [Volume Rate/Area] in Serum, Plasma or Blood "
        "by Creatinine-based formula (CKD-EPI 2021)"
    ),
}
#: What a size is a size of, by the words of DICOM's templates.
QUANTITIES = {
    "volume": (SNOMED_CT, "118565006", "Volume"),
    "length": (SNOMED_CT, "410668003", "Length"),
    "density": (DICOM_TERMS, "112181", "Mean Attenuation Coefficient"),
}
BODY_SITES = {
    "right": (SNOMED_CT, "9846003", "Right kidney structure"),
    "left": (SNOMED_CT, "18639004", "Left kidney structure"),
    None: (SNOMED_CT, "64033007", "Kidney structure"),
}
#: DICOM's sexes in FHIR's words.
SEXES = {"M": "male", "F": "female", "O": "other"}
_DICOM_DATE = re.compile(r"\d{8}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One observation, without what all observations of a result share.

    Args:
        code: what was observed.
        value: the value under the name of its type, or why there is none.
        method: how.
        notes: sentences about it.
        body_site: where in the body.
        derived_from: names of observations of the same result that it was computed from.
        components: values that belong to it.
    """

    code: Json
    value: Json
    method: str
    notes: Sequence[str] = ()
    body_site: Json | None = None
    derived_from: Sequence[str] = ()
    components: Sequence[Json] = ()


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What is particular to the report of one kind of result.

    Args:
        title: what the report is.
        observations: by the name that others derive from.
    """

    title: str
    observations: Mapping[str, Observed]


def coding(system: str, code: str, display: str | None = None) -> Json:
    """Write a code of a system, with its name where it has one."""
    return {"system": system, "code": code, **({"display": display} if display else {})}


def local(code: str, display: str | None = None) -> Json:
    """Write a code that this software made up."""
    return coding(LOCAL_CODES, code, display)


def loinc(code: str) -> Json:
    """Write a LOINC code, one of :data:`LOINC_NAMES`."""
    return coding(LOINC, code, LOINC_NAMES[code])


def coded(codings: Sequence[Json], text: str) -> Json:
    """Write a concept that several codes and a text describe."""
    return {"coding": list(codings), "text": text}


def concept(system: str, code: str, display: str) -> Json:
    """Write a concept of one code."""
    return {"coding": [coding(system, code, display)]}


def probability_component(name: str, words: str, probability: float) -> Json:
    """Write the probability of one answer, ``name``, as a component of the observation that it belongs to."""
    return {
        "code": coded([local(f"probability-{name}")], words),
        "valueQuantity": quantity(probability, "1", digits=3),
    }


def quantity(value: float, unit: str, *, digits: int) -> Json:
    """Write a number with its UCUM unit, rounded to ``digits`` so that it claims no more than is known."""
    words = unit_in_words(unit)
    number = {"value": round(float(value), digits)}
    return {**number, **({"unit": words} if words else {}), "system": UCUM, "code": unit}


def for_research() -> Json:
    """Label a resource: healthcare research is what it may be used for."""
    return {"security": [coding(f"{HL7}/v3-ActReason", "HRESCH", "healthcare research")]}


def human_name(text: str) -> Json:
    """Turn DICOM's ``family^given^middle^prefix^suffix`` into a name; what is empty is left out.

    Of a name in several scripts the first that is there is taken.
    """
    first = next((group for group in text.split("=") if group.strip("^ ")), "")
    name = PersonName(first, validation_mode=IGNORE)  # or else pydicom would warn of odd names by naming them
    given = [*plain(name.given_name).split(), *plain(name.middle_name).split()]
    parts: Json = {
        "text": plain(" ".join([name.name_prefix, *given, name.family_name, name.name_suffix])),
        "family": plain(name.family_name),
        "given": given,
        "prefix": plain(name.name_prefix).split(),
        "suffix": plain(name.name_suffix).split(),
    }
    return {key: part for key, part in parts.items() if part}


def fhir_date(text: str) -> str:
    """Turn DICOM's ``YYYYMMDD`` into FHIR's date; nothing where it is no date."""
    if not _DICOM_DATE.fullmatch(text.strip()):
        return ""
    try:
        return datetime.strptime(text.strip(), "%Y%m%d").date().isoformat()
    except ValueError:
        return ""


def plain(text: str) -> str:
    """Drop what FHIR's strings cannot hold: control characters, and white space at the ends."""
    return _CONTROL.sub(" ", text).strip()


def narrative(sentences: Sequence[str]) -> Json:
    """Write sentences as the XHTML that stands for a resource; markup in them stays text."""
    paragraphs = "".join(f"<p>{html.escape(plain(sentence))}</p>" for sentence in sentences)
    opening = '<div xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">'
    return {"status": "generated", "div": f"{opening}{paragraphs}</div>"}
