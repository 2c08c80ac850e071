"""How well numbers and stages were predicted: plain functions of observed and predicted values.

Shape letters: N people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import cohen_kappa_score, f1_score

FloatArray = npt.NDArray[np.float64]
Figure = Callable[[FloatArray, FloatArray], float]

_LIMITS = 1.959963984540054  # standard deviations to each side that hold 95 % of a normal distribution


def mean_absolute_error(observed: FloatArray, predicted: FloatArray) -> float:
    """Mean distance between prediction and observation, ``(N,)`` each, in their unit."""
    return float(np.abs(predicted - observed).mean())


def root_mean_square_error(observed: FloatArray, predicted: FloatArray) -> float:
    """Root mean square distance between prediction and observation, ``(N,)`` each, in their unit."""
    return float(np.sqrt(np.square(predicted - observed).mean()))


def r_squared(observed: FloatArray, predicted: FloatArray) -> float:
    """Share of the variance that is explained: 1 is perfect, 0 is as good as the mean; NaN for N < 2."""
    spread = np.square(observed - observed.mean()).sum() if observed.size else 0.0
    return float(1.0 - np.square(predicted - observed).sum() / spread) if spread > 0 else float("nan")


def bias(observed: FloatArray, predicted: FloatArray) -> float:
    """Mean of predicted minus observed, ``(N,)`` each, in their unit."""
    return float((predicted - observed).mean())


def limits_of_agreement(observed: FloatArray, predicted: FloatArray) -> tuple[float, float]:
    """Bland-Altman limits: the range that holds 95 % of predicted minus observed if they are normal.

    Args:
        observed: ``(N,)``, N at least 2.
        predicted: ``(N,)``.

    Returns:
        Lower and upper limit, in the unit of the values; NaN for N < 2.

    Reference:
        J. M. Bland, D. G. Altman, "Statistical methods for assessing agreement …", Lancet 1986.
    """
    difference = predicted - observed
    spread = _LIMITS * float(difference.std(ddof=1)) if difference.size > 1 else float("nan")
    return float(difference.mean()) - spread, float(difference.mean()) + spread


def p30(observed: FloatArray, predicted: FloatArray) -> float:
    """Share of predictions within 30 % of the observed value, ``(N,)`` each, 0 to 1."""
    return float((np.abs(predicted - observed) <= 0.3 * np.abs(observed)).mean())


def interval_coverage(observed: FloatArray, low: FloatArray, high: FloatArray) -> float:
    """Share of observations inside their interval, ends included, ``(N,)`` each, 0 to 1."""
    return float(((observed >= low) & (observed <= high)).mean())


def censored_at(
    observed: npt.ArrayLike, predicted: npt.ArrayLike, is_lower_bound: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Make values comparable where some observations are only known to be at least a bound.

    A laboratory that reports ">= 90" hides what lies above, for every person: all values above the bound,
    observed or predicted, are set to the bound. Every model must be treated in the same way.

    Args:
        observed: observed values, ``(N,)``; the bound itself where ``is_lower_bound``.
        predicted: predicted values, ``(N,)``.
        is_lower_bound: true where the true value may be higher, ``(N,)``; all bounds are one number.

    Returns:
        Observed and predicted values, ``(N,)`` float64 each.

    Raises:
        ValueError: the bounds differ.
    """
    observed = np.asarray(observed, dtype=np.float64)
    predicted = np.asarray(predicted, dtype=np.float64)
    bounds = np.unique(observed[np.asarray(is_lower_bound, dtype=bool)])
    if bounds.size > 1:
        raise ValueError(f"observed must hold one bound, got {bounds.tolist()}.")
    if bounds.size == 0:
        return observed, predicted
    return np.minimum(observed, bounds[0]), np.minimum(predicted, bounds[0])


def agreement(observed: FloatArray, predicted: FloatArray) -> dict[str, float]:
    """Give all figures for numbers.

    Args:
        observed: ``(N,)``.
        predicted: ``(N,)``.

    Returns:
        ``mae``, ``rmse``, ``r2``, ``bias``, ``limit_low``, ``limit_high``, ``p30``.
    """
    low, high = limits_of_agreement(observed, predicted)
    return {
        "mae": mean_absolute_error(observed, predicted),
        "rmse": root_mean_square_error(observed, predicted),
        "r2": r_squared(observed, predicted),
        "bias": bias(observed, predicted),
        "limit_low": low,
        "limit_high": high,
        "p30": p30(observed, predicted),
    }


def stage_agreement(
    observed: npt.NDArray[np.integer[Any]], predicted: npt.NDArray[np.integer[Any]]
) -> Mapping[str, float]:
    """Give all figures for ordered stages.

    Args:
        observed: stage indices, ``(N,)``, 0 is the best stage.
        predicted: stage indices, ``(N,)``.

    Returns:
        ``accuracy``; ``accuracy_within_one``: share at most one stage off; ``macro_f1`` over the stages that
        occur, observed or predicted; ``quadratic_kappa``: Cohen's kappa with quadratic weights, NaN where
        only one stage occurs.
    """
    distance = np.abs(observed - predicted)
    one_stage = np.unique(np.concatenate([observed, predicted])).size < 2
    return {
        "accuracy": float((distance == 0).mean()),
        "accuracy_within_one": float((distance <= 1).mean()),
        "macro_f1": float(f1_score(observed, predicted, average="macro", zero_division=0.0)),
        "quadratic_kappa": float("nan")
        if one_stage
        else float(cohen_kappa_score(observed, predicted, weights="quadratic", labels=range(6))),
    }
