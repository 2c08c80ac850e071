"""Conversions checked against values that laboratories print in both systems."""

from __future__ import annotations

import pytest

from shared_nets.refusals import InputRefused
from shared_nets.transforms.clinical_units import (
    UNITS,
    canonical_unit,
    dicom_age,
    to_unit,
    units_that_fit,
)


@pytest.mark.parametrize(
    ("value", "unit", "quantity", "expected"),
    [
        pytest.param(88.42, "µmol/L", "creatinine", 1.0, id="creatinine, micro sign"),
        pytest.param(88.42, "μmol/L", "creatinine", 1.0, id="creatinine, Greek mu"),
        pytest.param(88.42, "umol/l", "creatinine", 1.0, id="creatinine, ASCII"),
        pytest.param(0.1, "mmol/L", "creatinine", 1.1310, id="creatinine, millimoles"),
        pytest.param(5.0, "mmol/L", "urea_nitrogen", 14.005, id="urea nitrogen from urea in moles"),
        pytest.param(30.0, "mg/dL", "urea", 4.995, id="urea: 60.056 g/mol"),
        pytest.param(1.0, "mmol/L", "phosphate", 3.097, id="phosphate: 30.97 g/mol"),
        pytest.param(2.4, "mmol/L", "calcium", 9.619, id="calcium: 40.08 g/mol"),
        pytest.param(4.8, "mEq/L", "calcium", 9.619, id="calcium has two charges"),
        pytest.param(135.0, "g/L", "haemoglobin", 13.5, id="haemoglobin"),
        pytest.param(8.4, "mmol/L", "haemoglobin", 13.536, id="haemoglobin monomer"),
        pytest.param(42.0, "g / L", "albumin", 4.2, id="albumin, blanks"),
        pytest.param(24.0, "mEq/L", "bicarbonate", 24.0, id="bicarbonate has one charge"),
        pytest.param(4.1, "MEQ/L", "potassium", 4.1, id="potassium, capitals"),
        pytest.param(27.5, "kg/m²", "body_mass_index", 27.5, id="superscript"),
        pytest.param(27.5, "kg/m^2", "body_mass_index", 27.5, id="caret"),
        pytest.param(1.75, "m", "height", 175.0, id="height"),
        pytest.param(154.3, "lbs", "weight", 69.99, id="pounds"),
        pytest.param(24.0, "mm", "size_cm", 2.4, id="tumour size"),
        pytest.param(30.0, "months", "age", 2.5, id="months"),
        pytest.param(250.0, "mL", "volume_mm3", 250_000.0, id="volume"),
    ],
)
def test_units_are_converted_as_laboratories_print_them(value, unit, quantity, expected):
    assert to_unit(value, unit, quantity, column="x") == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("unit", ["mol", "mg/dl/h", "%", "g/dL", ""])
def test_a_unit_of_another_kind_is_refused_with_those_that_are_known(unit):
    with pytest.raises(
        InputRefused, match=r'"Cr" has the unit .* Use one of: mg/dL, umol/L, mmol/L'
    ) as refusal:
        to_unit(1.0, unit, "creatinine", column="Cr")
    assert refusal.value.code == "CLINICAL_UNKNOWN_UNIT"


def test_every_unit_finds_itself():
    for quantity, units in UNITS.items():
        for unit in units:
            assert canonical_unit(unit, quantity) == unit


def test_a_mix_up_names_the_units_that_would_fit():
    assert units_that_fit(106.0, "creatinine", minimum=0.1, maximum=30.0) == ["umol/L", "mg/L"]
    assert units_that_fit(2.4, "calcium", minimum=4.0, maximum=20.0) == ["mmol/L", "mEq/L"]
    assert units_that_fit(1e9, "calcium", minimum=4.0, maximum=20.0) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("049Y", (49.0, "years")), ("017m", (17.0, "months")), ("49", None), ("49Y", None), ("", None)],
)
def test_dicom_ages_have_three_digits_and_a_letter(text, expected):
    assert dicom_age(text) == expected
