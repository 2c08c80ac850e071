"""Run a bundle on many studies so that a process may be killed at any moment and started again.

A study passes through four steps, and a process may die before, in or after each of them:

1. what an earlier process left of it is taken away, and its record says what it will be made from;
2. the audit log says that it has started;
3. the bundle writes its files, ``result.json`` or ``refusal.json`` last;
4. the audit log says how it ended.

A study whose last file is there is done; all others begin again at step 1. Where only step 4 is missing, it
is made up for. A study that was begun and did not end goes to the end of the queue, so that one that takes
its process down with it keeps no other from being done.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from shared_nets.refusals import InputRefused
from shared_nets.runtime.audit_log import AuditLog, read_events
from shared_nets.runtime.run_fingerprint import input_sha256
from shared_nets.runtime.run_folder import RunFolder, RunSettings, Shard
from shared_nets.runtime.study_ending import (
    StudyEnding,
    clear_study,
    failed_ending,
    read_ending,
    remove_unfinished,
)
from shared_nets.runtime.worklist_summary import write_summary

logger = logging.getLogger(__name__)

_STUDY_ID = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._-]*")
_EVENTS = {"done": "finished", "refused": "refused", "failed": "failed"}


class StudyRuntime(Protocol):
    """What runs a study, such as :class:`shared_nets.runtime.bundle.BundleRuntime`."""

    def run(self, studies: Sequence[Mapping[str, Any]], *, output_dir: Path) -> Any:
        """Write ``output_dir/<study_id>/``, with ``result.json`` or ``refusal.json`` as the last file."""
        ...


class Workers(Protocol):
    """One or more places where studies are run, one each at a time."""

    size: int

    def submit(self, study: Mapping[str, Any]) -> None:
        """Give a study to a free place; there must be one."""
        ...

    def next_attempt(self) -> Attempt:
        """Wait for the next study to end."""
        ...

    def close(self) -> None:
        """Let the places go."""
        ...


#: Makes the workers from ``{"facts", "created", "num_threads"}`` of the run; called only when there is work.
MakeWorkers = Callable[[Mapping[str, Any]], Workers]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What a worker reports of a study.

    Args:
        ending: how it ended, as the worker saw the files.
        exception: class of the exception that a defect raised.
        seconds: how long it took.
    """

    ending: StudyEnding
    exception: str | None
    seconds: float


class ThisProcess:
    """Run the studies in this process, one after the other.

    Args:
        make_runtime: loads the bundle, once.
        output_dir: holds one folder a study.
        num_threads: of PyTorch.
    """

    size = 1

    def __init__(self, make_runtime: Callable[[], StudyRuntime], output_dir: Path, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._runtime, self._output_dir = make_runtime(), output_dir
        self._given: deque[Mapping[str, Any]] = deque()

    def submit(self, study: Mapping[str, Any]) -> None:
        """Keep the study until its turn."""
        self._given.append(study)

    def next_attempt(self) -> Attempt:
        """Run it."""
        return attempt_study(self._runtime, self._given.popleft(), self._output_dir)

    def close(self) -> None:
        """Do nothing; the model goes with the process."""


def attempt_study(runtime: StudyRuntime, study: Mapping[str, Any], output_dir: Path) -> Attempt:
    """Run one study; a defect ends the study, not the run.

    Args:
        runtime: runs it.
        study: the item.
        output_dir: holds one folder a study.

    Returns:
        What became of it. After a defect its folder holds no half results.
    """
    study_id, start = str(study["study_id"]), time.perf_counter()
    exception = None
    try:
        runtime.run([study], output_dir=output_dir)
        ending = read_ending(output_dir, study_id)
        if not ending.has_file:
            raise FileNotFoundError("the bundle must write a result or a refusal, and wrote neither.")
    except Exception as error:
        exception = _log_defect(study_id, error)
        clear_study(output_dir, study_id)
        ending = failed_ending(study_id, exception)
    return Attempt(ending=ending, exception=exception, seconds=time.perf_counter() - start)


class Worklist:
    """One shard of a run over many studies.

    Args:
        studies: of all shards, as :func:`shared_nets.data.studies.list_studies` gives them.
        output_dir: results go to ``output_dir/<study_id>/``, the rest to ``output_dir/_worklist/``.
        settings: what is the same for every process of the run.
        shard: the part of the studies that this process does.
        redo: do again the studies that were made from other input or in another run, rather than refuse.
        show_progress: show a progress bar on standard error.
    """

    def __init__(
        self,
        studies: Sequence[Mapping[str, Any]],
        *,
        output_dir: str | Path,
        settings: RunSettings,
        shard: Shard | None = None,
        redo: bool = False,
        show_progress: bool = True,
    ) -> None:
        counts = Counter(str(study["study_id"]) for study in studies)
        wrong = [name for name in counts if _STUDY_ID.fullmatch(name) is None or counts[name] > 1]
        if wrong:
            raise ValueError(f"study_id must be a folder name of its own, got {wrong[:5]}.")
        self.folder = RunFolder(output_dir)
        self.settings, self.shard, self.redo = settings, shard or Shard(), redo
        self.studies = sorted((dict(study) for study in studies), key=lambda study: study["study_id"])
        self.show_progress = show_progress
        self._made_from: dict[str, dict[str, str]] = {}

    def run(self, make_workers: MakeWorkers) -> list[StudyEnding]:
        """Do what is not yet done of this shard.

        Args:
            make_workers: makes what runs the studies.

        Returns:
            How every study of the shard ended, now or in an earlier run, in the order of their names.

        Raises:
            InputRefused: the run as a whole cannot be: ``WORKLIST_IN_USE``, ``WORKLIST_CHANGED``, or what
                loading the bundle raises.
        """
        with ExitStack() as stack:
            study_ids = [study["study_id"] for study in self.studies]
            lock, worklist = self.folder.enter(self.shard, self.settings, study_ids, redo=self.redo)
            stack.callback(lock.release)
            mine = self.shard.part_of(self.studies)
            run_sha256 = worklist["run_sha256"]
            self._made_from = {
                study["study_id"]: {"input_sha256": input_sha256(study), "run_sha256": run_sha256}
                for study in mine
            }
            endings = self._already_done()
            waiting = self._waiting([study for study in mine if study["study_id"] not in endings])
            audit = self._open_audit(worklist["run"]["facts"], endings)
            if waiting:
                workers = make_workers(worklist["run"])
                stack.callback(workers.close)
                bar = stack.enter_context(self._progress_bar(len(mine), len(endings)))
                for ending in self._work(workers, waiting, audit):
                    endings[ending.study_id] = ending
                    bar.update()
        write_summary(self.folder)
        return [endings[study["study_id"]] for study in mine]

    def _already_done(self) -> dict[str, StudyEnding]:
        """Find the studies with a result or a refusal; refuse those that were made otherwise."""
        done, otherwise = {}, []
        for study_id, made_from in self._made_from.items():
            ending = read_ending(self.folder.output_dir, study_id)
            if ending.has_file:
                if _is_made_from(self.folder.read_record(study_id), made_from):
                    done[study_id] = ending
                else:
                    otherwise.append(study_id)
        if otherwise and not self.redo:
            raise InputRefused(
                "WORKLIST_CHANGED",
                f"{len(otherwise)} studies were made from other input or by another run: "
                f"{', '.join(otherwise[:5])}{', …' if len(otherwise) > 5 else ''}.",
                "Choose another --output_dir, or give --redo to do these studies again.",
            )
        return done

    def _waiting(self, studies: Sequence[dict[str, Any]]) -> deque[dict[str, Any]]:
        """Queue the studies; those that were begun before and did not end come last."""
        begun = [_is_made_from(self.folder.read_record(s["study_id"]), self._made_from[s["study_id"]])
                 for s in studies]  # fmt: skip
        order = sorted(range(len(studies)), key=lambda index: begun[index])
        return deque(studies[index] for index in order)

    def _open_audit(self, facts: Mapping[str, Any], endings: Mapping[str, StudyEnding]) -> AuditLog:
        """Open the log, and write the ends that a killed process could no longer write."""
        known = {
            (event["study_id"], event["input_sha256"], event["run_sha256"], event["sha256"])
            for event in read_events(self.folder.audit)
            if event["event"] in _EVENTS.values()
        }
        common = {key: facts[key] for key in ("bundle", "bundle_version", "config_sha256")}
        name = f"shard-{self.shard.index}-of-{self.shard.count}.jsonl"
        audit = AuditLog(self.folder.audit / name, common={**common, "shard": str(self.shard)})
        for study_id, ending in endings.items():
            if (study_id, *self._made_from[study_id].values(), ending.sha256) not in known:
                self._log_end(audit, ending)
        return audit

    def _work(
        self, workers: Workers, waiting: deque[dict[str, Any]], audit: AuditLog
    ) -> Iterator[StudyEnding]:
        """Keep every worker busy; give each study's ending once it is written down."""
        running = 0
        while waiting or running:
            while waiting and running < workers.size:
                study = waiting.popleft()
                self._begin(study["study_id"], audit)
                workers.submit(study)
                running += 1
            attempt = workers.next_attempt()
            running -= 1
            ending = attempt.ending
            if attempt.exception is not None:
                made_from = self._made_from[ending.study_id]
                self.folder.write_record(ending.study_id, made_from, failed=attempt.exception)
            self._log_end(audit, ending, exception=attempt.exception, seconds=round(attempt.seconds, 3))
            yield ending

    def _begin(self, study_id: str, audit: AuditLog) -> None:
        clear_study(self.folder.output_dir, study_id)
        record = self.folder.record(study_id)
        remove_unfinished(record.parent, record.name)
        made_from = self._made_from[study_id]
        self.folder.write_record(study_id, made_from)
        audit.append("started", study_id=study_id, **made_from)

    def _log_end(
        self,
        audit: AuditLog,
        ending: StudyEnding,
        *,
        exception: str | None = None,
        seconds: float | None = None,
    ) -> None:
        audit.append(
            _EVENTS[ending.state],
            study_id=ending.study_id,
            **self._made_from[ending.study_id],
            code=ending.code,
            exception=exception,
            sha256=ending.sha256,
            seconds=seconds,
        )

    def _progress_bar(self, total: int, done: int) -> tqdm:
        return tqdm(
            total=total,
            initial=done,
            desc=f"shard {self.shard}",
            unit="study",
            file=sys.stderr,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,  # a log file needs no line each second
            disable=not self.show_progress,
        )


def _is_made_from(record: Mapping[str, Any] | None, made_from: Mapping[str, str]) -> bool:
    return record is not None and all(record[key] == value for key, value in made_from.items())


def _log_defect(study_id: str, error: BaseException) -> str:
    """Log where an error came from without its message, which could name a patient; return its class."""
    while error.__cause__ is not None:  # MONAI wraps what a transform raises
        error = error.__cause__
    name = type(error).__name__
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed: %s\n%s", study_id, name, frames)
    return name
