"""Creatinine ↔ eGFR by CKD-EPI 2021 (race-free), and KDIGO G stages.

Reference:
    L. A. Inker et al., "New Creatinine- and Cystatin C–Based Equations to Estimate GFR without Race",
    N Engl J Med 2021, Table S10; KDIGO 2024 Clinical Practice Guideline for CKD, Table 2 (G categories).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared_nets.refusals import InputRefused

MIN_AGE_YEARS = 18.0
#: KDIGO G stages from best to worst, and the lowest eGFR (mL/min/1.73 m²) that still belongs to each.
STAGES: tuple[str, ...] = ("G1", "G2", "G3a", "G3b", "G4", "G5")
STAGE_LOWER_BOUNDS: tuple[float, ...] = (90.0, 60.0, 45.0, 30.0, 15.0, 0.0)

ArrayLike = npt.ArrayLike
FloatArray = npt.NDArray[np.float64]


def egfr_from_creatinine(
    creatinine_mg_dl: ArrayLike, age_years: ArrayLike, is_female: ArrayLike
) -> FloatArray:
    """Estimate the glomerular filtration rate from serum creatinine.

    Args:
        creatinine_mg_dl: serum creatinine, mg/dL, positive; any shape.
        age_years: age in years; broadcastable.
        is_female: true for women; broadcastable.

    Returns:
        eGFR in mL/min/1.73 m², float64, broadcast shape.

    Raises:
        ValueError: a creatinine is not positive.
    """
    creatinine = np.asarray(creatinine_mg_dl, dtype=np.float64)
    if not (creatinine > 0).all():
        raise ValueError(f"creatinine_mg_dl must be positive, got {creatinine_mg_dl!r}.")
    scale, kappa, alpha = _coefficients(age_years, is_female)
    ratio = creatinine / kappa
    return scale * np.minimum(ratio, 1.0) ** alpha * np.maximum(ratio, 1.0) ** -1.2


def creatinine_from_egfr(egfr_ml_min: ArrayLike, age_years: ArrayLike, is_female: ArrayLike) -> FloatArray:
    """Invert :func:`egfr_from_creatinine`; the equation falls strictly with creatinine, so this is exact.

    Args:
        egfr_ml_min: eGFR in mL/min/1.73 m², positive; any shape.
        age_years: age in years; broadcastable.
        is_female: true for women; broadcastable.

    Returns:
        Creatinine in mg/dL, float64, broadcast shape.

    Raises:
        ValueError: an eGFR is not positive.
    """
    egfr = np.asarray(egfr_ml_min, dtype=np.float64)
    if not (egfr > 0).all():
        raise ValueError(f"egfr_ml_min must be positive, got {egfr_ml_min!r}.")
    scale, kappa, alpha = _coefficients(age_years, is_female)
    fraction = egfr / scale  # 1 where creatinine is κ
    return kappa * np.where(fraction >= 1.0, fraction ** (1.0 / alpha), fraction ** (-1.0 / 1.2))


def stage_index(egfr_ml_min: ArrayLike) -> npt.NDArray[np.int64]:
    """Give the KDIGO stage as an index into :data:`STAGES`; a bound belongs to the better stage (60 is G2).

    Args:
        egfr_ml_min: eGFR in mL/min/1.73 m², not negative; any shape.

    Returns:
        Indices 0 (G1) to 5 (G5), int64, same shape.

    Raises:
        ValueError: an eGFR is negative or not a number.
    """
    egfr = np.asarray(egfr_ml_min, dtype=np.float64)
    if not (egfr >= 0).all():
        raise ValueError(f"egfr_ml_min must be zero or more, got {egfr_ml_min!r}.")
    return (egfr[..., None] < np.array(STAGE_LOWER_BOUNDS[:-1])).sum(axis=-1)


def refuse_children(age_years: float | None) -> None:
    """Stop where the equation does not hold.

    Args:
        age_years: age in years; ``None`` when it is not known.

    Raises:
        InputRefused: ``AGE_UNDER_18``, or ``CLINICAL_REQUIRED_MISSING`` without an age.
    """
    if age_years is None or np.isnan(age_years):
        raise InputRefused(
            "CLINICAL_REQUIRED_MISSING",
            "The age is missing, and eGFR cannot be computed without it.",
            'Give "age" in years among the clinical values.',
        )
    if age_years < MIN_AGE_YEARS:
        raise InputRefused(
            "AGE_UNDER_18",
            "The person is under 18 years old, and CKD-EPI 2021 holds for adults only.",
            "Use a paediatric equation (for example CKiD U25) and a paediatric model.",
        )


def _coefficients(age_years: ArrayLike, is_female: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    female = np.asarray(is_female, dtype=bool)
    kappa = np.where(female, 0.7, 0.9)
    alpha = np.where(female, -0.241, -0.302)
    scale = 142.0 * 0.9938 ** np.asarray(age_years, dtype=np.float64) * np.where(female, 1.012, 1.0)
    return scale, kappa, alpha
