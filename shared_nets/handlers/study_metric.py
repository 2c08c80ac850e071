"""A metric over the studies that ended well; refused studies are counted, not measured."""

from __future__ import annotations

import logging
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
        output_path: JSON file for the figures and the number of refused studies; ``None`` writes none.
    """

    def __init__(self, metric_fn: CumulativeIterationMetric, output_path: str | Path | None = None) -> None:
        super().__init__(metric_fn=metric_fn, save_details=False)
        self.output_path = output_path
        self.num_refused = 0

    def reset(self) -> None:
        """Forget what was accumulated."""
        super().reset()
        self.num_refused = 0

    def iteration_completed(self, engine: Engine) -> None:
        """Take one study in, or count its refusal."""
        outputs: Any = engine.state.output
        (output,) = outputs
        if isinstance(output.get("refusal"), InputRefused):
            self.num_refused += 1
        elif output.get("label") is not None:
            pred, label = torch.as_tensor(output["pred"]), torch.as_tensor(output["label"])
            self.update((pred[None].cpu(), label[None].cpu()))

    def compute(self) -> Any:
        """Aggregate, and report every figure that the metric has."""
        result = super().compute()
        if hasattr(self.metric_fn, "figures"):
            metric: _WithFigures = self.metric_fn
            figures = {**metric.figures(), "num_refused": self.num_refused}
            logger.info("%s", figures)
            if self.output_path is not None:
                write_atomically(self.output_path, to_json_bytes(figures))
        return result
