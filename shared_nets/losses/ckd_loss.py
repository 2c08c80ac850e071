"""The loss of CKD staging: log creatinine with targets that may be bounds, and the KDIGO stage.

Shape letters: B batch, K stages.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MODES = ("regression", "classification", "multitask")
REGRESSION_LOSSES = ("smooth_l1_log", "smooth_l1_reciprocal", "rmse_exp")
STAGE_LOSSES = ("cross_entropy", "ordinal")
#: Columns of the target.
LOG_CREATININE, IS_UPPER_BOUND, STAGE = 0, 1, 2


class CKDLoss(nn.Module):
    """Compare logits of :class:`shared_nets.nets.ckd_fusion.CKDFusion` with what is known of each person.

    An eGFR that is only known to be at least some value means a creatinine of at most some value: a
    prediction at or below it costs nothing.

    Args:
        mode: ``regression`` (one logit: log creatinine), ``classification`` (K stage logits), ``multitask``
            (1 + K).
        regression_loss: ``smooth_l1_log`` compares logarithms; ``smooth_l1_reciprocal`` compares
            1 / creatinine, which runs nearly straight with eGFR, so that errors count as they do there;
            ``rmse_exp`` is the root mean square error in mg/dL over the batch, with ``eps`` under the root so
            that its gradient at zero error is zero.
        beta: error at which smooth L1 turns from square to linear, in log creatinine or dL/mg.
        eps: added to the mean square in ``rmse_exp``, (mg/dL)².
        stage_loss: ``cross_entropy`` over the stages, or ``ordinal``: the mean binary cross entropy of the
            K−1 questions "is the stage worse than …?".
        regression_weight: weight of the first part in ``multitask``.
        stage_weight: weight of the second part in ``multitask``.

    Raises:
        ValueError: a name is unknown, or a number is not positive.
    """

    def __init__(
        self,
        *,
        mode: str = "regression",
        regression_loss: str = "smooth_l1_log",
        beta: float = 0.1,
        eps: float = 1e-6,
        stage_loss: str = "cross_entropy",
        regression_weight: float = 1.0,
        stage_weight: float = 0.5,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("mode", mode, MODES),
            ("regression_loss", regression_loss, REGRESSION_LOSSES),
            ("stage_loss", stage_loss, STAGE_LOSSES),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}.")
        for name, number in (("beta", beta), ("eps", eps)):
            if number <= 0:
                raise ValueError(f"{name} must be positive, got {number}.")
        self.mode = mode
        self.regression_loss = regression_loss
        self.beta = beta
        self.eps = eps
        self.stage_loss = stage_loss
        self.regression_weight = regression_weight
        self.stage_weight = stage_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Give the mean loss over the batch.

        Args:
            logits: output of the network, ``(B, 1)``, ``(B, K)`` or ``(B, 1 + K)`` by mode.
            target: ``(B, 3)`` or wider, by column: log creatinine (ln mg/dL); 1 where the true value may be
                lower, else 0; stage index (0 is G1). NaN where a person has no value: that part is left out.

        Returns:
            Scalar, zero or more.

        Raises:
            ValueError: the shapes do not fit.
        """
        if target.ndim != 2 or target.shape[1] < 3 or len(target) != len(logits):
            raise ValueError(
                f"target must have shape ({len(logits)}, 3) or wider, got {tuple(target.shape)}."
            )
        if self.mode == "regression":
            return self.creatinine_loss(logits[:, 0], target)
        stage_logits = logits if self.mode == "classification" else logits[:, 1:]
        stage = self._stage_loss(stage_logits, target[:, STAGE])
        if self.mode == "classification":
            return stage
        regression = self.creatinine_loss(logits[:, 0], target)
        return self.regression_weight * regression + self.stage_weight * stage

    def creatinine_loss(self, log_creatinine: Tensor, target: Tensor) -> Tensor:
        """Compare predicted log creatinine ``(B,)`` with ``target`` ``(B, 3)``; a scalar."""
        known = ~torch.isnan(target[:, LOG_CREATININE])
        predicted, observed = log_creatinine[known], target[known, LOG_CREATININE].to(log_creatinine)
        if predicted.numel() == 0:
            return log_creatinine.sum() * 0.0
        allowed = (target[known, IS_UPPER_BOUND] > 0.5) & (predicted <= observed)
        if self.regression_loss == "smooth_l1_log":
            error = F.smooth_l1_loss(predicted, observed, beta=self.beta, reduction="none")
            return error.masked_fill(allowed, 0.0).mean()
        if self.regression_loss == "smooth_l1_reciprocal":
            error = F.smooth_l1_loss((-predicted).exp(), (-observed).exp(), beta=self.beta, reduction="none")
            return error.masked_fill(allowed, 0.0).mean()
        square = (predicted.exp() - observed.exp()).square().masked_fill(allowed, 0.0)
        return (square.mean() + self.eps).sqrt() - self.eps**0.5

    def _stage_loss(self, logits: Tensor, stage: Tensor) -> Tensor:
        known = ~torch.isnan(stage)
        logits, index = logits[known], stage[known].long()
        if index.numel() == 0:
            return logits.sum() * 0.0
        if self.stage_loss == "cross_entropy":
            return F.cross_entropy(logits, index)
        num_stages = logits.shape[1]
        probabilities = logits.log_softmax(dim=1)  # (B, K)
        ranks = torch.arange(1, num_stages, device=logits.device)  # worse than stage 0, 1, …
        worse = torch.stack([probabilities[:, k:].logsumexp(dim=1) for k in range(1, num_stages)], dim=1)
        better = torch.stack([probabilities[:, :k].logsumexp(dim=1) for k in range(1, num_stages)], dim=1)
        is_worse = (index[:, None] >= ranks).to(logits.dtype)  # (B, K−1)
        return -(is_worse * worse + (1.0 - is_worse) * better).mean()
