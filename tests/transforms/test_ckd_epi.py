"""CKD-EPI 2021 and KDIGO stages against values worked out by hand."""

import numpy as np
import pytest

from shared_nets.refusals import InputRefused
from shared_nets.transforms.ckd_epi import (
    STAGES,
    creatinine_from_egfr,
    egfr_from_creatinine,
    refuse_children,
    stage_index,
)


@pytest.mark.parametrize(
    ("creatinine", "age", "is_female", "egfr"),
    [
        pytest.param(0.9, 55, True, 75.5, id="woman-55-0.9"),
        pytest.param(2.718, 55, False, 26.8, id="man-55-2.718"),
        pytest.param(2.718, 80, True, 17.16, id="woman-80-2.718"),
        pytest.param(0.9, 0, False, 142.0, id="man-at-kappa-is-the-scale"),
    ],
)
def test_egfr_equals_the_worked_values(creatinine, age, is_female, egfr):
    assert egfr_from_creatinine(creatinine, age, is_female) == pytest.approx(egfr, abs=0.05)


def test_inverting_the_equation_gives_the_creatinine_back_on_both_sides_of_kappa():
    creatinine = np.array([0.3, 0.7, 0.9, 1.5, 8.0])
    for is_female in (True, False):
        there = egfr_from_creatinine(creatinine, 61.0, is_female)
        np.testing.assert_allclose(creatinine_from_egfr(there, 61.0, is_female), creatinine, rtol=1e-12)


@pytest.mark.parametrize(
    ("egfr", "stage"),
    [
        (90.0, "G1"), (89.999, "G2"), (60.0, "G2"), (59.999, "G3a"), (45.0, "G3a"), (44.9, "G3b"),
        (30.0, "G3b"), (29.9, "G4"), (15.0, "G4"), (14.9, "G5"), (0.0, "G5"),
    ],
)  # fmt: skip
def test_a_bound_belongs_to_the_better_stage(egfr, stage):
    assert STAGES[int(stage_index(egfr))] == stage


def test_children_and_unknown_ages_are_refused():
    with pytest.raises(InputRefused, match="AGE_UNDER_18"):
        refuse_children(17.99)
    with pytest.raises(InputRefused, match="CLINICAL_REQUIRED_MISSING"):
        refuse_children(None)
    refuse_children(18.0)


def test_values_outside_the_equation_stop_rather_than_become_nan():
    with pytest.raises(ValueError, match="creatinine_mg_dl must be positive"):
        egfr_from_creatinine([1.0, 0.0], 50, False)
    with pytest.raises(ValueError, match="egfr_ml_min must be zero or more"):
        stage_index(float("nan"))
