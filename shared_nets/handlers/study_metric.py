"""A metric over the studies that ended well; refused studies are counted, not measured."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric

from shared_nets.refusals import InputRefused
from shared_nets.writers.atomic_file import write_atomically
from shared_nets.writers.result_json import to_json_bytes

logger = logging.getLogger(__name__)


class _WithFigures(Protocol):
    def figures(self) -> dict[str, Any]: ...


class StudyMetric(IgniteMetricHandler):
    """Accumulate a metric over ``pred`` and ``label`` of every study that has both.

    Args:
        metric_fn: the metric; where it has ``figures()``, they are logged and written.
        output_path: JSON file for the figures and the number of refused studies; ``None`` writes none. A
            figure that so few studies do not determine is ``null``.
    """

    def __init__(self, metric_fn: CumulativeIterationMetric, output_path: str | Path | None = None) -> None:
        super().__init__(metric_fn=metric_fn, save_details=False)
        self.output_path = output_path
        self.num_refused = self.num_measured = 0

    def reset(self) -> None:
        """Forget what was accumulated."""
        super().reset()
        self.num_refused = self.num_measured = 0

    def iteration_completed(self, engine: Engine) -> None:
        """Take one study in, or count its refusal."""
        outputs: Any = engine.state.output
        (output,) = outputs
        if isinstance(output.get("refusal"), InputRefused):
            self.num_refused += 1
        elif output.get("label") is not None:
            pred, label = torch.as_tensor(output["pred"]), torch.as_tensor(output["label"])
            self.update((pred[None].cpu(), label[None].cpu()))
            self.num_measured += 1

    def compute(self) -> Any:
        """Aggregate, and report every figure that the metric has; NaN where every study was refused."""
        if self.num_refused and not self.num_measured:
            logger.warning(
                "none of the studies with an answer was measured; %d were refused.", self.num_refused
            )
            self._write({"num_refused": self.num_refused})
            return math.nan
        result = super().compute()
        if hasattr(self.metric_fn, "figures"):
            metric: _WithFigures = self.metric_fn
            figures = {
                name: None if isinstance(figure, float) and math.isnan(figure) else figure
                for name, figure in metric.figures().items()
            } | {"num_refused": self.num_refused}
            logger.info("%s", figures)
            self._write(figures)
        return result

    def _write(self, figures: dict[str, Any]) -> None:
        if self.output_path is not None:
            write_atomically(self.output_path, to_json_bytes(figures))
