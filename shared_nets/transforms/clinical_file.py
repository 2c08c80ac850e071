"""Clinical values as people store them (JSON object, CSV table, dictionary): read, not yet understood."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared_nets.refusals import InputRefused
from shared_nets.transforms.clinical_schema import plain_name

#: Columns that say whose values these are. They are compared with the study and then left out.
ID_COLUMNS = ("study_id", "case_id", "patient_id", "subject_id", "id")


def read_clinical(
    source: Any, study_id: str | None = None, *, id_columns: Sequence[str] = ID_COLUMNS
) -> dict[str, Any]:
    """Get the values of one study by column name.

    Args:
        source: path of a ``.json`` file with one object; path of a ``.csv`` table with one row, or with
            one row of this ``study_id``; a mapping; or ``None`` for no values.
        study_id: whose values are wanted; ``None`` accepts any.
        id_columns: columns that say whose values these are, in the spelling of :func:`plain_name`.

    Returns:
        What was written under each column name, id columns left out.

    Raises:
        InputRefused: ``INPUT_NOT_FOUND``, ``INPUT_NO_PERMISSION``, ``CLINICAL_UNREADABLE``,
            ``CLINICAL_CASE_NOT_FOUND`` or ``CLINICAL_GIVEN_TWICE``.
    """
    if source is None:
        return {}
    if isinstance(source, Mapping):
        row = _named(list(source.items()))
    elif isinstance(source, str | Path):
        row = _from_file(Path(source), study_id, id_columns)
    else:
        raise _unreadable(f"The clinical values are a {type(source).__name__}.")
    for column in list(row):
        if plain_name(column) in id_columns:
            given = str(row.pop(column)).strip()
            if study_id is not None and given != study_id:
                raise InputRefused(
                    "CLINICAL_CASE_NOT_FOUND",
                    f'"{column}" of the clinical values names another study.',
                    "Give the values of this study, or name the study by the same id.",
                )
    return row


def _from_file(path: Path, study_id: str | None, id_columns: Sequence[str]) -> dict[str, Any]:
    if path.suffix.lower() not in (".json", ".csv"):
        raise _unreadable(f"{path.name} ends neither in .json nor in .csv.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputRefused(
            "INPUT_NOT_FOUND",
            f"There is no file {path.name} with clinical values.",
            "Check the path given as clinical.",
        ) from error
    except PermissionError as error:
        raise InputRefused(
            "INPUT_NO_PERMISSION", f"{path.name} may not be read.", "Change the permissions of the file."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(f"{path.name} is not a UTF-8 text file.") from error
    return (
        _from_json(text, path.name)
        if path.suffix.lower() == ".json"
        else _from_csv(text, path.name, study_id, id_columns)
    )


def _from_json(text: str, name: str) -> dict[str, Any]:
    try:
        content = json.loads(text, object_pairs_hook=_named)
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"{name} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise _unreadable(f"{name} holds a JSON {type(content).__name__} and not one object.")
    return content


def _from_csv(text: str, name: str, study_id: str | None, id_columns: Sequence[str]) -> dict[str, Any]:
    lines = [line for line in text.splitlines() if line.strip(" \t,;")]
    if len(lines) < 2:
        raise _unreadable(f"{name} has no line of column names followed by a line of values.")
    delimiter = max(",;\t", key=lines[0].count)
    try:
        header, *rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    except csv.Error as error:
        raise _unreadable(f"{name} is not a CSV table: {error}.") from error
    ids = [i for i, column in enumerate(header) if plain_name(column) in id_columns]
    if len(rows) > 1:
        if study_id is None or not ids:
            raise InputRefused(
                "CLINICAL_CASE_NOT_FOUND",
                f"{name} has {len(rows)} rows, and nothing says which one is meant.",
                f"Keep one row, or add a column {id_columns[0]} and name the study by its value.",
            )
        rows = [row for row in rows if any(i < len(row) and row[i] == study_id for i in ids[:1])]
        if len(rows) != 1:
            raise InputRefused(
                "CLINICAL_CASE_NOT_FOUND",
                f'{name} has {len(rows) or "no"} rows with the "{header[ids[0]]}" of this study.',
                "Name the study by the id of its row, and keep one row a study.",
            )
    if len(rows[0]) != len(header):
        raise _unreadable(f"{name} has {len(header)} column names and a row with {len(rows[0])} values.")
    return _named(list(zip(header, rows[0], strict=True)))


def _named(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Build a dictionary, and refuse names that occur twice."""
    row: dict[str, Any] = {}
    for name, value in pairs:
        if str(name) in row:
            raise InputRefused(
                "CLINICAL_GIVEN_TWICE", f'"{name}" is given twice.', "Give every clinical value once."
            )
        row[str(name)] = value
    return row


def _unreadable(message: str) -> InputRefused:
    return InputRefused(
        "CLINICAL_UNREADABLE",
        message,
        'Give a JSON object such as {"age": 61, "sex": "female"}, or a CSV table with column names.',
    )
