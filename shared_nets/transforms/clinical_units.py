"""Units of clinical values: spellings, factors between mass and amount of substance, and likely mix-ups.

Factors carry a molar mass where mass meets amount of substance: creatinine 113.1 g/mol, urea 60.056 g/mol of
which 28.013 g nitrogen, phosphorus 30.97 g/mol, calcium 40.08 g/mol, haemoglobin monomer 16114 g/mol.
"""

from __future__ import annotations

import re
import unicodedata

from shared_nets.refusals import InputRefused

#: For every quantity: its units, and the factor that turns each into the first one.
UNITS: dict[str, dict[str, float]] = {
    "age": {"years": 1.0, "months": 1.0 / 12.0, "weeks": 7.0 / 365.25, "days": 1.0 / 365.25},
    "body_mass_index": {"kg/m2": 1.0},
    "height": {"cm": 1.0, "m": 100.0, "mm": 0.1, "in": 2.54},
    "weight": {"kg": 1.0, "g": 0.001, "lb": 0.45359237},
    "creatinine": {"mg/dL": 1.0, "umol/L": 1.0 / 88.42, "mmol/L": 1000.0 / 88.42, "mg/L": 0.1},
    "urea_nitrogen": {"mg/dL": 1.0, "mmol/L": 2.801, "mg/L": 0.1, "g/L": 100.0},
    "urea": {"mmol/L": 1.0, "mg/dL": 10.0 / 60.056, "g/L": 1000.0 / 60.056},
    "haemoglobin": {"g/dL": 1.0, "g/L": 0.1, "mmol/L": 1.6114},
    "albumin": {"g/dL": 1.0, "g/L": 0.1},
    "phosphate": {"mg/dL": 1.0, "mmol/L": 1.0 / 0.3229, "mg/L": 0.1},
    "calcium": {"mg/dL": 1.0, "mmol/L": 1.0 / 0.2495, "mEq/L": 1.0 / 0.4990, "mg/L": 0.1},
    "bicarbonate": {"mmol/L": 1.0, "mEq/L": 1.0},
    "potassium": {"mmol/L": 1.0, "mEq/L": 1.0},
    "size_cm": {"cm": 1.0, "mm": 0.1},
    "length_mm": {"mm": 1.0, "cm": 10.0},
    "area_cm2": {"cm2": 1.0, "mm2": 0.01},
    "area_mm2": {"mm2": 1.0, "cm2": 100.0},
    "angle": {"deg": 1.0},
    "volume_ml": {"mL": 1.0, "cm3": 1.0, "mm3": 0.001, "L": 1000.0},
    "volume_mm3": {"mm3": 1.0, "mL": 1000.0, "cm3": 1000.0},
    "per_mm": {"1/mm": 1.0, "1/cm": 0.1},
    "log_creatinine": {"ln(mg/dL)": 1.0},
    "number": {"1": 1.0},
    "word": {},
}
_SPELLINGS = {
    "year": "years", "yr": "years", "yrs": "years", "y": "years", "a": "years",
    "month": "months", "mo": "months", "week": "weeks", "wk": "weeks", "day": "days", "d": "days",
    "kg/m^2": "kg/m2", "kg/m**2": "kg/m2", "cc": "mL", "cm^3": "cm3", "mm^3": "mm3", "mm^-1": "1/mm",
    "mcmol/l": "umol/L", "micromol/l": "umol/L", "mg%": "mg/dL", "mg/100ml": "mg/dL", "g%": "g/dL",
    "inch": "in", "inches": "in", "lbs": "lb", "mm^2": "mm2", "cm^2": "cm2", "°": "deg", "degrees": "deg",
}  # fmt: skip
_DICOM_AGE = re.compile(r"(\d{3})([DWMY])")
_DICOM_AGE_UNIT = {"D": "days", "W": "weeks", "M": "months", "Y": "years"}


def to_unit(value: float, unit: str, quantity: str, *, column: str) -> float:
    """Turn a number into the first unit of its quantity.

    Args:
        value: the number.
        unit: its unit, in any usual spelling; ``µ`` may be written ``u``.
        quantity: what is measured, a key of :data:`UNITS`.
        column: name of the value, for the message.

    Returns:
        The number in the first unit of the quantity.

    Raises:
        InputRefused: ``CLINICAL_UNKNOWN_UNIT``.
    """
    spelled = canonical_unit(unit, quantity)
    if spelled is None:
        known = ", ".join(UNITS[quantity]) or "none"
        raise InputRefused(
            "CLINICAL_UNKNOWN_UNIT",
            f'"{column}" has the unit "{unit}", which cannot be converted.',
            f"Use one of: {known}.",
        )
    return value * UNITS[quantity][spelled]


def canonical_unit(unit: str, quantity: str) -> str | None:
    """Find the spelling of a unit that :data:`UNITS` uses.

    Args:
        unit: any spelling: case, blanks, ``µ`` (U+00B5) or ``μ`` (U+03BC) and ``²`` do not matter.
        quantity: what is measured.

    Returns:
        The unit as a key of ``UNITS[quantity]``; ``None`` if it is not a unit of the quantity.
    """
    plain = unicodedata.normalize("NFKC", unit).casefold().replace("\u03bc", "u")
    plain = "".join(plain.split())
    plain = _SPELLINGS.get(plain, plain).casefold()
    return next((known for known in UNITS[quantity] if known.casefold() == plain), None)


def units_that_fit(value: float, quantity: str, *, minimum: float, maximum: float) -> list[str]:
    """List the units in which a number that is out of range would be in range.

    Args:
        value: the number.
        quantity: what is measured.
        minimum: lowest allowed value, in the first unit of the quantity.
        maximum: highest allowed value.

    Returns:
        Units other than the first one, in a fixed order.
    """
    others = list(UNITS[quantity].items())[1:]
    return [unit for unit, factor in others if factor != 1.0 and minimum <= value * factor <= maximum]


def dicom_age(text: str) -> tuple[float, str] | None:
    """Read an age in DICOM form, such as ``049Y``.

    Args:
        text: value of an AS element.

    Returns:
        Number and unit, or ``None`` when the text has another form.
    """
    match = _DICOM_AGE.fullmatch(text.strip().upper())
    return (float(match[1]), _DICOM_AGE_UNIT[match[2]]) if match else None
