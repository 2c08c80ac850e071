"""Read the table of a lesion data set: wanted columns only, one row an image, nothing about anybody said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from shared_nets.refusals import InputRefused

_AS_PUBLISHED = "Take the table as it was published."


def read_lesion_table(path: Path, types: Mapping[str, str], *, id_column: str) -> pd.DataFrame:
    """Read the wanted columns of a CSV table.

    Args:
        path: of the table.
        types: pandas' type of each wanted column; other columns are not read.
        id_column: which of them names the image.

    Returns:
        The table, in the order of its rows; NaN where a cell is empty or ``NA``.

    Raises:
        InputRefused: ``INPUT_NOT_FOUND``; ``INPUT_EMPTY`` without rows; ``CLINICAL_UNREADABLE`` where it is
            no such table; ``CLINICAL_GIVEN_TWICE`` where an image has no name, or one that another has.
    """
    if not path.is_file():
        raise InputRefused("INPUT_NOT_FOUND", f"There is no {path.name}.", "Give the folder that holds it.")
    try:
        missing = sorted(set(types) - set(pd.read_csv(path, nrows=0).columns))
        if missing:
            raise InputRefused(
                "CLINICAL_UNREADABLE", f"{path.name} lacks the columns {', '.join(missing)}.", _AS_PUBLISHED
            )
        table = pd.read_csv(path, usecols=list(types), dtype=dict(types))
    except ValueError as error:  # pandas quotes the cell, which may be anybody's
        raise InputRefused(
            "CLINICAL_UNREADABLE",
            f"{path.name} is no UTF-8 table of comma-separated values, or holds text where numbers belong.",
            _AS_PUBLISHED,
        ) from error
    if table.empty:
        raise InputRefused("INPUT_EMPTY", f"{path.name} has no rows.", _AS_PUBLISHED)
    if table[id_column].isna().any() or table[id_column].duplicated().any():
        raise InputRefused(
            "CLINICAL_GIVEN_TWICE",
            f"{path.name} has rows with the same {id_column}, or without one.",
            "Keep one row an image.",
        )
    return table
