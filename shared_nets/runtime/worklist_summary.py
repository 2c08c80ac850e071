"""``summary.json`` and ``quarantine.csv`` of a run over many studies, derived from the studies' files."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import asdict
from typing import Any

from shared_nets.refusals import InputRefused
from shared_nets.runtime.run_folder import RunFolder
from shared_nets.runtime.study_ending import StudyEnding, failed_ending, read_ending
from shared_nets.types import RESEARCH_USE_ONLY
from shared_nets.writers.atomic_file import write_atomically
from shared_nets.writers.result_json import to_json_bytes

_COLUMNS = ("study_id", "code", "message", "remedy")


def write_summary(folder: RunFolder) -> dict[str, Any]:
    """Write both files anew; whichever process ends last has written the whole.

    They say nothing of who did what when, so that any number of shards leaves the same bytes.

    Args:
        folder: the run.

    Returns:
        The content of ``summary.json``.

    Raises:
        InputRefused: ``INPUT_NOT_FOUND`` where no run has begun.
    """
    with folder.turn():
        worklist = folder.read()
        if worklist is None:
            raise InputRefused(
                "INPUT_NOT_FOUND",
                "There is no worklist.json in the output folder.",
                "Name the --output_dir of a run that has begun.",
            )
        endings = [_ending_of(folder, study_id, worklist["run_sha256"]) for study_id in worklist["studies"]]
        quarantine = [
            {name: asdict(ending)[name] for name in _COLUMNS}
            for ending in endings
            if ending.state in ("refused", "failed")
        ]
        states = Counter(ending.state for ending in endings)
        codes = Counter(row["code"] for row in quarantine)
        content = {
            "run": worklist["run"],
            "run_sha256": worklist["run_sha256"],
            "num_studies": len(endings),
            **{state: states[state] for state in ("done", "refused", "failed", "waiting")},
            "codes": dict(sorted(codes.items())),
            "quarantine": quarantine,
            "notice": RESEARCH_USE_ONLY,
        }
        text = io.StringIO()
        table = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(quarantine)
        write_atomically(folder.quarantine, text.getvalue().encode())
        write_atomically(folder.summary, to_json_bytes(content))
    return content


def _ending_of(folder: RunFolder, study_id: str, run_sha256: str) -> StudyEnding:
    """Read how a study ended in this run; what an earlier one left there still waits to be done again."""
    record = folder.read_record(study_id)
    if record is None or record["run_sha256"] != run_sha256:
        return StudyEnding(study_id=study_id, state="waiting")
    ending = read_ending(folder.output_dir, study_id)
    if ending.has_file or record["failed"] is None:
        return ending
    return failed_ending(study_id, record["failed"])
