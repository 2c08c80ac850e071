"""Asymmetric loss: negatives are focused harder than positives, and easy negatives are dropped."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AsymmetricLoss(nn.Module):
    """Compare logits with yes-or-no targets where nearly all answers are no.

    With p the probability of yes, a positive costs ``(1 − p)^gamma_positive · −log p`` and a negative
    ``q^gamma_negative · −log(1 − q)`` with ``q = max(p − clip, 0)``: negatives below ``clip`` cost nothing.

    Args:
        gamma_positive: focusing of positives.
        gamma_negative: focusing of negatives.
        clip: probability by which those of negatives are lowered, 0 to below 1.

    Raises:
        ValueError: a number is out of range.

    Reference:
        T. Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021, equations 4 to 7.
    """

    def __init__(
        self, *, gamma_positive: float = 0.0, gamma_negative: float = 4.0, clip: float = 0.05
    ) -> None:
        super().__init__()
        if gamma_positive < 0.0:
            raise ValueError(f"gamma_positive must be at least 0, got {gamma_positive}.")
        if gamma_negative != 0.0 and gamma_negative < 1.0:
            raise ValueError(
                f"gamma_negative must be 0 or at least 1 (finite gradients), got {gamma_negative}."
            )
        if not 0.0 <= clip < 1.0:
            raise ValueError(f"clip must be at least 0 and below 1, got {clip}.")
        self.gamma_positive = gamma_positive
        self.gamma_negative = gamma_negative
        self.clip = clip

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Give the mean loss over all answers.

        Args:
            logits: any shape, ``(B,)`` or ``(B, 1)`` for one question, ``(B, K)`` for K.
            target: 0 or 1, as many as there are logits.

        Returns:
            Scalar float32, zero or more.

        Raises:
            ValueError: the shapes do not fit.
        """
        if target.numel() != logits.numel() or len(target) != len(logits):
            raise ValueError(f"target must have shape {tuple(logits.shape)}, got {tuple(target.shape)}.")
        with torch.autocast(logits.device.type, enabled=False):
            x = logits.float()
            t = target.reshape(x.shape).float()
            log_p, log_not_p = F.logsigmoid(x), F.logsigmoid(-x)
            positive = -log_p * (self.gamma_positive * log_not_p).exp()
            q = (log_p.exp() - self.clip).clamp(min=0.0)
            log_not_q = torch.log1p(-q) if self.clip > 0.0 else log_not_p
            negative = -log_not_q * q.pow(self.gamma_negative)
            return (t * positive + (1.0 - t) * negative).mean()
