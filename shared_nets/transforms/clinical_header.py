"""Clinical values out of an image header: age, sex, and body mass index from height and weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from shared_nets.transforms.clinical_schema import ClinicalFeature, ClinicalSchema
from shared_nets.transforms.clinical_units import dicom_age, to_unit
from shared_nets.types import Finding

_SEXES = {"M": "male", "F": "female"}
#: Of adults, as the header writes them: m and kg.
_HEIGHT_M, _WEIGHT_KG = (1.0, 2.5), (20.0, 400.0)
#: Given and written values further apart than this are said to differ; weight changes between two visits.
_TOLERANCES = {"age": 1.0, "body_mass_index": 3.0}


class HeaderValue(NamedTuple):
    """A value of the header, in the feature's unit, and the words that say where it stands there."""

    feature: ClinicalFeature
    value: float | str
    written_as: str

    def contradicts(self, known: float | str) -> bool:
        """Whether what people gave is clearly another value."""
        if isinstance(known, str) or isinstance(self.value, str):
            return known != self.value
        return abs(known - self.value) > _TOLERANCES[self.feature.quantity]


def header_values(
    schema: ClinicalSchema, header: Mapping[str, Any]
) -> tuple[list[HeaderValue], list[Finding]]:
    """Read what an image header tells of the values of a schema.

    Args:
        schema: what is wanted.
        header: ``PatientAge``, or else ``AgeFromDates``, both as ``049Y``; ``PatientSex``; ``PatientSize`` in
            m and ``PatientWeight`` in kg. What else it holds is not looked at.

    Returns:
        The values in the order age, sex, body mass index; those that are missing or make no sense are left
        out. A height or weight of the header that cannot be one is told.
    """
    found: list[HeaderValue] = []
    age, sex = schema.find_quantity("age"), schema.find("sex")
    for name, words in (("PatientAge", "PatientAge"), ("AgeFromDates", "the dates of birth and study")):
        written = dicom_age(_text(header, name))
        if age is not None and written is not None:
            years = to_unit(*written, "age", column=name)
            if age.minimum <= years <= age.maximum:
                found.append(HeaderValue(age, years, words))
                break
    word = _SEXES.get(_text(header, "PatientSex").upper())
    if sex is not None and word is not None:
        found.append(HeaderValue(sex, word, "PatientSex"))
    bmi = schema.find_quantity("body_mass_index")
    if bmi is None:
        return found, []
    height_m, findings = _measure(header, "PatientSize", "a height in metres", _HEIGHT_M)
    weight_kg, more = _measure(header, "PatientWeight", "a weight in kilograms", _WEIGHT_KG)
    if height_m is not None and weight_kg is not None:
        number = weight_kg / height_m**2
        if bmi.minimum <= number <= bmi.maximum:
            found.append(HeaderValue(bmi, number, "PatientSize and PatientWeight"))
    return found, findings + more


def _text(header: Mapping[str, Any], name: str) -> str:
    return str(header.get(name) or "").strip()


def _measure(
    header: Mapping[str, Any], name: str, what: str, allowed: tuple[float, float]
) -> tuple[float | None, list[Finding]]:
    """Read a number; zero and nothing are what scanners write for "not asked"."""
    text = _text(header, name)
    try:
        number = float(text or 0)
    except ValueError:
        number = math.nan
    if number == 0:
        return None, []
    if allowed[0] <= number <= allowed[1]:
        return number, []
    message = f"{name} of the image header is not {what} of an adult, and was not used."
    return None, [Finding(code="CLINICAL_HEADER_NOT_USED", message=message)]
