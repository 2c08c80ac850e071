"""The rows of known people against which a clinical row is read: their values, targets, folds and origin.

Shape letters: N context rows, F features.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared_nets.refusals import InputRefused

FloatArray = npt.NDArray[np.float64]
_FORMAT = "clinical-context-1"
_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error)
_REMEDY = "Make the file with tools/build_context.py."


@dataclass(frozen=True, kw_only=True, eq=False)
class ClinicalContext:
    """Context rows of an in-context tabular network.

    Args:
        feature_names: names of the columns, in order.
        features: ``(N, F)``, NaN where missing.
        targets: ``(N,)``, finite.
        folds: ``(N,)``; a row is embedded by the rows of the other folds.
        id_digests: :func:`id_digest` of each row's id; empty when rows have none.
        target_name: what the targets are, unit included.
        origin: where the rows come from.
        licence: under which licence they may be used.
        schema_sha256: sha256 of the clinical schema that made the columns; empty when unknown.
    """

    feature_names: tuple[str, ...]
    features: FloatArray
    targets: FloatArray
    folds: npt.NDArray[np.int64]
    id_digests: tuple[str, ...] = ()
    target_name: str = ""
    origin: str = ""
    licence: str = ""
    schema_sha256: str = ""

    def __post_init__(self) -> None:
        num_rows = len(self.targets)
        if self.features.shape != (num_rows, len(self.feature_names)) or num_rows < 2:
            raise ValueError(
                "features must have one row a target and one column a name, and at least two rows, "
                f"got {self.features.shape} for {num_rows} targets and {len(self.feature_names)} names."
            )
        if np.isinf(self.features).any() or not np.isfinite(self.targets).all():
            raise ValueError(
                "features must be finite or NaN and targets finite, got infinite or missing values."
            )
        if self.folds.shape != (num_rows,) or len(np.unique(self.folds)) < 2:
            raise ValueError(
                f"folds must give each row one of at least two folds, got {np.unique(self.folds)}."
            )
        if self.id_digests and len(set(self.id_digests)) != num_rows:
            raise ValueError("ids must be one a row and all different, got repeated or missing ones.")

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` that loads without pickle; the same context gives the same bytes."""
        about = {
            "format": _FORMAT,
            "target_name": self.target_name,
            "origin": self.origin,
            "licence": self.licence,
            "schema_sha256": self.schema_sha256,
            "columns_sha256": columns_sha256(self.feature_names),
        }
        arrays = {
            "about": np.array(json.dumps(about, sort_keys=True)),
            "feature_names": np.array(self.feature_names, dtype=np.str_),
            "features": self.features,
            "targets": self.targets,
            "folds": self.folds,
            "id_digests": np.array(self.id_digests, dtype=np.str_),
        }
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
                for key, array in arrays.items():
                    about_entry = zipfile.ZipInfo(f"{key}.npy")  # dated 1980, whenever it is written
                    about_entry.compress_type = zipfile.ZIP_DEFLATED
                    with archive.open(about_entry, "w") as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            Path(name).chmod(0o644)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | Path) -> ClinicalContext:
        """Read what :meth:`save` wrote.

        Raises:
            InputRefused: the file is missing (``INPUT_NOT_FOUND``) or not a context (``INPUT_UNREADABLE``).
        """
        name = Path(path).name
        if not Path(path).is_file():
            raise InputRefused("INPUT_NOT_FOUND", f"There is no context file {name}.", _REMEDY)
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                names = tuple(str(n) for n in file["feature_names"])
                if about["format"] != _FORMAT or about["columns_sha256"] != columns_sha256(names):
                    raise ValueError("its format or its column names are not the recorded ones.")
                return cls(
                    feature_names=names,
                    features=file["features"].astype(np.float64),
                    targets=file["targets"].astype(np.float64),
                    folds=file["folds"].astype(np.int64),
                    id_digests=tuple(str(i) for i in file["id_digests"]),
                    target_name=about["target_name"],
                    origin=about["origin"],
                    licence=about["licence"],
                    schema_sha256=about["schema_sha256"],
                )
        except _DAMAGE as error:
            raise InputRefused(
                "INPUT_UNREADABLE", f"{name} is not a context file: {error}", _REMEDY
            ) from error


def columns_sha256(feature_names: Sequence[str]) -> str:
    """Hash the column names in their order, so that another order is noticed."""
    return hashlib.sha256(json.dumps(list(feature_names)).encode()).hexdigest()


def id_digest(identifier: str) -> str:
    """Hash an id, so that a context file names no patient in clear text."""
    return hashlib.sha256(identifier.encode()).hexdigest()


def assign_folds(members: Sequence[Hashable], *, num_folds: int, random_state: int) -> npt.NDArray[np.int64]:
    """Spread rows evenly over folds by a hash of what they are called, never of what they hold.

    Args:
        members: one a row: its id, its group (rows of a group share a fold) or its number.
        num_folds: how many folds.
        random_state: another value gives other folds.

    Returns:
        Fold of each row, ``(N,)`` int64, from 0.

    Raises:
        ValueError: fewer than two folds, or fewer different members than folds.
    """
    if num_folds < 2:
        raise ValueError(f"num_folds must be at least 2, got {num_folds}.")
    different = sorted({str(m) for m in members}, key=lambda m: id_digest(f"{random_state}:{m}"))
    if len(different) < num_folds:
        raise ValueError(
            f"members must be at least num_folds={num_folds} different ones, got {len(different)}."
        )
    fold_of = {member: rank % num_folds for rank, member in enumerate(different)}
    return np.array([fold_of[str(m)] for m in members], dtype=np.int64)
