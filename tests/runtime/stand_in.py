"""A runtime without a network, and child processes that run it; children import this file by its name."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path

from shared_nets.refusals import InputRefused
from shared_nets.runtime.run_folder import RUN_FOLDER, RunSettings, Shard
from shared_nets.runtime.worklist import ThisProcess, Worklist
from shared_nets.writers.atomic_file import write_atomically
from shared_nets.writers.result_json import refusal_as_dict, to_json_bytes

FACTS = {"bundle": "stand_in", "bundle_version": "1.0.0", "config_sha256": "c" * 64, "weights_sha256": {}}
CREATED = "2026-01-02T03:04:05+00:00"
PERSON = "DOE^JANE"
_WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


class StandIn:
    """Writes as StudyResults does, the sign of being done last; the study says how it ends."""

    def run(self, studies, *, output_dir):
        (study,) = studies
        study_id, ends = study["study_id"], study.get("ends", "done")
        folder = Path(output_dir) / study_id
        if ends == "refused":
            refusal = InputRefused("MASK_EMPTY", "The mask shows no kidney.", "Check the label set.")
            write_atomically(folder / "refusal.json", to_json_bytes(refusal_as_dict(study_id, refusal)))
            return
        write_atomically(folder / "picture.png", study_id.encode() * 100)
        if ends == "failed":
            raise ZeroDivisionError(f"a defect, met at {PERSON}")
        if ends == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        write_atomically(folder / "report.fhir.json", b"{}")
        if ends != "silent":
            write_atomically(folder / "result.json", to_json_bytes({"study_id": study_id, **study}))


class RefusesToLoad:
    def __init__(self):
        raise InputRefused("WEIGHTS_MISMATCH", "The weights are missing.", "Get the bundle again.")


def make_studies(count, **ends):
    """``s00`` …; ``s01="refused"`` says how one of them ends."""
    names = [f"s{number:02d}" for number in range(count)]
    return [{"study_id": name, "ends": ends.get(name, "done")} for name in names]


def run_shard(studies, output_dir, *, shard="1/1", make_runtime=StandIn, redo=False, **settings):
    worklist = Worklist(
        studies,
        output_dir=output_dir,
        settings=RunSettings(**{"facts": FACTS, "created": CREATED, **settings}),
        shard=Shard.parse(shard),
        redo=redo,
        show_progress=False,
    )
    return worklist.run(lambda run: ThisProcess(make_runtime, Path(output_dir), run["num_threads"]))


def tree(output_dir):
    """Give the content of every file that must not depend on who did what when."""
    files = [path.relative_to(output_dir) for path in sorted(Path(output_dir).rglob("*")) if path.is_file()]
    private = [Path(RUN_FOLDER) / name for name in ("audit", "locks")]
    return {file.as_posix(): (output_dir / file).read_bytes() for file in files if file.parent not in private}


def child(connection, studies, output_dir, kill_before=None, **options):
    """Say that the run begins, run, and say how many times the disk was changed.

    ``kill_before=n`` kills this process before it changes the disk for the n-th time.
    """
    counter = itertools.count(1)
    changes = 0

    def hook(event, arguments):
        nonlocal changes
        opened = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event not in _WRITES and not (opened and str(arguments[0]).startswith(str(output_dir))):
            return
        changes = next(counter)
        if changes == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    connection.send("begins")
    sys.addaudithook(hook)
    run_shard(studies, output_dir, **options)
    connection.send(changes)
