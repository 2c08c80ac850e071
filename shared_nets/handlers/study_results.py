"""Write what became of every study, and end the run with the right exit status."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ignite.engine import Engine, Events
from tqdm import tqdm

from shared_nets.handlers.finished_study import FORM_FILES, FinishedStudy, ResultForm
from shared_nets.refusals import EXIT_STATUS_REFUSED, InputRefused
from shared_nets.types import KidneyMask, StudyOutcome, StudyResult
from shared_nets.writers.atomic_file import write_atomically
from shared_nets.writers.result_json import refusal_as_dict, result_as_dict, to_json_bytes
from shared_nets.writers.result_words import result_in_one_line

logger = logging.getLogger(__name__)

RESULT_FILE, REFUSAL_FILE = "result.json", "refusal.json"


class StudyResults:
    """Handler: after every study write ``result.json`` and its other forms, or ``refusal.json``.

    Args:
        output_dir: results go to ``output_dir/<study_id>/``; without one nothing is written.
        provenance: makes the bundle's part of the provenance, called once when the run starts.
        forms: what is written beside ``result.json``.
        created: when the results are said to have been made, ISO 8601; by default the time that
            ``SOURCE_DATE_EPOCH`` names, or else the start of the run. ``result.json`` does not hold it, so
            that equal input gives equal bytes.
        show_progress: show a progress bar when there are several studies.
    """

    def __init__(
        self,
        *,
        output_dir: str | Path | None,
        provenance: Callable[[], Mapping[str, Any]],
        forms: Sequence[ResultForm] = (),
        created: str | None = None,
        show_progress: bool = True,
    ) -> None:
        self.output_dir = Path(output_dir) if output_dir is not None else None
        self.provenance = provenance
        self.show_progress = show_progress
        self.forms = tuple(forms)
        self.created = created
        self.outcomes: list[StudyOutcome] = []
        self._bundle: Mapping[str, Any] = {}
        self._moment = datetime.now(UTC)
        self._bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Listen to the evaluator."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._study_ended)
        engine.add_event_handler(Events.COMPLETED, self._completed)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._broken)

    def exit_if_refused(self) -> None:
        """End the process with status 3 when any study of the run was refused.

        Raises:
            SystemExit: with status 3.
        """
        if any(outcome.refusal is not None for outcome in self.outcomes):
            sys.exit(EXIT_STATUS_REFUSED)

    def _started(self, engine: Engine) -> None:
        self.outcomes = []
        self._bundle = self.provenance()
        self._moment = moment(self.created)
        total = engine.state.epoch_length
        if self.show_progress and total and total > 1:
            self._bar = tqdm(total=total, unit="study", file=sys.stderr)

    def _study_ended(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        outputs: Any = engine.state.output
        item, output = batch[0], outputs[0]
        study_id = str(output["study_id"])
        refusal = output.get("refusal")
        if isinstance(refusal, InputRefused):
            outcome = self._refused(study_id, refusal)
        else:
            outcome = self._ended_well({**item, **output})
        self.outcomes.append(outcome)
        if self._bar is not None:
            self._bar.update()

    def _ended_well(self, data: Mapping[str, Any]) -> StudyOutcome:
        built: StudyResult = data["result"]
        provenance = dataclasses.replace(built.provenance, **self._bundle)
        result = dataclasses.replace(built, provenance=provenance)
        files: dict[str, str] = {}
        content = to_json_bytes(result_as_dict(result))
        if self.output_dir is not None:
            folder = self.output_dir / result.study_id
            study = FinishedStudy(
                result=result,
                picture_slices=data.get("picture_slices", ()),
                source=data.get("source_image"),
                mask=_named(data.get("kidney_mask"), result),
                photo=_array(data.get("photo")),
                saliency=_array(data.get("saliency")),
                created=self._moment,
            )
            for form in self.forms:
                for name, written in form(study).items():
                    files[name] = str(write_atomically(folder / name, written))
            _remove(folder, [name for name in FORM_FILES if name not in files])  # of an earlier run
            # result.json is the sign that the study is done, so it comes last
            files[RESULT_FILE] = str(write_atomically(folder / RESULT_FILE, content))
            _remove(folder, [REFUSAL_FILE])
        return StudyOutcome(study_id=result.study_id, result=result, refusal=None, files=files)

    def _refused(self, study_id: str, refusal: InputRefused) -> StudyOutcome:
        files: dict[str, str] = {}
        if self.output_dir is not None:
            folder = self.output_dir / study_id
            content = to_json_bytes(refusal_as_dict(study_id, refusal))
            files[REFUSAL_FILE] = str(write_atomically(folder / REFUSAL_FILE, content))
            _remove(folder, [RESULT_FILE, *FORM_FILES])
        return StudyOutcome(study_id=study_id, result=None, refusal=refusal, files=files)

    def _completed(self, engine: Engine) -> None:
        self._close_bar()
        refused = [outcome for outcome in self.outcomes if outcome.refusal is not None]
        for outcome in self.outcomes:
            logger.info("%s: %s", outcome.study_id, _in_one_line(outcome))
        logger.info("%d studies: %d done, %d refused.", len(self.outcomes),
                    len(self.outcomes) - len(refused), len(refused))  # fmt: skip

    def _broken(self, engine: Engine, error: BaseException) -> None:
        self._close_bar()
        raise error

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def moment(created: str | None) -> datetime:
    """Say when results are made.

    Args:
        created: ISO 8601; ``None``: ``SOURCE_DATE_EPOCH``, or else now.

    Returns:
        The moment, to the second, with a time zone (UTC where none was given).

    Raises:
        ValueError: it is no moment.
    """
    if created is None:
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        found = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
    else:
        found = datetime.fromisoformat(created)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).replace(microsecond=0)


def _array(value: Any) -> npt.NDArray[Any] | None:
    return None if value is None else np.asarray(value)


def _named(mask: KidneyMask | None, result: StudyResult) -> KidneyMask | None:
    """Say which bundle drew a mask that the bundle of the result drew itself."""
    if mask is None or mask.algorithm_name:
        return mask
    made_by = result.provenance
    return dataclasses.replace(mask, algorithm_name=made_by.bundle, algorithm_version=made_by.bundle_version)


def _remove(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _in_one_line(outcome: StudyOutcome) -> str:
    if outcome.refusal is not None:
        return f"refused, {outcome.refusal}"
    result = outcome.result
    if result is None:
        raise ValueError("outcome must hold a result or a refusal, got neither.")
    return result_in_one_line(result)
