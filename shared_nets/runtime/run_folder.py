"""The folder ``_worklist`` of a run over many studies: what the run is, who works on it, its records."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from filelock import FileLock, Timeout

from shared_nets.handlers.study_results import moment
from shared_nets.refusals import InputRefused
from shared_nets.runtime.run_fingerprint import canonical_sha256
from shared_nets.runtime.study_ending import remove_unfinished
from shared_nets.writers.atomic_file import write_atomically
from shared_nets.writers.result_json import to_json_bytes

#: No study has this name: those that :mod:`shared_nets.data.studies` gives never start with ``_``.
RUN_FOLDER = "_worklist"
DEFAULT_NUM_THREADS = 1
_LOCK_NAME = re.compile(r"shard-(\d+)-of-(\d+)(\.worker-\d+)?\.lock")
_TURN_S = 600.0
_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of the studies.

    Args:
        index: number of the part, from 1.
        count: how many parts there are.
    """

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"shard must be i/n with 1 ≤ i ≤ n, got {self}.")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``i/n``.

        Raises:
            ValueError: it is not ``i/n`` with 1 ≤ i ≤ n.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None:
            raise ValueError(f"shard must be i/n with 1 ≤ i ≤ n, got {text!r}.")
        return cls(int(found[1]), int(found[2]))

    def part_of(self, sequence: Sequence[_Part]) -> Sequence[_Part]:
        """Take every n-th, so that parts are disjoint, cover all, and differ in size by one at most."""
        return sequence[self.index - 1 :: self.count]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What is the same for every process of a run.

    Args:
        facts: bundle, version, hashes and packages, as
            :func:`shared_nets.runtime.run_fingerprint.describe_run` gives them.
        created: when the results are said to have been made, ISO 8601; ``None`` leaves it to the first
            process, which takes the time of ``SOURCE_DATE_EPOCH`` or its own start.
        num_threads: of each process, since the order of a sum can decide its last bit; ``None``: likewise, 1.
    """

    facts: Mapping[str, Any]
    created: str | None = None
    num_threads: int | None = None


class RunFolder:
    """The files of a run beside the folders of its studies.

    Args:
        output_dir: holds one folder a study; ``_worklist`` is made in it.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = Path(output_dir)
        self.root = self.output_dir / RUN_FOLDER
        self.worklist, self.audit = self.root / "worklist.json", self.root / "audit"
        self.summary, self.quarantine = self.root / "summary.json", self.root / "quarantine.csv"

    def record(self, study_id: str) -> Path:
        """Say where the record of one study lies: what it is made from, and whether it failed."""
        return self.root / "studies" / f"{study_id}.json"

    def read_record(self, study_id: str) -> dict[str, Any] | None:
        """Read ``input_sha256, run_sha256, failed``; ``None`` where the study was never begun."""
        path = self.record(study_id)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def write_record(self, study_id: str, made_from: Mapping[str, str], failed: str | None = None) -> None:
        """Write down what a study is made from and, when it failed, the class of the exception."""
        content = {"study_id": study_id, **made_from, "failed": failed}
        write_atomically(self.record(study_id), to_json_bytes(content))

    def lock_path(self, shard: Shard, worker: int | None = None) -> Path:
        """Say which lock a process holds as long as it works."""
        suffix = "" if worker is None else f".worker-{worker}"
        return self.root / "locks" / f"shard-{shard.index}-of-{shard.count}{suffix}.lock"

    def read(self) -> dict[str, Any] | None:
        """Read ``worklist.json``; ``None`` before the first start."""
        return json.loads(self.worklist.read_text(encoding="utf-8")) if self.worklist.is_file() else None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other process changes the files that all share."""
        path = self.root / "locks" / "turn.lock"
        try:
            with lock_file(path).acquire(timeout=_TURN_S):
                remove_unfinished(self.root)
                yield
        except Timeout as error:
            raise _in_use(f"Another process has held {path.name} for {_TURN_S:.0f} s.") from error

    def enter(
        self, shard: Shard, settings: RunSettings, study_ids: Sequence[str], *, redo: bool = False
    ) -> tuple[FileLock, dict[str, Any]]:
        """Begin or resume the part of a run.

        Args:
            shard: the part.
            settings: what the run shall be.
            study_ids: of all parts, in their order.
            redo: let the run become another one.

        Returns:
            The lock of the part, held until it is released or the process ends, and ``worklist.json``.

        Raises:
            InputRefused: ``WORKLIST_IN_USE`` when another process works on the same studies;
                ``WORKLIST_CHANGED`` when the folder belongs to another run and ``redo`` is false.
        """
        with self.turn():
            lock = lock_file(self.lock_path(shard))
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise _in_use(f"Another process works on shard {shard}.") from error
            try:
                known = self.read()
                wanted = _settle(known, settings, list(study_ids), redo=redo)
                self._check_others(shard, is_same_run=wanted == known)
                if wanted != known:
                    write_atomically(self.worklist, to_json_bytes(wanted))
            except BaseException:
                lock.release()
                raise
        return lock, wanted

    def _check_others(self, shard: Shard, *, is_same_run: bool) -> None:
        """Refuse while others work whose studies overlap with these, or whose run would be another one."""
        for path in sorted((self.root / "locks").glob("shard-*.lock")):
            name = _LOCK_NAME.fullmatch(path.name)
            if name is None or path == self.lock_path(shard):
                continue
            other = Shard(int(name[1]), int(name[2]))
            if is_same_run and other.count == shard.count and other != shard:
                continue
            # workers of a killed process end by themselves, but not at once
            if not _is_free(path, wait_s=30.0 if other == shard else 0.0):
                raise _in_use(f"Another process works on shard {other} of the same folder.")


def lock_file(path: Path) -> FileLock:
    """Make a lock that the system lets go when its process ends, however it ends.

    Args:
        path: the file; its folder is made.

    Returns:
        The lock, not yet acquired. Where the file system has no such locks, acquiring raises
        ``NotImplementedError``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, fallback_to_soft=False)


def _settle(
    known: dict[str, Any] | None, settings: RunSettings, study_ids: list[str], *, redo: bool
) -> dict[str, Any]:
    """Join what a process wants with what the folder says."""
    facts = json.loads(json.dumps(dict(settings.facts)))
    created = settings.created
    if created is not None or "SOURCE_DATE_EPOCH" in os.environ:
        created = moment(created).isoformat()
    run = {"facts": facts, "created": created, "num_threads": settings.num_threads}
    if known is not None:
        if facts == known["run"]["facts"] or not redo:
            run |= {key: known["run"][key] for key in run if run[key] is None}
        differs = [f"its {key}" for key in ("created", "num_threads") if run[key] != known["run"][key]]
        theirs = known["run"]["facts"]
        differs += [f"its {key}" for key in sorted({*facts, *theirs}) if facts.get(key) != theirs.get(key)]
        if study_ids != known["studies"]:
            differs.append("its list of studies")
        if differs and not redo:
            raise InputRefused(
                "WORKLIST_CHANGED",
                f"The output folder belongs to another run: {', '.join(differs)} differ.",
                "Choose another --output_dir, or give --redo to do again what was made otherwise.",
            )
    run["created"] = run["created"] or moment(None).isoformat()
    run["num_threads"] = run["num_threads"] or DEFAULT_NUM_THREADS
    return {"format": 1, "run": run, "run_sha256": canonical_sha256(run), "studies": study_ids}


def _is_free(path: Path, *, wait_s: float) -> bool:
    try:
        with lock_file(path).acquire(timeout=wait_s):
            return True
    except Timeout:
        return False


def _in_use(message: str) -> InputRefused:
    return InputRefused("WORKLIST_IN_USE", message, "Wait until it has ended, or end it.")
