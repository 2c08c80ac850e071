"""Deal images into folds so that no patient lies in two of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

IntArray = npt.NDArray[np.int64]


def group_numbers(names: Sequence[str | float | None]) -> IntArray:
    """Number the patients (or lesions) that images belong to, so that no name travels further.

    Args:
        names: of N images; ``None``, NaN or an empty string where nobody knows.

    Returns:
        ``(N,)``, from 0 in order of first appearance. Each image without a name gets a number of its own: as
        many patients as there could be. Where two of them show one patient, nothing can tell.
    """
    named = pd.Series(list(names), dtype=object)
    unknown = (named.isna() | (named == "")).to_numpy()
    keys = [("", i) if unknown[i] else (str(name), -1) for i, name in enumerate(named)]
    first: dict[tuple[str, int], int] = {}
    return np.array([first.setdefault(key, len(first)) for key in keys], dtype=np.int64)


def patient_folds(
    labels: npt.ArrayLike, groups: npt.ArrayLike, *, num_folds: int = 5, seed: int = 42
) -> IntArray:
    """Deal images into folds, whole patients at a time, each fold with its share of every class.

    Args:
        labels: class of each image, ``(N,)``.
        groups: number of the patient of each, ``(N,)`` (see :func:`group_numbers`).
        num_folds: number of folds.
        seed: another one deals another way.

    Returns:
        Fold of each image, ``(N,)``, 0 to ``num_folds`` − 1.

    Raises:
        ValueError: the shapes differ, or there are fewer patients than folds.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    if labels.ndim != 1 or labels.shape != groups.shape:
        raise ValueError(f"groups must have the shape of labels {labels.shape}, got {groups.shape}.")
    num_groups = np.unique(groups).size
    if not 2 <= num_folds <= num_groups:
        raise ValueError(f"num_folds must be 2 to the number of patients ({num_groups}), got {num_folds}.")
    folds = np.full(labels.size, -1, dtype=np.int64)
    dealer = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(dealer.split(np.zeros(labels.size), labels, groups)):
        folds[held_out] = fold
    return folds


def quick_subset(
    is_positive: npt.ArrayLike, folds: npt.ArrayLike, *, negatives_per_fold: int, seed: int = 42
) -> IntArray:
    """Choose a small part of a large set for a quick run: every positive, and some negatives of each fold.

    The folds are those of the whole set, so that what a model learned from a part never lies in the fold
    that another run holds out.

    Args:
        is_positive: ``(N,)`` bool.
        folds: ``(N,)``.
        negatives_per_fold: negatives to keep in each fold; fewer where there are fewer.
        seed: of the choice.

    Returns:
        Indices of the chosen images, ascending.

    Raises:
        ValueError: ``negatives_per_fold`` is negative, or the shapes differ.
    """
    is_positive, folds = np.asarray(is_positive, dtype=bool), np.asarray(folds)
    if is_positive.ndim != 1 or is_positive.shape != folds.shape:
        raise ValueError(f"folds must have the shape of is_positive {is_positive.shape}, got {folds.shape}.")
    if negatives_per_fold < 0:
        raise ValueError(f"negatives_per_fold must be at least 0, got {negatives_per_fold}.")
    kept = [np.flatnonzero(is_positive)]
    for fold in np.unique(folds):
        negatives = np.flatnonzero(~is_positive & (folds == fold))
        rng = np.random.default_rng([seed, int(fold)])
        kept.append(rng.choice(negatives, min(negatives_per_fold, negatives.size), replace=False))
    return np.sort(np.concatenate(kept)).astype(np.int64)
