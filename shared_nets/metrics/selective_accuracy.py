"""Fit the confidence below which a classifier had better say nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def confidence_for_accuracy(
    confidence: npt.ArrayLike, is_right: npt.ArrayLike, *, accuracy: float, min_kept: int = 50
) -> float:
    """Give the lowest confidence from which on the answers are right often enough.

    A stated accuracy is what a reader of the answers can use. A stated share of images to abstain on would
    silence a good classifier and let a poor one talk.

    Args:
        confidence: of each of N images, the probability of its most probable class, ``(N,)``.
        is_right: whether that class is the true one, ``(N,)``.
        accuracy: share of right answers wanted among the images that keep theirs, above 0 to 1.
        min_kept: fewest images that may be left to judge by.

    Returns:
        A confidence; images at or above it keep their answer. It is that of the largest such set, and of an
        image: where all may answer it is the lowest one seen.

    Raises:
        ValueError: the shapes differ, or no confidence reaches ``accuracy`` with ``min_kept`` images.

    Reference:
        Y. Geifman, R. El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017.
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(is_right, dtype=bool)
    if sure.ndim != 1 or sure.shape != right.shape:
        raise ValueError(f"is_right must have the shape of confidence {sure.shape}, got {right.shape}.")
    order = np.argsort(-sure, kind="stable")
    num_kept = np.arange(1, sure.size + 1)
    reached = np.cumsum(right[order]) / num_kept
    is_last_of_ties = np.append(np.diff(sure[order]) != 0.0, True)[: sure.size]
    allowed = np.flatnonzero((reached >= accuracy) & is_last_of_ties & (num_kept >= min_kept))
    if not allowed.size:
        raise ValueError(
            f"accuracy must be reached by at least {min_kept} of the images, got none at {accuracy}."
        )
    return float(sure[order][allowed[-1]])
