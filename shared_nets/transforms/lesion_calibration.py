"""What a fitted calibration makes of a lesion network's numbers: probabilities, a set of classes, a distance.

These are the rules that results follow; whoever fits temperature, quantiles, means and limits fits them for
these very rules.

Shape letters: K classes, E embedding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def class_logits(logits: npt.ArrayLike) -> FloatArray:
    """Give one logit a class: a single one is that of the second of two classes, against 0.

    Args:
        logits: ``(..., K)``; K = 1 stands for two classes.

    Returns:
        ``(..., K)`` with K ≥ 2, float64.
    """
    given = np.asarray(logits, dtype=np.float64)
    if given.shape[-1] != 1:
        return given
    return np.concatenate([np.zeros_like(given), given], axis=-1)  # (..., 2)


def calibrated_probabilities(logits: npt.ArrayLike, temperature: float) -> FloatArray:
    """Turn logits into probabilities by a softmax at a fitted temperature.

    Args:
        logits: ``(..., K)``; K = 1 stands for two classes, as in :func:`class_logits`.
        temperature: logits are divided by it; above 1 it makes the network less sure.

    Returns:
        Probabilities ``(..., K)``, float64, adding up to 1.

    Raises:
        ValueError: ``temperature`` is not above 0, or a logit is not finite.

    Reference:
        Guo, Pleiss, Sun, Weinberger. On Calibration of Modern Neural Networks. 2017. Section 4.2.
    """
    if not 0.0 < temperature < np.inf:
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}.")
    scaled = class_logits(logits) / temperature
    if not np.isfinite(scaled).all():
        raise ValueError("logits must be finite, got NaN or infinity.")
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def conformal_set(probabilities: npt.ArrayLike, quantiles: npt.ArrayLike) -> tuple[int, ...]:
    """List the classes that cannot be left out at the coverage that the quantiles were fitted for.

    A class belongs to the set where its score, one minus its probability, is at most its quantile. Where that
    leaves none, the most probable class is the set, which can only raise the coverage.

    Args:
        probabilities: of one image, ``(K,)``.
        quantiles: of each class, ``(K,)``: of the scores of its own calibration images.

    Returns:
        Numbers of the classes, the most probable first; of equal ones the lower number first.

    Raises:
        ValueError: ``probabilities`` is no vector, or there is not one quantile a class.

    Reference:
        Sadinle, Lei, Wasserman. Least Ambiguous Set-Valued Classifiers with Bounded Error Levels. 2019.
        Section 2.2, class-specific coverage.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    if given.ndim != 1:
        raise ValueError(f"probabilities must be a vector, got the shape {given.shape}.")
    limits = np.asarray(quantiles, dtype=np.float64)
    if limits.shape != given.shape:
        raise ValueError(f"quantiles must be {given.size}, one a class, got the shape {limits.shape}.")
    order = np.argsort(-given, kind="stable")
    kept = [int(k) for k in order if 1.0 - given[k] <= limits[k]]
    return tuple(kept or [int(order[0])])


def mahalanobis_score(
    embedding: npt.ArrayLike, means: npt.NDArray[Any], precision: npt.NDArray[Any]
) -> float:
    """Say how far an image lies from the nearest class of the training images.

    Args:
        embedding: of one image, ``(E,)``.
        means: mean embedding of each class, ``(K, E)``.
        precision: inverse of the covariance that the classes share, ``(E, E)``.

    Returns:
        The smallest squared distance, 0 or more.

    Raises:
        ValueError: the shapes do not fit, or the embedding is not finite.

    Reference:
        Lee, Lee, Lee, Shin. A Simple Unified Framework for Detecting Out-of-Distribution Samples and
        Adversarial Attacks. 2018. Equation 2, without the sign.
    """
    point = np.asarray(embedding, dtype=np.float64)
    size = means.shape[-1]
    if point.shape != (size,) or precision.shape != (size, size):
        raise ValueError(
            f"embedding must have {size} numbers as the means have, got the shape {point.shape}."
        )
    if not np.isfinite(point).all():
        raise ValueError("embedding must be finite, got NaN or infinity.")
    offsets = point[None] - means.astype(np.float64)  # (K, E)
    distances = np.einsum("ke,ef,kf->k", offsets, precision.astype(np.float64), offsets)  # (K,)
    return max(0.0, float(distances.min()))
