"""The metric that evaluators of CKD staging accumulate: creatinine, eGFR and stage at once.

Shape letters: N people, O logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from shared_nets.metrics.regression_figures import agreement, censored_at, stage_agreement

#: Columns of the target.
LOG_CREATININE, IS_UPPER_BOUND, STAGE, AGE_YEARS, IS_FEMALE = range(5)


class CKDRegressionMetric(CumulativeIterationMetric):
    """Compare predicted with measured kidney function over all people of an evaluation.

    Where a person's eGFR is only known to be at least some value, that value is the most that counts as
    observed and as predicted, for everyone (see
    :func:`shared_nets.metrics.regression_figures.censored_at`); in mg/dL people with a bound are left out.

    Args:
        figure: what :meth:`aggregate` returns, one of the names that :meth:`figures` gives.
        to_egfr: function of creatinine (mg/dL), age in years and sex (true for women) to eGFR
            (mL/min/1.73 m²); in practice :func:`shared_nets.transforms.ckd_epi.egfr_from_creatinine`.
        to_stage: function of eGFR to stage index; in practice
            :func:`shared_nets.transforms.ckd_epi.stage_index`.
    """

    def __init__(
        self,
        *,
        to_egfr: Callable[..., npt.NDArray[np.float64]],
        to_stage: Callable[[npt.ArrayLike], npt.NDArray[np.int64]],
        figure: str = "egfr_mae",
    ) -> None:
        super().__init__()
        self.figure = figure
        self.to_egfr = to_egfr
        self.to_stage = to_stage

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Keep what is needed of a batch.

        Args:
            y_pred: logits of the network in ``regression`` or ``multitask`` mode, ``(N, O)``: log creatinine
                first.
            y: target, ``(N, 5)``: log creatinine, whether the true value may be lower, stage, age in years,
                whether female.
            kwargs: not used.

        Returns:
            ``(N, 6)``: predicted log creatinine, and the target.
        """
        if y is None or y.ndim != 2 or y.shape[1] != 5 or y_pred.ndim != 2 or len(y) != len(y_pred):
            got = None if y is None else tuple(y.shape)
            raise ValueError(f"y must have shape ({len(y_pred)}, 5), got {got}.")
        return torch.cat([y_pred[:, :1].double(), y.double().to(y_pred.device)], dim=1)

    def aggregate(self) -> float:
        """Give the figure named in the constructor, over all people since the last reset.

        Raises:
            KeyError: there is no such figure.
        """
        return self.figures()[self.figure]

    def figures(self) -> dict[str, float]:
        """Give every figure, over all people since the last reset.

        Returns:
            ``egfr_…``, ``creatinine_…`` (see :func:`shared_nets.metrics.regression_figures.agreement`) and
            ``stage_…`` (see :func:`shared_nets.metrics.regression_figures.stage_agreement`), and ``n``.

        Raises:
            ValueError: nobody has been evaluated.
        """
        rows = self.get_buffer()
        if rows is None or len(rows) == 0:
            raise ValueError("y_pred must hold people before figures are asked for, got none.")
        predicted, *target = np.asarray(rows.cpu()).T
        age, female = target[AGE_YEARS], target[IS_FEMALE] > 0.5
        is_bound = target[IS_UPPER_BOUND] > 0.5
        creatinine, predicted_creatinine = np.exp(target[LOG_CREATININE]), np.exp(predicted)
        observed_egfr, predicted_egfr = censored_at(
            np.round(self.to_egfr(creatinine, age, female), 3),
            self.to_egfr(predicted_creatinine, age, female),
            is_bound,
        )
        figures = {f"egfr_{k}": v for k, v in agreement(observed_egfr, predicted_egfr).items()}
        if (~is_bound).any():
            exact = agreement(creatinine[~is_bound], predicted_creatinine[~is_bound])
            figures |= {f"creatinine_{k}": v for k, v in exact.items()}
        stages = stage_agreement(self.to_stage(observed_egfr), self.to_stage(predicted_egfr))
        return figures | {f"stage_{k}": v for k, v in stages.items()} | {"n": float(len(rows))}
