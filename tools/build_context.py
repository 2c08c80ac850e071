"""Make the context file of the TabPFN embedder from a table of features and targets."""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from pathlib import Path

import numpy as np

from shared_nets.nets.tabpfn_context import ClinicalContext, assign_folds, id_digest
from shared_nets.refusals import EXIT_STATUS_REFUSED, InputRefused

_FIX_THE_TABLE = "Correct the table, one row a person, numbers with a point, missing values empty."


def build_context(
    table: str | Path,
    *,
    target: str,
    id_column: str,
    group_column: str | None = None,
    num_folds: int = 5,
    random_state: int = 0,
    origin: str,
    licence: str,
    schema: str | Path | None = None,
) -> tuple[ClinicalContext, int]:
    """Read a CSV table; every column but id, group and target is a feature, in the table's order.

    Args:
        table: path of the CSV file, with a header; an empty cell or ``nan`` is a missing value.
        target: name of the target column; rows without a target are left out.
        id_column: name of the id column; ids are stored as hashes only.
        group_column: name of the column whose equal values must share a fold.
        num_folds: number of folds.
        random_state: another value gives other folds.
        origin: where the rows come from.
        licence: under which licence they may be used.
        schema: the clinical schema that made the columns; its sha256 is recorded.

    Returns:
        The context, and how many rows were left out for want of a target.

    Raises:
        InputRefused: the table is missing, has not the columns, repeats an id or holds what is no number.
    """
    path = Path(table)
    if not path.is_file():
        raise InputRefused(
            "INPUT_NOT_FOUND", f"There is no table {path.name}.", "Give the path of a CSV file."
        )
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        rows = list(reader)
    special = [target, id_column] + ([] if group_column is None else [group_column])
    absent = [name for name in special if name not in columns]
    names = [name for name in columns if name not in special]
    if absent or not names or len(set(columns)) != len(columns):
        raise InputRefused(
            "CLINICAL_UNREADABLE",
            f"{path.name} must have the columns {special} once each and features, got {columns}.",
            "Name the columns in the first line.",
        )
    known = [
        (line, row) for line, row in enumerate(rows, start=2) if not np.isnan(_number(row, target, line))
    ]
    ids = [row[id_column] for _, row in known]
    if len(set(ids)) != len(ids):
        raise InputRefused("CLINICAL_BAD_VALUE", f"{path.name} repeats an id in {id_column}.", _FIX_THE_TABLE)
    members = ids if group_column is None else [row[group_column] for _, row in known]
    if len(set(members)) < num_folds:
        raise InputRefused(
            "CLINICAL_UNREADABLE",
            f"{path.name} has {len(set(members))} people with a target, fewer than the {num_folds} folds.",
            "Give more rows, or fewer --folds.",
        )
    context = ClinicalContext(
        feature_names=tuple(names),
        features=np.array([[_number(row, name, line) for name in names] for line, row in known]),
        targets=np.array([_number(row, target, line) for line, row in known]),
        folds=assign_folds(members, num_folds=num_folds, random_state=random_state),
        id_digests=tuple(id_digest(i) for i in ids),
        target_name=target,
        origin=origin,
        licence=licence,
        schema_sha256="" if schema is None else hashlib.sha256(Path(schema).read_bytes()).hexdigest(),
    )
    return context, len(rows) - len(known)


def main(arguments: list[str] | None = None) -> int:
    """Build the file and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--features", type=Path, required=True, metavar="CSV", help="table with a header line"
    )
    parser.add_argument(
        "--target", required=True, metavar="NAME", help="target column (ln of creatinine in mg/dL)"
    )
    parser.add_argument("--id", required=True, metavar="NAME", help="column of ids; stored as hashes")
    parser.add_argument("--group", metavar="NAME", help="column whose equal values share a fold")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other folds")
    parser.add_argument("--origin", required=True, help="where the rows come from")
    parser.add_argument("--licence", required=True, help="licence of the rows")
    parser.add_argument("--schema", type=Path, metavar="JSON", help="clinical schema; its sha256 is recorded")
    parser.add_argument("--output", type=Path, required=True, metavar="NPZ")
    options = parser.parse_args(arguments)
    try:
        context, num_left_out = build_context(
            options.features,
            target=options.target,
            id_column=options.id,
            group_column=options.group,
            num_folds=options.folds,
            random_state=options.seed,
            origin=options.origin,
            licence=options.licence,
            schema=options.schema,
        )
    except InputRefused as refusal:
        print(refusal, file=sys.stderr)
        return EXIT_STATUS_REFUSED
    context.save(options.output)
    num_rows, num_features = context.features.shape
    print(f"{options.output}: {num_rows} rows, {num_features} features; {num_left_out} rows had no target")
    return 0


def _number(row: dict[str, str], column: str, line: int) -> float:
    text = (row[column] or "").strip()
    try:
        value = float(text or "nan")
    except ValueError:
        value = float("inf")
    if np.isinf(value):
        raise InputRefused(
            "CLINICAL_BAD_VALUE", f"Line {line} holds no finite number in column {column}.", _FIX_THE_TABLE
        )
    return value


if __name__ == "__main__":
    raise SystemExit(main())
