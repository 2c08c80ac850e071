"""A smooth stand-in for the partial AUC at high sensitivity, active though positives are rare.

Shape letters: B batch, K classes, P positives, N negatives, Q queue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

POSITIVE, NEGATIVE = 1, 0


class PartialAUCLoss(nn.Module):
    """Push the positives that score lowest above the negatives that score highest.

    The area between a sensitivity of ``min_tpr`` and 1 is the share of pairs in right order among the
    1 − ``min_tpr`` of the positives that score lowest and the negatives. A pair costs the squared hinge
    ``max(0, margin − (positive − negative))²``, which bounds the wrong pairs for a margin of 1; of the
    negatives only those that score highest take part, since the others hardly ever are in wrong order.

    A batch of a rare disease often has no positive. Scores of earlier batches therefore wait in two queues,
    without gradients, and pair with the negatives and positives of this batch. They are as old as it takes to
    fill the queue, and no network stands still: keep ``queue_size`` small against the positives of an epoch.

    Args:
        min_tpr: sensitivity from which on the area counts, 0 to below 1; 0 for the whole AUC.
        negative_share: share of the negatives that takes part, those that score highest, above 0 to 1.
        margin: distance in logits from which on a pair costs nothing.
        queue_size: Q, scores that wait of each kind; 0 for none.
        positive_classes: where there are K > 1 logits, the classes that together are positive; the score is
            then the logit of their joint probability, and targets are class numbers.

    Raises:
        ValueError: a number is out of range.

    Reference:
        H. Narasimhan, S. Agarwal, "A Structural SVM Based Approach for Optimizing Partial AUC", ICML 2013;
        Z. Yang et al., "When All We Need is a Piece of the Pie: A Generic Framework for Optimizing Two-way
        Partial AUC", ICML 2021.
    """

    positive_queue: Tensor
    negative_queue: Tensor

    def __init__(
        self,
        *,
        min_tpr: float = 0.8,
        negative_share: float = 0.5,
        margin: float = 1.0,
        queue_size: int = 128,
        positive_classes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= min_tpr < 1.0:
            raise ValueError(f"min_tpr must be at least 0 and below 1, got {min_tpr}.")
        if not 0.0 < negative_share <= 1.0:
            raise ValueError(f"negative_share must be above 0 and at most 1, got {negative_share}.")
        if margin <= 0.0:
            raise ValueError(f"margin must be positive, got {margin}.")
        if queue_size < 0:
            raise ValueError(f"queue_size must be at least 0, got {queue_size}.")
        self.min_tpr = min_tpr
        self.negative_share = negative_share
        self.margin = margin
        self.queue_size = queue_size
        self.positive_classes = None if positive_classes is None else list(positive_classes)
        # NaN marks a place that is still free
        self.register_buffer("positive_queue", torch.full((queue_size,), float("nan")))  # (Q,)
        self.register_buffer("negative_queue", torch.full((queue_size,), float("nan")))  # (Q,)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Give the mean cost of the batch's pairs, and let the batch wait in the queues (in training mode).

        Args:
            logits: ``(B,)`` or ``(B, 1)``; ``(B, K)`` with ``positive_classes``.
            target: 0 or 1, or class numbers with ``positive_classes``; ``(B,)`` or ``(B, 1)``.

        Returns:
            Scalar float32, zero or more; zero with a gradient of zero where there is no pair.

        Raises:
            ValueError: the shapes do not fit, or a target is neither 0 nor 1.
        """
        with torch.autocast(logits.device.type, enabled=False):
            score, is_positive = self._scores(logits.float(), target.reshape(-1))
            positive, negative = score[is_positive], score[~is_positive]  # (P,), (N,)
            loss = self._pairs(positive, negative)
        if self.training and self.queue_size:
            self.positive_queue = _enqueued(positive, self.positive_queue)
            self.negative_queue = _enqueued(negative, self.negative_queue)
        return loss

    def _scores(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if target.numel() != len(logits):
            raise ValueError(f"target must have shape ({len(logits)},), got {tuple(target.shape)}.")
        if self.positive_classes is not None:
            if logits.ndim != 2 or logits.shape[1] <= max(self.positive_classes):
                raise ValueError(
                    f"logits must have shape (B, K) with K above {max(self.positive_classes)}, "
                    f"got {tuple(logits.shape)}."
                )
            classes = torch.tensor(self.positive_classes, device=logits.device)
            is_counted = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
            is_counted[classes] = True
            score = logits[:, is_counted].logsumexp(dim=1) - logits[:, ~is_counted].logsumexp(dim=1)  # (B,)
            return score, torch.isin(target, classes)
        if logits.numel() != len(logits):
            raise ValueError(f"logits must have shape (B,) or (B, 1), got {tuple(logits.shape)}.")
        is_positive = target == POSITIVE
        if not (is_positive | (target == NEGATIVE)).all():
            raise ValueError("target must be 0 or 1, got something else (mixtures have no order).")
        return logits.reshape(-1), is_positive

    def _pairs(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Mean cost of the pairs that hold at least one score of this batch; the others have no gradient."""
        positives, is_new_positive = _with_waiting(positive, self.positive_queue)
        negatives, is_new_negative = _with_waiting(negative, self.negative_queue)
        low = positives.topk(_count(1.0 - self.min_tpr, positives.numel()), largest=False).indices
        high = negatives.topk(_count(self.negative_share, negatives.numel())).indices
        gap = positives[low][:, None] - negatives[high][None, :]  # (P, N)
        is_new = is_new_positive[low][:, None] | is_new_negative[high][None, :]  # (P, N)
        cost = (self.margin - gap).clamp(min=0.0).square() * is_new
        # no pair at all: zero, and a gradient of zero
        return (cost.sum() + 0.0 * (positive.sum() + negative.sum())) / is_new.sum().clamp(min=1)


def _with_waiting(score: Tensor, queue: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the batch and of the queue, and which are of the batch."""
    waiting = queue[~queue.isnan()].to(score)
    scores = torch.cat([score, waiting])
    return scores, torch.arange(scores.numel(), device=scores.device) < score.numel()


def _enqueued(score: Tensor, queue: Tensor) -> Tensor:
    """Put the newest in front; the oldest fall off the end."""
    return torch.cat([score.detach().to(queue), queue])[: queue.numel()]


def _count(share: float, total: int) -> int:
    return min(total, max(1, math.ceil(share * total - 1e-9)))
