"""ISIC 2024 (SLICE-3D) on disk → items: the image, 40 columns of metadata, the patient's number and fold.

The layout is that of the challenge's download::

    train-metadata.csv      train-image.hdf5 (or train-image/image/ISIC_0015670.jpg …)

Reference:
    N. Kurtansky et al., "The SLICE-3D dataset: 400,000 skin lesion image crops extracted from 3D TBP for skin
    cancer detection", Scientific Data 2024. 401,059 images of 1,042 patients, 393 of them malignant. Data
    licence CC BY-NC 4.0: it binds weights trained on them, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pandas as pd

from shared_nets.data.hdf5_photographs import SEPARATOR
from shared_nets.data.lesion_subgroups import lesion_subgroup
from shared_nets.data.lesion_table import read_lesion_table
from shared_nets.data.patient_folds import group_numbers, patient_folds, quick_subset
from shared_nets.refusals import InputRefused

_TBP = (
    "A", "Aext", "B", "Bext", "C", "Cext", "H", "Hext", "L", "Lext", "areaMM2", "area_perim_ratio",
    "color_std_mean", "deltaA", "deltaB", "deltaL", "deltaLB", "deltaLBnorm", "eccentricity", "minorAxisMM",
    "nevi_confidence", "norm_border", "norm_color", "perimeterMM", "radial_color_std_max", "stdL", "stdLExt",
    "symm_2axis", "symm_2axis_angle", "x", "y", "z",
)  # fmt: skip
NUMBERS = ("age_approx", "clin_size_long_diam_mm", *(f"tbp_lv_{name}" for name in _TBP))
CATEGORIES = (
    "sex", "anatom_site_general", "tbp_tile_type", "tbp_lv_location", "tbp_lv_location_simple", "attribution",
)  # fmt: skip
#: The only columns that become metadata. All others tell the answer (``iddx_…``, ``mel_…``,
#: ``tbp_lv_dnn_lesion_confidence``, which also lacks in the test set) or name somebody.
COLUMNS = NUMBERS + CATEGORIES
CLASS_NAMES = ("benign", "malignant")


class Isic2024(Sequence[dict[str, Any]]):
    """The images as items, built when they are asked for: 400,000 dictionaries would fill the memory.

    An item has ``study_id``, ``image`` (a path, or ``FILE.hdf5#NAME`` for
    :class:`shared_nets.data.hdf5_photographs.Hdf5PhotographReader`), ``clinical`` (raw values by column,
    missing ones left out), ``label`` (1 malignant), ``group`` (number of the patient), ``fold`` and
    ``subgroup``.

    Args:
        folder: see above.
        num_folds: number of folds, dealt over the whole set.
        seed: of the folds, and of the quick subset.
        fold: keep only this fold.
        without_fold: leave out this one.
        negatives_per_fold: keep so many negatives of each fold and all positives; ``None`` keeps everything.

    Raises:
        InputRefused: ``INPUT_NOT_FOUND``, ``INPUT_EMPTY``, or a ``CLINICAL_…`` code for a broken table.
        ValueError: ``num_folds`` does not fit the number of patients.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        num_folds: int = 5,
        seed: int = 42,
        fold: int | None = None,
        without_fold: int | None = None,
        negatives_per_fold: int | None = None,
    ) -> None:
        root = Path(folder)
        self.image_pattern = _image_pattern(root)
        table = _read_table(root / "train-metadata.csv")
        table["group"] = group_numbers(table.pop("patient_id").tolist())
        table["fold"] = patient_folds(table["target"], table["group"], num_folds=num_folds, seed=seed)
        if negatives_per_fold is not None:
            chosen = quick_subset(
                table["target"] == 1, table["fold"], negatives_per_fold=negatives_per_fold, seed=seed
            )
            table = table.iloc[chosen]
        if fold is not None:
            table = table[table["fold"] == fold]
        if without_fold is not None:
            table = table[table["fold"] != without_fold]
        if table.empty:
            raise InputRefused(
                "INPUT_EMPTY",
                f"No image is left for fold {fold} without fold {without_fold}.",
                f"Choose among the folds 0 to {num_folds - 1}.",
            )
        self._names = table["isic_id"].to_numpy(dtype=np.str_)  # (N,)
        self._numbers = table[list(NUMBERS)].to_numpy(dtype=np.float64)  # (N, 34), NaN where missing
        self._codes = np.stack(
            [table[c].cat.codes.to_numpy() for c in CATEGORIES], axis=1
        )  # (N, 6), −1 likewise
        self._words = [[str(word) for word in table[c].cat.categories] for c in CATEGORIES]
        self._known = table[["target", "group", "fold"]].to_numpy(dtype=np.int64)  # (N, 3)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """1 for malignant, ``(N,)``, as the balanced sampler takes it."""
        return self._known[:, 0].copy()

    def __len__(self) -> int:
        """Number of images."""
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Build one item, or those of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        i = range(len(self))[index]
        name, (label, group, fold) = str(self._names[i]), self._known[i].tolist()
        rows = zip(NUMBERS, self._numbers[i].tolist(), strict=True)
        numbers = {column: value for column, value in rows if not math.isnan(value)}
        coded = zip(CATEGORIES, self._words, self._codes[i].tolist(), strict=True)
        words = {column: known[code] for column, known, code in coded if code >= 0}
        return {
            "study_id": name,
            "image": self.image_pattern.format(name),
            "clinical": numbers | words,
            "label": label,
            "group": group,
            "fold": fold,
            "subgroup": lesion_subgroup(
                sex=words.get("sex"),
                age_years=numbers.get("age_approx"),
                site=words.get("anatom_site_general"),
            ),
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Build one item after the other."""
        return (self[i] for i in range(len(self)))


def _image_pattern(root: Path) -> str:
    if (root / "train-image.hdf5").is_file():
        return f"{root / 'train-image.hdf5'}{SEPARATOR}{{}}"
    if (root / "train-image" / "image").is_dir():
        return str(root / "train-image" / "image" / "{}.jpg")
    raise InputRefused(
        "INPUT_NOT_FOUND",
        f"{root.name} holds neither train-image.hdf5 nor train-image/image.",
        "Give the folder of the ISIC 2024 download.",
    )


def _read_table(path: Path) -> pd.DataFrame:
    types = dict.fromkeys(("isic_id", "patient_id"), "str") | dict.fromkeys(CATEGORIES, "category")
    types |= dict.fromkeys(("target", *NUMBERS), "float64")
    table = read_lesion_table(path, types, id_column="isic_id")
    if not table["target"].isin([0, 1]).all():
        raise InputRefused(
            "CLINICAL_BAD_VALUE", f"{path.name} has a target that is neither 0 nor 1.", "Correct the table."
        )
    return table.astype({"target": "int64"})
