"""The metric that evaluators of lesion classifiers accumulate: every figure, by subgroup, with intervals.

Shape letters: N images, K classes, V variables that make subgroups, G patients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import CumulativeIterationMetric
from scipy.special import softmax
from torch import Tensor

from shared_nets.metrics.bootstrap import WeightedFigure, weighted_figures_with_intervals
from shared_nets.metrics.lesion_figures import lesion_figures

FloatArray = npt.NDArray[np.float64]

#: Columns of the target; the variables that make subgroups follow.
CLASS, GROUP, FIRST_VARIABLE = 0, 1, 2


class LesionMetric(CumulativeIterationMetric):
    """Compare predicted classes with true ones over all images of an evaluation.

    Intervals are percentiles of a bootstrap that draws patients with all of their images. A subgroup of
    fewer than ``min_groups`` patients, or with only benign or only malignant lesions, gets NaN for every
    figure, beside its numbers of images and patients.

    Args:
        class_names: of the logits, in their order.
        malignant_classes: which of them count as malignant.
        figure: what :meth:`aggregate` returns, one of the names that
            :func:`shared_nets.metrics.lesion_figures.lesion_figures` gives.
        temperature: logits are divided by it.
        subgroups: categories of each variable, in the order of the target's columns; code 1 is the first
            category, and 0 stands for any other or an unknown one.
        min_groups: see above.
        num_draws: draws of the bootstrap; 0 leaves the intervals out.
        level: share of draws inside an interval.
        seed: of the draws.
        options: ``min_tpr``, ``specificity`` and ``sensitivity`` of the operating points.

    Raises:
        ValueError: a malignant class is none of the classes, or a number is out of range.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        malignant_classes: Sequence[str],
        figure: str = "auc",
        temperature: float = 1.0,
        subgroups: Mapping[str, Sequence[str]] | None = None,
        min_groups: int = 20,
        num_draws: int = 1000,
        level: float = 0.95,
        seed: int = 0,
        **options: float,
    ) -> None:
        super().__init__()
        unknown = set(malignant_classes) - set(class_names)
        if unknown or not malignant_classes:
            raise ValueError(f"malignant_classes must be some of class_names, got {list(malignant_classes)}.")
        if temperature <= 0.0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        if num_draws < 0:
            raise ValueError(f"num_draws must be at least 0, got {num_draws}.")
        self.class_names = tuple(class_names)
        self.malignant = [self.class_names.index(name) for name in malignant_classes]
        self.figure = figure
        self.temperature = temperature
        self.subgroups = {name: tuple(categories) for name, categories in (subgroups or {}).items()}
        self.min_groups = min_groups
        self.num_draws = num_draws
        self.level = level
        self.seed = seed
        self.options = options

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Keep what is needed of a batch.

        Args:
            y_pred: logits ``(N, K)``; a single logit is that of the second of two classes, against 0.
            y: class of each image, ``(N,)`` or ``(N, 1)``: each image is then a patient of its own; or
                target ``(N, 2 + V)``: class, number of the patient, code of each variable.
            kwargs: not used.

        Returns:
            ``(N, K + 2 + V)`` float64: logits and target.

        Raises:
            ValueError: the shapes do not fit.
        """
        width = FIRST_VARIABLE + len(self.subgroups)
        logits = y_pred.double()
        if logits.ndim == 2 and logits.shape[1] == 1 and len(self.class_names) == 2:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)  # (N, 2)
        if logits.ndim != 2 or logits.shape[1] != len(self.class_names):
            raise ValueError(
                f"y_pred must have shape (N, {len(self.class_names)}), got {tuple(y_pred.shape)}."
            )
        target = torch.empty(0) if y is None else y.to(logits).reshape(len(y), -1)
        if target.shape == (len(logits), 1) and not self.subgroups:
            target = torch.cat([target, torch.full_like(target, float("nan"))], dim=1)  # (N, 2)
        if target.shape != (len(logits), width):
            raise ValueError(f"y must have shape ({len(logits)}, {width}), got {tuple(target.shape)}.")
        return torch.cat([logits, target], dim=1)

    def aggregate(self) -> float:
        """Give the figure named in the constructor, over all images since the last reset.

        Raises:
            KeyError: there is no such figure.
            ValueError: nothing has been evaluated.
        """
        probabilities, target = self._rows()
        return self._prepared(probabilities, target)[self.figure](np.ones(len(target)))

    def figures(self) -> dict[str, float]:
        """Give every figure, over all images since the last reset.

        Returns:
            By name; ``…_low`` and ``…_high`` are the ends of its interval; ``n`` images, ``num_groups``
            patients. Those of a subgroup start with its variable and category: ``sex_female_auc``.

        Raises:
            ValueError: nothing has been evaluated.
        """
        probabilities, target = self._rows()
        out = self._with_intervals(probabilities, target)
        for column, (variable, categories) in enumerate(self.subgroups.items(), start=FIRST_VARIABLE):
            for code, category in enumerate(categories, start=1):
                rows = target[:, column] == code
                part = self._of_subgroup(probabilities[rows], target[rows])
                prefix = re.sub(r"\W+", "_", f"{variable} {category} ".lower())
                out |= {prefix + name: value for name, value in part.items()}
        return out

    def _rows(self) -> tuple[FloatArray, FloatArray]:
        buffer = self.get_buffer()
        if buffer is None or len(buffer) == 0:
            raise ValueError("y_pred must hold images before figures are asked for, got none.")
        rows = np.asarray(torch.as_tensor(buffer).cpu(), dtype=np.float64)
        logits, target = np.split(rows, [len(self.class_names)], axis=1)
        alone = np.isnan(target[:, GROUP])
        target[alone, GROUP] = -1.0 - np.arange(alone.sum())  # a patient each, beside the numbered ones
        return softmax(logits / self.temperature, axis=1), target

    def _prepared(self, probabilities: FloatArray, target: FloatArray) -> dict[str, WeightedFigure]:
        labels = target[:, CLASS].astype(np.int64)
        return lesion_figures(probabilities, labels, self.malignant, **self.options)

    def _of_subgroup(self, probabilities: FloatArray, target: FloatArray) -> dict[str, float]:
        num_malignant = int(np.isin(target[:, CLASS], self.malignant).sum())
        num_groups = np.unique(target[:, GROUP]).size
        if num_groups >= self.min_groups and 0 < num_malignant < len(target):
            return self._with_intervals(probabilities, target)
        ends = ("", "_low", "_high") if self.num_draws else ("",)
        names = self._prepared(*self._rows())
        unknown = {f"{name}{end}": float("nan") for name in names for end in ends}
        return unknown | {"n": float(len(target)), "num_groups": float(num_groups)}

    def _with_intervals(self, probabilities: FloatArray, target: FloatArray) -> dict[str, float]:
        figures = weighted_figures_with_intervals(
            self._prepared(probabilities, target), target[:, GROUP],
            level=self.level, num_draws=self.num_draws, seed=self.seed,
        )  # fmt: skip
        return figures | {"n": float(len(target)), "num_groups": float(np.unique(target[:, GROUP]).size)}
