"""One clinical value as people write it → a number in the schema's unit, or a word; never a guess."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared_nets.refusals import InputRefused
from shared_nets.transforms.clinical_schema import ClinicalFeature
from shared_nets.transforms.clinical_units import UNITS, canonical_unit, dicom_age, to_unit, units_that_fit
from shared_nets.types import Finding

_MISSING = {
    "",
    "?",
    "-",
    "na",
    "n/a",
    "nan",
    "null",
    "none",
    "missing",
    "unknown",
    "not_found_in_emr",
    "not found in emr",
}
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\D.*)?")
#: Other spellings of the words that schemas use.
_WORDS = {
    "m": "male", "man": "male", "f": "female", "w": "female", "woman": "female",
    "y": "yes", "true": "yes", "n": "no", "false": "no",
    "never": "never_smoked", "never smoker": "never_smoked", "previous": "previous_smoker",
    "former": "previous_smoker", "former smoker": "previous_smoker", "ex-smoker": "previous_smoker",
    "current": "current_smoker", "smoker": "current_smoker",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How a column is to be read.

    Args:
        quantity: what is measured, a key of :data:`clinical_units.UNITS`.
        minimum: lowest allowed value in the quantity's first unit.
        maximum: highest allowed value.
        unit: unit of a bare number; ``None`` when a bare number could mean two things and is refused.
    """

    quantity: str
    minimum: float
    maximum: float
    unit: str | None


def is_missing(given: Any) -> bool:
    """Tell whether a value says that there is none.

    Args:
        given: anything that stands in a table or JSON object.

    Returns:
        True for ``None``, NaN, blanks, and words such as ``NA`` or ``not_found_in_emr``.
    """
    if isinstance(given, Mapping) and "value" in given:
        return is_missing(given["value"])
    if isinstance(given, str):
        return given.strip().casefold() in _MISSING
    return given is None or (isinstance(given, float) and math.isnan(given))


def read_number(column: str, given: Any, how: Measured) -> tuple[float, list[Finding]]:
    """Read a number, with or without a unit.

    Args:
        column: name under which it was given, for messages.
        given: number, text such as ``"106 µmol/L"``, or ``{"value": …, "unit": …}``.
        how: what is expected.

    Returns:
        The number in the first unit of the quantity, and what was converted.

    Raises:
        InputRefused: ``CLINICAL_BAD_VALUE``, ``CLINICAL_UNKNOWN_UNIT`` or ``CLINICAL_OUT_OF_RANGE``.
    """
    value, unit = _split(column, given, how)
    written = f"{value:.6g}" + (f" {unit}" if unit else "")
    if unit is None:
        if how.unit is None:
            raise InputRefused(
                "CLINICAL_UNKNOWN_UNIT",
                f'"{column}" is {written} without a unit, and could mean more than one thing.',
                f'Write the unit, for example "{written} {next(iter(UNITS[how.quantity]))}".',
            )
        unit = how.unit
    number = to_unit(value, unit, how.quantity, column=column)
    target = next(iter(UNITS[how.quantity]))
    if not how.minimum <= number <= how.maximum:
        raise _out_of_range(column, value, number, written, how)
    findings = []
    if UNITS[how.quantity][str(canonical_unit(unit, how.quantity))] != 1.0:
        findings.append(
            Finding(
                code="CLINICAL_UNIT_CONVERTED",
                message=f'"{column}" {written} was read as {number:.4g} {target}.',
            )
        )
    return number, findings


def read_word(column: str, given: Any, feature: ClinicalFeature, coding: Mapping[str, str] | None) -> str:
    """Read one of the words of a binary or categorical feature.

    Args:
        column: name under which it was given, for messages.
        given: word, ``{"value": …, "coding": {…}}``, or for yes/no also a boolean, 0 or 1.
        feature: whose words they are.
        coding: word by number, where a table writes numbers; a ``coding`` given with the value wins.

    Returns:
        The word as the schema spells it.

    Raises:
        InputRefused: ``CLINICAL_BAD_VALUE``; among others for a number without a coding.
    """
    if isinstance(given, Mapping):
        _check_keys(column, given, {"value", "coding"})
        coding = given.get("coding", coding)
        given = given["value"]
    text = str(given).strip().casefold()
    number = _NUMBER.fullmatch(text)
    if isinstance(given, int | float) or (number is not None and number[2] is None):
        text = text if isinstance(given, bool) else f"{float(text):g}"
        if coding is not None:
            text = str({str(k): v for k, v in coding.items()}.get(text, text)).casefold()
        elif feature.categories == ("no", "yes"):
            text = {"0": "no", "1": "yes"}.get(text, text)
        elif not isinstance(given, bool):
            first, second = feature.categories[:2]
            raise InputRefused(
                "CLINICAL_BAD_VALUE",
                f'"{column}" is the number {text}, and nothing says what it stands for.',
                f'Write {_listed(feature.categories)}, or give {{"value": {text}, "coding": '
                f'{{"0": "{first}", "1": "{second}"}}}} with the coding of your table.',
            )
    word = _WORDS.get(text, text)
    for category in feature.categories:
        if category.casefold() == word or category.casefold().replace("_", " ") == word:
            return category
    raise InputRefused(
        "CLINICAL_BAD_VALUE", f'"{column}" is "{given}".', f"Write one of {_listed(feature.categories)}."
    )


def _split(column: str, given: Any, how: Measured) -> tuple[float, str | None]:
    """Separate number and unit."""
    unit = None
    if isinstance(given, Mapping):
        _check_keys(column, given, {"value", "unit"})
        unit = given.get("unit")
        if unit is not None and not isinstance(unit, str):
            raise _bad_number(column, given)
        given = given["value"]
    if isinstance(given, str):
        age = dicom_age(given) if how.quantity == "age" else None
        match = _NUMBER.fullmatch(given.strip())
        if age is not None:
            number, inner = age
        elif match is not None:
            number, inner = float(match[1]), match[2]
        else:
            raise _bad_number(column, given)
        if inner is not None:
            if inner[0] in ",;" or (unit is not None and inner != unit):
                raise _bad_number(column, given)
            unit = inner
    elif isinstance(given, bool) or not isinstance(given, int | float):
        raise _bad_number(column, given)
    else:
        try:
            number = float(given)
        except OverflowError:
            number = math.inf
    if not math.isfinite(number):
        raise _bad_number(column, given)
    return number, unit.strip() if unit is not None and unit.strip() else None


def _out_of_range(column: str, value: float, number: float, written: str, how: Measured) -> InputRefused:
    target = next(iter(UNITS[how.quantity]))
    converted = "" if math.isclose(value, number) else f" ({number:.4g} {target})"
    others = units_that_fit(value, how.quantity, minimum=how.minimum, maximum=how.maximum)
    shown = [unit.replace("umol", "µmol") for unit in others]
    remedy = f'If the unit is {" or ".join(shown)}, write it: "{value:.6g} {shown[0]}". ' if shown else ""
    return InputRefused(
        "CLINICAL_OUT_OF_RANGE",
        f'"{column}" is {written}{converted}, outside {how.minimum:.4g} to {how.maximum:.4g} {target}.',
        f"{remedy}Otherwise check the value, or leave it empty.",
    )


def _check_keys(column: str, given: Mapping[Any, Any], allowed: set[str]) -> None:
    if "value" not in given or not set(given) <= allowed:
        raise InputRefused(
            "CLINICAL_BAD_VALUE",
            f'"{column}" is an object with {", ".join(sorted(map(str, given))) or "nothing in it"}.',
            f"Give an object with {_listed(tuple(sorted(allowed, reverse=True)))}.",
        )


def _bad_number(column: str, given: Any) -> InputRefused:
    return InputRefused(
        "CLINICAL_BAD_VALUE",
        f'"{column}" is {given!r}, which is not a number.',
        'Write a number with a decimal point and, if need be, its unit: 1.2 or "1.2 mg/dL"; '
        "leave it empty if it is not known.",
    )


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words)
