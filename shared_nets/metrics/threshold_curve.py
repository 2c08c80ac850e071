"""What a score is worth at every threshold: AUC, the partial AUC of ISIC 2024, precision, operating points.

The scores are sorted once; figures then take a weight a person, which makes a bootstrap over tens of
thousands of images quick (a draw is a weight of 0, 1, 2, …). scikit-learn has the same figures, and sorts at
every call; the tests hold these to those.

Shape letters: N images, T different scores.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_ROUNDING = 1e-12  # a rate that misses a bound by less lies on it


class ThresholdCurve:
    """Scores of images of which some are positive, in falling order.

    Every figure takes the weight of each image, ``(N,)``, zero or more (``None`` for 1 each), and is NaN
    where only one class has any weight: no threshold can be judged then.

    Args:
        is_positive: ``(N,)`` bool.
        score: ``(N,)``, higher for positives; equal scores are called together.

    Raises:
        ValueError: the shapes differ, or a score is not finite.
    """

    def __init__(self, is_positive: npt.ArrayLike, score: npt.ArrayLike) -> None:
        is_positive, score = np.asarray(is_positive, dtype=bool), np.asarray(score, dtype=np.float64)
        if is_positive.ndim != 1 or is_positive.shape != score.shape or not score.size:
            raise ValueError(
                f"score must have the shape of is_positive {is_positive.shape}, got {score.shape}."
            )
        if not np.isfinite(score).all():
            raise ValueError("score must be finite, got NaN or infinity.")
        self._order = np.argsort(-score, kind="stable")
        self._is_positive = is_positive[self._order]
        self._last = np.append(np.flatnonzero(np.diff(score[self._order])), score.size - 1)  # (T,)

    def rates(self, weights: npt.ArrayLike | None = None) -> tuple[FloatArray, FloatArray] | None:
        """Give false and true positive rates, ``(1 + T,)`` each, rising from 0; ``None`` with one class."""
        true, false = self._counts(weights)
        if true[-1] <= 0.0 or false[-1] <= 0.0:
            return None
        return false / false[-1], true / true[-1]

    def auc(self, weights: npt.ArrayLike | None = None) -> float:
        """Give the area under the curve, 0 to 1."""
        rates = self.rates(weights)
        return float("nan") if rates is None else float(np.trapezoid(rates[1], rates[0]))

    def partial_auc(self, weights: npt.ArrayLike | None = None, *, min_tpr: float = 0.8) -> float:
        """Give the area under the curve that lies above a sensitivity.

        Args:
            weights: see the class.
            min_tpr: that sensitivity, 0 to below 1.

        Returns:
            0 to 1 − ``min_tpr``, which is perfect; scores that say nothing give half of its square (0.02 for
            0.8).

        Reference:
            ISIC 2024 challenge: the ROC of swapped classes and negated scores up to a false positive rate of
            1 − ``min_tpr``.
        """
        if not 0.0 <= min_tpr < 1.0:
            raise ValueError(f"min_tpr must be at least 0 and below 1, got {min_tpr}.")
        rates = self.rates(weights)
        if rates is None:
            return float("nan")
        missed, cleared = 1.0 - rates[1][::-1], 1.0 - rates[0][::-1]  # the swapped curve, rising from 0
        limit = 1.0 - min_tpr
        stop = int(np.searchsorted(missed, limit, side="right"))
        x = np.append(missed[:stop], limit)
        y = np.append(
            cleared[:stop], np.interp(limit, missed[stop - 1 : stop + 1], cleared[stop - 1 : stop + 1])
        )
        return float(np.trapezoid(y, x))

    def average_precision(self, weights: npt.ArrayLike | None = None) -> float:
        """Give the mean precision over the positives, 0 to 1; without interpolation."""
        true, false = self._counts(weights)
        if true[-1] <= 0.0 or false[-1] <= 0.0:
            return float("nan")
        called = true[1:] + false[1:]
        precision = np.divide(true[1:], called, out=np.zeros_like(called), where=called > 0.0)
        return float(np.sum(np.diff(true) * precision) / true[-1])

    def sensitivity_at(self, specificity: float, weights: npt.ArrayLike | None = None) -> float:
        """Give the highest sensitivity of a threshold whose specificity is at least the given one.

        The threshold is chosen on these very images: another set has a little less at the same threshold.
        """
        rates = self.rates(weights)
        if rates is None:
            return float("nan")
        return float(rates[1][rates[0] <= 1.0 - specificity + _ROUNDING].max())

    def specificity_at(self, sensitivity: float, weights: npt.ArrayLike | None = None) -> float:
        """Give the highest specificity of a threshold whose sensitivity is at least the given one."""
        rates = self.rates(weights)
        if rates is None:
            return float("nan")
        return float(1.0 - rates[0][rates[1] >= sensitivity - _ROUNDING].min())

    def _counts(self, weights: npt.ArrayLike | None) -> tuple[FloatArray, FloatArray]:
        """Weight of true and of false positives at each threshold, ``(1 + T,)``, from 0."""
        if weights is None:
            weight = np.ones(self._order.size)
        else:
            weight = np.asarray(weights, dtype=np.float64)[self._order]
        true = np.cumsum(weight * self._is_positive)[self._last]
        false = np.cumsum(weight * ~self._is_positive)[self._last]
        return np.append(0.0, true), np.append(0.0, false)
