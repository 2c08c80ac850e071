"""Fit the numbers that decide which classes a prediction set holds, one for each class.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

#: A score is a probability that is missing to certainty, so at this quantile a class is in every set.
ALWAYS_IN_SET = 1.0


def conformal_quantiles(
    scores: npt.ArrayLike, labels: npt.ArrayLike, *, num_classes: int, coverage: float = 0.9
) -> tuple[float, ...]:
    """Give each class the score that a new image of it exceeds with a chance of at most 1 − ``coverage``.

    What is promised: of the images of a class, on the average over draws of calibration and new images, at
    least ``coverage`` have that class in their set. It holds for each class by itself, however good the
    classifier is and however frequent the classes are where it is used, as long as images *of one class* are
    like those of the calibration (exchangeable). It is not promised for one given calibration, whose
    coverage varies the more the fewer images a class has, nor for a part of a class (the thin melanomas).

    A quantile over all images at once would promise the average over the classes only: where one class is
    frequent and easy, the sets then miss the rare and grave ones far more often.

    The score that results follow is one minus the probability of the class. Adaptive sets (Romano et al.
    2020) are exact only where a random number is drawn for every image: the same image would get another set
    the next time.

    Args:
        scores: of the true classes of the calibration images, 0 to 1, ``(N,)``, lower for a better fit.
        labels: true class of each, ``(N,)``.
        num_classes: K.
        coverage: share of the images of each class whose sets should hold it, above 0 and below 1.

    Returns:
        K quantiles: of n images of a class the ⌈(n + 1) · coverage⌉-th smallest score, and
        :data:`ALWAYS_IN_SET` where there are too few for that: nothing is known then that would allow to
        leave the class out.

    Raises:
        ValueError: ``coverage`` is out of range, the shapes differ, or a label is none of the classes.

    Reference:
        V. Vovk, "Conditional Validity of Inductive Conformal Predictors", Machine Learning 2013, section 2
        (label conditional); M. Sadinle, J. Lei, L. Wasserman, "Least Ambiguous Set-Valued Classifiers with
        Bounded Error Levels", J Am Stat Assoc 2019 (class-specific coverage). Y. Romano, M. Sesia,
        E. Candès, "Classification with Valid and Adaptive Coverage", NeurIPS 2020.
    """
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}.")
    known, label = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if known.ndim != 1 or known.shape != label.shape:
        raise ValueError(f"labels must have the shape of scores {known.shape}, got {label.shape}.")
    if label.size and not 0 <= label.min() <= label.max() < num_classes:
        raise ValueError(
            f"labels must lie between 0 and {num_classes - 1}, got {label.min()}, {label.max()}."
        )
    return tuple(_quantile(np.sort(known[label == k]), coverage) for k in range(num_classes))


def _quantile(rising: npt.NDArray[np.float64], coverage: float) -> float:
    rank = math.ceil((rising.size + 1) * coverage - 1e-9)
    return float(rising[rank - 1]) if rank <= rising.size else ALWAYS_IN_SET
