"""Fit the one number that makes a classifier's probabilities honest.

Shape letters: N images, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

#: Temperatures that are looked at; a fit that ends at one of them is none.
LOWEST, HIGHEST = 0.05, 20.0


class TemperatureFit(NamedTuple):
    """The temperature, and the mean negative log-likelihood without and with it, in nats."""

    temperature: float
    nll_before: float
    nll_after: float


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> TemperatureFit:
    """Find the temperature at which the softmax gives the true classes the highest likelihood.

    The likelihood has one maximum along the temperature, so a bounded search on its logarithm finds it; the
    order of the classes of an image does not change.

    Args:
        logits: ``(N, K)``.
        labels: true class of each image, ``(N,)``.

    Returns:
        The fit.

    Raises:
        ValueError: the shapes do not fit, or no temperature between 0.05 and 20 is best (all images right,
            or logits that say nothing).

    Reference:
        C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
    """
    scores, label = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if scores.ndim != 2 or label.shape != scores.shape[:1] or not label.size:
        raise ValueError(f"labels must have shape {scores.shape[:1]} for (N, K) logits, got {label.shape}.")

    def nll(log_temperature: float) -> float:
        log_p = log_softmax(scores / np.exp(log_temperature), axis=1)  # (N, K)
        return float(-np.mean(log_p[np.arange(label.size), label]))

    bounds = float(np.log(LOWEST)), float(np.log(HIGHEST))
    found = minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-8, "maxiter": 200})
    if min(abs(found.x - bound) for bound in bounds) < 1e-3:
        raise ValueError(
            f"logits must have a best temperature between {LOWEST} and {HIGHEST}, got {np.exp(found.x):.3g}."
        )
    return TemperatureFit(float(np.exp(found.x)), nll(0.0), float(found.fun))
