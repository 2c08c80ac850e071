"""Keep the curve of a training: loss and validation figures of every epoch, as a table and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.engines import Evaluator

from shared_nets.writers.atomic_file import write_atomically


class TrainingCurve:
    """Handler: write ``training_curve.csv`` and ``training_curve.png`` after every epoch.

    Give it to ``train::handlers`` after the handler that validates, and to ``TrainingState`` as a part:
    a resumed training keeps the epochs before. Of several processes the first one writes, its own loss.

    Args:
        output_dir: folder of both files.
        validator: its metrics join the row of the epoch in which it ran; ``None`` for the loss alone.
    """

    def __init__(self, output_dir: str | Path, validator: Evaluator | None = None) -> None:
        self.output_dir = Path(output_dir)
        self.validator = validator
        self.rows: list[dict[str, float]] = []
        self._losses: list[float] = []
        self._figures: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer, and to the validator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)
        if self.validator is not None:
            self.validator.add_event_handler(Events.COMPLETED, self._validated)

    def state_dict(self) -> dict[str, Any]:
        """Give the rows so far."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after these rows."""
        self.rows = [dict(row) for row in state["rows"]]

    def _start(self) -> None:
        self._losses, self._figures = [], {}

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        self._losses.append(float(output[0]["loss"]))

    def _validated(self, validator: Engine) -> None:
        self._figures = {name: float(value) for name, value in validator.state.metrics.items()}

    def _write(self, engine: Engine) -> None:
        loss = sum(self._losses) / len(self._losses)
        self.rows.append({"epoch": engine.state.epoch, "loss": loss, **self._figures})
        if dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
            return
        write_atomically(self.output_dir / "training_curve.csv", curve_table(self.rows).encode())
        write_atomically(self.output_dir / "training_curve.png", curve_picture(self.rows))


def curve_table(rows: list[dict[str, float]]) -> str:
    """Write a curve as CSV: one row an epoch, an empty cell where nothing was validated.

    Args:
        rows: ``epoch``, ``loss`` and the validation figures by name.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: value if name == "epoch" else f"{value:.6g}" for name, value in row.items()} for row in rows
    )
    return table.getvalue()


def curve_picture(rows: list[dict[str, float]]) -> bytes:
    """Draw a curve: the loss on the left axis, validation figures on the right one.

    Args:
        rows: as :func:`curve_table` takes them.

    Returns:
        A PNG, 800 × 450 pixels.
    """
    figure = Figure(figsize=(8.0, 4.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    lines = axes.plot(
        [row["epoch"] for row in rows], [row["loss"] for row in rows], "k-", label="training loss"
    )
    axes.set(xlabel="epoch", ylabel="training loss")
    figures = _columns(rows)[2:]
    if figures:
        other = axes.twinx()
        other.set_ylabel("validation")
        for number, name in enumerate(figures):
            seen = [row for row in rows if name in row]
            lines += other.plot(
                [row["epoch"] for row in seen],
                [row[name] for row in seen],
                f"C{number}o-",
                label=f"{name}, validation",
            )
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines))
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _columns(rows: list[dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(["epoch", "loss", *(name for row in rows for name in row)]))
