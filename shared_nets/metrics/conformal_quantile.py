"""Fit the number that decides which classes a prediction set holds."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def conformal_quantile(scores: npt.ArrayLike, *, coverage: float = 0.9) -> float:
    """Give the score that a new image's true class exceeds with a chance of at most 1 − ``coverage``.

    That holds over images drawn as the calibration images were, however good the classifier is. It holds on
    the average over all images, and not for each class: where one class is frequent, sets miss a rare class
    more often.

    The score that results follow is one minus the probability of the class (Sadinle et al. 2019): of all
    rules it gives the smallest sets at a coverage, and a quantile of 1 − 1/K or more leaves no set empty.
    Adaptive sets (Romano et al. 2020) are more even over the classes, but exact only where a random number is
    drawn for every image; without it they hold too many classes, and with it the same image would get another
    set the next time.

    Args:
        scores: of the true classes of N calibration images, ``(N,)``, lower for a better fit.
        coverage: share of images whose true class the sets should hold, above 0 and below 1.

    Returns:
        The ⌈(N + 1) · coverage⌉-th smallest score.

    Raises:
        ValueError: ``coverage`` is out of range, or there are too few images for it.

    Reference:
        M. Sadinle, J. Lei, L. Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels",
        J Am Stat Assoc 2019; V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World",
        2005. Y. Romano, M. Sesia, E. Candès, "Classification with Valid and Adaptive Coverage", NeurIPS 2020.
    """
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}.")
    known = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    rank = math.ceil((known.size + 1) * coverage - 1e-9)
    if rank > known.size:
        needed = math.ceil(coverage / (1.0 - coverage) - 1e-9)
        raise ValueError(f"scores must be of at least {needed} images for {coverage}, got {known.size}.")
    return float(known[rank - 1])
