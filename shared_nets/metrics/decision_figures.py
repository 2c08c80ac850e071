"""The figures of what a lesion classifier decides: sets of classes, labels or none, images called unlike.

Shape letters: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from shared_nets.metrics.bootstrap import WeightedFigure

BoolArray = npt.NDArray[np.bool_]


def answer_figures(
    *, is_beyond: npt.ArrayLike, is_abstained: npt.ArrayLike, reasons: Mapping[str, npt.ArrayLike]
) -> dict[str, WeightedFigure]:
    """Prepare what can be said of answers without knowing the truth.

    Args:
        is_beyond: whether an image is further from the training images than the limit, ``(N,)`` bool.
        is_abstained: whether no label is given, ``(N,)`` bool.
        reasons: whether an image has this reason for none, ``(N,)`` bool, by its name.

    Returns:
        Function of weights ``(N,)`` by name, each NaN where nothing has weight: ``beyond_ood_limit`` and
        ``abstained``, shares of the images; ``abstained_…`` the same for each reason.
    """
    shares = {"beyond_ood_limit": is_beyond, "abstained": is_abstained}
    shares |= {f"abstained_{name}": given for name, given in reasons.items()}
    return {name: _share(np.asarray(given, dtype=bool)) for name, given in shares.items()}


def decision_figures(
    *,
    labels: npt.ArrayLike,
    likely: npt.ArrayLike,
    in_set: npt.ArrayLike,
    is_abstained: npt.ArrayLike,
    class_names: Sequence[str],
    malignant: Sequence[int],
) -> dict[str, WeightedFigure]:
    """Prepare what decisions are worth, as functions of how much each image weighs.

    Args:
        labels: true class of each image, ``(N,)``.
        likely: its most probable class, ``(N,)``.
        in_set: which classes its prediction set holds, ``(N, K)`` bool.
        is_abstained: whether no label is given, ``(N,)`` bool.
        class_names: K names.
        malignant: numbers of the malignant classes.

    Returns:
        Function of weights ``(N,)`` by name, each NaN where it has no image to judge by. ``set_coverage`` is
        the share of images whose set holds the true class, ``set_coverage_…`` that of the images of one
        class, ``set_size`` the mean number of classes, ``set_misses_malignancy`` the share of malignant
        lesions whose set holds no malignant class at all. ``kept_accuracy`` is that of the labels given, and
        ``label_misses_malignancy`` the share of malignant lesions with a label that is benign.

    Raises:
        ValueError: the shapes do not fit.
    """
    label, guess = np.asarray(labels, dtype=np.int64), np.asarray(likely, dtype=np.int64)
    held, silent = np.asarray(in_set, dtype=bool), np.asarray(is_abstained, dtype=bool)
    if held.shape != (label.size, len(class_names)) or not label.shape == guess.shape == silent.shape:
        raise ValueError(
            f"in_set must have shape ({label.size}, {len(class_names)}), and labels, likely and is_abstained "
            f"one number an image, got {held.shape}, {label.shape}, {guess.shape} and {silent.shape}."
        )
    is_held = held[np.arange(label.size), label]  # (N,)
    numbers = list(malignant)
    is_malignant = np.isin(label, numbers)
    sizes = held.sum(axis=1)  # (N,)
    return {
        "set_coverage": _share(is_held),
        **{f"set_coverage_{name}": _share(is_held, label == k) for k, name in enumerate(class_names)},
        "set_size": lambda w: float(np.average(sizes, weights=w)) if w.any() else float("nan"),
        "set_misses_malignancy": _share(held[:, numbers].sum(axis=1) == 0, is_malignant),
        "kept_accuracy": _share(guess == label, ~silent),
        "label_misses_malignancy": _share(~silent & ~np.isin(guess, numbers), is_malignant),
    }


def _share(happened: BoolArray, among: BoolArray | None = None) -> WeightedFigure:
    """Weight of the images on which something happened, of those ``among`` which it could."""
    judged = np.ones_like(happened) if among is None else among

    def figure(weights: npt.NDArray[np.float64]) -> float:
        total = float(weights[judged].sum())
        return float(weights[judged & happened].sum()) / total if total > 0.0 else float("nan")

    return figure
