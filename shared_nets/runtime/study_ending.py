"""How a study of a folder of studies ended, read from its files; and what a killed process left of it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shared_nets.handlers.finished_study import FORM_FILES
from shared_nets.handlers.study_results import REFUSAL_FILE, RESULT_FILE

FAILED = "FAILED"
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")  # the temporary names of writers/atomic_file.py


@dataclass(frozen=True, kw_only=True)
class StudyEnding:
    """What became of one study.

    Args:
        study_id: name of the study.
        state: ``done`` with a result, ``refused``, ``failed`` by a defect, or ``waiting``.
        code: of a refusal, or :data:`FAILED`.
        message: what was wrong; of a failure the class of the exception alone.
        remedy: what to do about it.
        sha256: of ``result.json`` or ``refusal.json``.
    """

    study_id: str
    state: Literal["done", "refused", "failed", "waiting"]
    code: str | None = None
    message: str | None = None
    remedy: str | None = None
    sha256: str | None = None

    @property
    def has_file(self) -> bool:
        """Whether the study needs no more work."""
        return self.state in ("done", "refused")


def read_ending(output_dir: Path, study_id: str) -> StudyEnding:
    """Read from a study's folder whether it has a result or was refused.

    Args:
        output_dir: holds one folder a study.
        study_id: name of the study.

    Returns:
        The ending; ``waiting`` where there is neither file, or both because a process was killed between.
    """
    result, refusal = (output_dir / study_id / name for name in (RESULT_FILE, REFUSAL_FILE))
    if result.is_file() == refusal.is_file():
        return StudyEnding(study_id=study_id, state="waiting")
    if result.is_file():
        return StudyEnding(study_id=study_id, state="done", sha256=_sha256(result.read_bytes()))
    content = refusal.read_bytes()
    told: dict[str, Any] = json.loads(content)
    why = {name: told[name] for name in ("code", "message", "remedy")}
    return StudyEnding(study_id=study_id, state="refused", sha256=_sha256(content), **why)


def failed_ending(study_id: str, exception: str) -> StudyEnding:
    """Describe a study that a defect ended.

    Args:
        study_id: name of the study.
        exception: class of the exception; its message could name a patient and is not kept.

    Returns:
        The ending.
    """
    return StudyEnding(
        study_id=study_id,
        state="failed",
        code=FAILED,
        message=f"The study ended in an error of the kind {exception}.",
        remedy="Run the worklist again; if it fails again, report the error with the log of the run.",
    )


def clear_study(output_dir: Path, study_id: str) -> None:
    """Take away what an earlier or a killed run wrote for a study; files of other programs stay.

    Args:
        output_dir: holds one folder a study.
        study_id: name of the study.
    """
    folder = output_dir / study_id
    if not folder.is_dir():
        return
    for name in (RESULT_FILE, REFUSAL_FILE, *FORM_FILES):  # the sign of being done goes first
        (folder / name).unlink(missing_ok=True)
    remove_unfinished(folder)
    if not any(folder.iterdir()):
        folder.rmdir()


def remove_unfinished(folder: Path, name: str | None = None) -> None:
    """Take away the temporary files of writers that were killed.

    Args:
        folder: where they lie.
        name: only those that were to become this file.
    """
    for path in folder.glob(".*"):
        if _UNFINISHED.fullmatch(path.name) and (name is None or path.name[1:-33] == name):
            path.unlink(missing_ok=True)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
