"""Measure a lesion classifier with its calibration on labelled images: what it answers, and what it decides.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from shared_nets.metrics.bootstrap import weighted_figures_with_intervals
from shared_nets.metrics.decision_figures import answer_figures, decision_figures
from shared_nets.metrics.lesion_metric import GROUP, LesionMetric
from shared_nets.refusals import InputRefused
from shared_nets.transforms.lesion_calibration import class_logits
from shared_nets.types import LesionResult
from shared_nets.writers.atomic_file import write_atomically
from shared_nets.writers.result_json import to_json_bytes

logger = logging.getLogger(__name__)

_BEYOND = "ABSTAIN_OUT_OF_DISTRIBUTION"
#: Why no label may be given: what its figure is called, and the code in the result.
REASONS = {
    "low_confidence": "ABSTAIN_LOW_CONFIDENCE",
    "out_of_distribution": _BEYOND,
    "image_quality": "ABSTAIN_IMAGE_QUALITY",
}


class LesionEvaluation:
    """Handler: write the figures of a run as JSON once its evaluator has ended.

    Reads ``pred``, ``label`` (a class, or the target that :class:`LesionMetric` takes) and the frozen
    ``result`` of every study. The file has ``uncalibrated`` and ``calibrated``, the figures of
    :class:`LesionMetric` before and after the temperature, and ``decisions``, those of
    :mod:`shared_nets.metrics.decision_figures`, each with the ends of its interval. Images without a label
    count where no truth is needed; where no image has one, ``decisions`` are all there is. A figure that the
    images do not determine is ``null``.

    Args:
        class_names: of the logits, in their order.
        malignant_classes: which of them are malignant.
        temperature: of the calibration that the results were made with.
        output_path: of the JSON file; ``None`` writes none, and :meth:`figures` gives them.
        settings: written to the file as they are, so that it says what was measured.
        provenance: gives what else says so, :class:`shared_nets.runtime.provenance.BundleProvenance`.
        subgroups: see :class:`LesionMetric`.
        num_draws: draws of the bootstrap over patients; 0 leaves the intervals out.
        level: share of draws inside an interval.
        seed: of the draws.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        malignant_classes: Sequence[str],
        temperature: float,
        output_path: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        provenance: Callable[[], Mapping[str, Any]] | None = None,
        subgroups: Mapping[str, Sequence[str]] | None = None,
        num_draws: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> None:
        self.class_names = tuple(class_names)
        self.malignant = [self.class_names.index(name) for name in malignant_classes]
        self.output_path = Path(output_path) if output_path is not None else None
        self.settings = dict(settings or {})
        self.provenance = provenance
        self.num_draws, self.level, self.seed = num_draws, level, seed
        self.metrics = {
            name: LesionMetric(
                class_names=class_names, malignant_classes=malignant_classes, temperature=heat,
                subgroups=subgroups, num_draws=num_draws, level=level, seed=seed,
            )
            for name, heat in {"uncalibrated": 1.0, "calibrated": temperature}.items()
        }  # fmt: skip
        self._results: list[LesionResult] = []
        self._labelled: list[tuple[LesionResult, torch.Tensor, torch.Tensor]] = []
        self.num_refused = 0

    def attach(self, engine: Engine) -> None:
        """Listen to the evaluator."""
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._take)
        engine.add_event_handler(Events.COMPLETED, self._completed)

    def figures(self) -> dict[str, Any]:
        """Give everything that the file holds.

        Raises:
            ValueError: the evaluator has seen no image that was not refused.
        """
        if not self._results:
            raise ValueError(
                f"the evaluator must have seen images, got {self.num_refused} refused ones only."
            )
        out: dict[str, Any] = {
            "num_images": len(self._results),
            "num_labelled": len(self._labelled),
            "num_refused": self.num_refused,
            "settings": self.settings,
            "provenance": dict(self.provenance()) if self.provenance is not None else {},
            "intervals": {"level": self.level, "draws": self.num_draws, "seed": self.seed},
        }
        if self._labelled:
            logits = torch.stack([pred for _, pred, _ in self._labelled])  # (N, K)
            target = torch.stack([label for _, _, label in self._labelled])  # (N, 1) or (N, 2 + V)
            for name, metric in self.metrics.items():
                metric.reset()
                metric(logits, target)
                out[name] = metric.figures()
        return _without_nan(out | {"decisions": self._decisions()})

    def _decisions(self) -> dict[str, float]:
        results = [result for result, _, _ in self._labelled] or self._results
        codes = [{finding.code for finding in result.abstentions} for result in results]
        figures = answer_figures(
            is_beyond=[_BEYOND in given for given in codes],
            is_abstained=[result.label is None for result in results],
            reasons={name: [code in given for given in codes] for name, code in REASONS.items()},
        )
        group = np.arange(len(results), dtype=np.float64)
        if self._labelled:
            targets = np.stack([target.numpy() for _, _, target in self._labelled])  # (N, 1) or (N, 2 + V)
            group = targets[:, GROUP] if targets.shape[1] > GROUP else group
            p = np.array([[result.class_probabilities[k] for k in self.class_names] for result in results])
            figures |= decision_figures(
                labels=targets[:, 0],
                likely=p.argmax(axis=1),
                in_set=[[k in result.prediction_set for k in self.class_names] for result in results],
                is_abstained=[result.label is None for result in results],
                class_names=self.class_names,
                malignant=self.malignant,
            )
        return weighted_figures_with_intervals(
            figures, group, level=self.level, num_draws=self.num_draws, seed=self.seed
        )

    def _reset(self, engine: Engine) -> None:
        self._results, self._labelled, self.num_refused = [], [], 0

    def _take(self, engine: Engine) -> None:
        outputs: Any = engine.state.output
        for output in outputs:
            if isinstance(output.get("refusal"), InputRefused):
                self.num_refused += 1
                continue
            result: LesionResult = output["result"]
            self._results.append(result)
            if output.get("label") is not None:
                logits = torch.from_numpy(
                    class_logits(torch.as_tensor(output["pred"]).detach().cpu().numpy())
                )
                label = torch.as_tensor(output["label"], dtype=torch.float64).reshape(-1).cpu()
                self._labelled.append((result, logits, label))

    def _completed(self, engine: Engine) -> None:
        if not self._results:
            logger.warning("nothing was measured; %d images were refused.", self.num_refused)
            figures: dict[str, Any] = {"num_images": 0, "num_refused": self.num_refused}
        else:
            figures = self.figures()
        logger.info("%s", figures)
        if self.output_path is not None:
            write_atomically(self.output_path, to_json_bytes(figures))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
