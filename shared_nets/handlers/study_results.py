"""Write what became of every study, and end the run with the right exit status."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from tqdm import tqdm

from shared_nets.refusals import EXIT_STATUS_REFUSED, InputRefused
from shared_nets.types import CKDResult, StudyOutcome
from shared_nets.writers.atomic_file import write_atomically
from shared_nets.writers.ckd_picture import ckd_picture
from shared_nets.writers.result_json import refusal_as_dict, result_as_dict, to_json_bytes

logger = logging.getLogger(__name__)

RESULT_FILE, PICTURE_FILE, REFUSAL_FILE = "result.json", "picture.png", "refusal.json"


class StudyResults:
    """Handler: after every study write ``result.json`` and ``picture.png``, or ``refusal.json``.

    Args:
        output_dir: results go to ``output_dir/<study_id>/``; without one nothing is written.
        provenance: makes the bundle's part of the provenance, called once when the run starts.
        show_progress: show a progress bar when there are several studies.
        write_picture: also draw the picture.
    """

    def __init__(
        self,
        *,
        output_dir: str | Path | None,
        provenance: Callable[[], Mapping[str, Any]],
        show_progress: bool = True,
        write_picture: bool = True,
    ) -> None:
        self.output_dir = Path(output_dir) if output_dir is not None else None
        self.provenance = provenance
        self.show_progress = show_progress
        self.write_picture = write_picture
        self.outcomes: list[StudyOutcome] = []
        self._bundle: Mapping[str, Any] = {}
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
        built: CKDResult = data["result"]
        result = dataclasses.replace(built, provenance=dataclasses.replace(built.provenance, **self._bundle))
        files: dict[str, str] = {}
        content = to_json_bytes(result_as_dict(result))
        if self.output_dir is not None:
            folder = self.output_dir / result.study_id
            if self.write_picture:
                picture = ckd_picture(result, data.get("picture_slices", ()))
                files["picture"] = str(write_atomically(folder / PICTURE_FILE, picture))
            else:
                (folder / PICTURE_FILE).unlink(missing_ok=True)  # of an earlier run
            # result.json is the sign that the study is done, so it comes last
            files["result"] = str(write_atomically(folder / RESULT_FILE, content))
            (folder / REFUSAL_FILE).unlink(missing_ok=True)
        return StudyOutcome(study_id=result.study_id, result=result, refusal=None, files=files)

    def _refused(self, study_id: str, refusal: InputRefused) -> StudyOutcome:
        files: dict[str, str] = {}
        if self.output_dir is not None:
            folder = self.output_dir / study_id
            content = to_json_bytes(refusal_as_dict(study_id, refusal))
            files["refusal"] = str(write_atomically(folder / REFUSAL_FILE, content))
            for stale in (RESULT_FILE, PICTURE_FILE):
                (folder / stale).unlink(missing_ok=True)
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


def _in_one_line(outcome: StudyOutcome) -> str:
    if outcome.refusal is not None:
        return f"refused, {outcome.refusal}"
    result = outcome.result
    if result is None:
        raise ValueError("outcome must hold a result or a refusal, got neither.")
    if result.creatinine is None or result.egfr is None:
        return f"KDIGO {result.stage}"
    return (
        f"creatinine {result.creatinine.value:.2f} mg/dL "
        f"({result.creatinine.low:.2f}–{result.creatinine.high:.2f}), "
        f"eGFR {result.egfr.value:.0f} ({result.egfr.low:.0f}–{result.egfr.high:.0f}), KDIGO {result.stage}"
    )
