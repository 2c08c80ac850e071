"""HAM10000 on disk → items: dermoscopy images of seven classes, whole lesions to a fold.

The layout is that of the publication: ``HAM10000_metadata.csv`` (or without a suffix), and the JPEG files
``ISIC_0024306.jpg`` … in any folders beside it. It tells lesions apart and not patients, so that a patient
with two lesions may lie in two folds.

Reference:
    P. Tschandl, C. Rosendahl, H. Kittler, "The HAM10000 dataset, a large collection of multi-source
    dermatoscopic images of common pigmented skin lesions", Scientific Data 2018. 10,015 images of 7,470
    lesions. Data licence CC BY-NC 4.0: it binds weights trained on them, too.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from shared_nets.data.lesion_subgroups import lesion_subgroup
from shared_nets.data.lesion_table import read_lesion_table
from shared_nets.data.patient_folds import group_numbers, patient_folds
from shared_nets.refusals import InputRefused

logger = logging.getLogger(__name__)

#: In the order of the labels, which is also that of DermaMNIST.
CLASS_NAMES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MALIGNANT_CLASSES = ("akiec", "bcc", "mel")
#: Columns that become metadata; ``dx_type`` is left out, since only what looks malignant is biopsied.
COLUMNS = ("age", "sex", "localization")
_UNKNOWN = "unknown"


def read_ham10000(folder: str | Path, *, num_folds: int = 5, seed: int = 42) -> list[dict[str, Any]]:
    """List the images whose file is there, ordered by name.

    Args:
        folder: see above.
        num_folds: number of folds; lesions are dealt whole.
        seed: of the folds.

    Returns:
        Items with ``study_id``, ``image`` (a path), ``clinical`` (``age``, ``sex``, ``localization``, unknown
        ones left out), ``label`` (number in :data:`CLASS_NAMES`), ``group`` (number of the lesion), ``fold``
        and ``subgroup``.

    Raises:
        InputRefused: ``INPUT_NOT_FOUND``, ``INPUT_EMPTY``, or a ``CLINICAL_…`` code for a broken table.
        ValueError: ``num_folds`` does not fit the number of lesions.
    """
    root = Path(folder)
    table = _read_table(root)
    files = {path.stem: path for path in sorted(root.rglob("ISIC_*.jpg"))}
    has_file = table["image_id"].isin(list(files))
    if not has_file.all():
        logger.warning(
            "%d of %d images are left out: their file is not there.", (~has_file).sum(), len(table)
        )
    table = table[has_file].sort_values("image_id", ignore_index=True)
    if table.empty:
        raise InputRefused(
            "INPUT_EMPTY", f"{root.name} holds no image.", "Unpack the images beside the table."
        )
    labels = table["dx"].map(CLASS_NAMES.index).to_numpy()
    groups = group_numbers(table["lesion_id"].tolist())
    folds = patient_folds(labels, groups, num_folds=num_folds, seed=seed)
    items = []
    for i, row in enumerate(table.itertuples(index=False)):
        known = {name: getattr(row, name) for name in COLUMNS}
        known = {name: value for name, value in known.items() if not pd.isna(value) and value != _UNKNOWN}
        items.append(
            {
                "study_id": row.image_id,
                "image": str(files[str(row.image_id)]),
                "clinical": known,
                "label": int(labels[i]),
                "group": int(groups[i]),
                "fold": int(folds[i]),
                "subgroup": lesion_subgroup(
                    sex=known.get("sex"), age_years=known.get("age"), site=known.get("localization")
                ),
            }
        )
    return items


def _read_table(root: Path) -> pd.DataFrame:
    path = root / "HAM10000_metadata"
    if not path.is_file():
        path = path.with_suffix(".csv")
    types = {**dict.fromkeys(("lesion_id", "image_id", "dx", "sex", "localization"), "str"), "age": "float64"}
    table = read_lesion_table(path, types, id_column="image_id")
    if not table["dx"].isin(CLASS_NAMES).all():
        raise InputRefused(
            "CLINICAL_BAD_VALUE",
            f"{path.name} has a diagnosis that is none of {', '.join(CLASS_NAMES)}.",
            "Take the table as it was published.",
        )
    return table
