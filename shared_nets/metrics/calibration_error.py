"""How far stated probabilities lie from what happens: calibration error and Brier score.

Shape letters: N images, K classes, M bins.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def expected_calibration_error(
    probability: npt.ArrayLike,
    happened: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    num_bins: int = 15,
) -> float:
    """Give the mean gap between stated and observed frequency over bins of equal width.

    Args:
        probability: what was stated, 0 to 1, ``(N,)``: of the predicted class, or of malignancy.
        happened: whether it was so, ``(N,)``.
        weights: of each image, ``(N,)``; ``None`` for 1 each.
        num_bins: M. Bins are open on the left and closed on the right; a stated 0 belongs to the first one.

    Returns:
        0 to 1; NaN where nothing has weight.

    Raises:
        ValueError: a probability is not one, or the shapes differ.

    Reference:
        C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    stated, was_so = np.asarray(probability, dtype=np.float64), np.asarray(happened, dtype=np.float64)
    if stated.ndim != 1 or stated.shape != was_so.shape:
        raise ValueError(f"happened must have the shape of probability {stated.shape}, got {was_so.shape}.")
    if not ((stated >= 0.0) & (stated <= 1.0 + 1e-9)).all():
        raise ValueError("probability must lie between 0 and 1, got something else.")
    weight = np.ones_like(stated) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.sum() <= 0.0:
        return float("nan")
    bins = np.clip(np.ceil(stated * num_bins).astype(np.int64) - 1, 0, num_bins - 1)  # (N,)
    gap = np.bincount(bins, weight * (stated - was_so), num_bins)  # (M,)
    return float(np.abs(gap).sum() / weight.sum())


def brier_score(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    """Give the mean squared distance between stated probabilities and what was so.

    Args:
        probabilities: ``(N, K)`` for K classes; ``(N,)`` for one yes-or-no question.
        labels: class of each image, or 0 and 1, ``(N,)``.
        weights: of each image, ``(N,)``; ``None`` for 1 each.

    Returns:
        0 to 2 for classes (the sum over them), 0 to 1 for a question; NaN where nothing has weight.

    Raises:
        ValueError: the shapes do not fit.

    Reference:
        G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review
        1950.
    """
    stated, label = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if stated.ndim not in (1, 2) or label.shape != stated.shape[:1]:
        raise ValueError(f"labels must have shape {stated.shape[:1]}, got {label.shape}.")
    weight = np.ones(label.size) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.sum() <= 0.0:
        return float("nan")
    if stated.ndim == 1:
        distance = np.square(stated - label)
    else:
        distance = np.square(stated - np.eye(stated.shape[1])[label]).sum(axis=1)
    return float(np.average(distance, weights=weight))
