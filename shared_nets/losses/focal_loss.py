"""Focal loss on MONAI's: for one rare class, and for several classes with soft targets.

Shape letters: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import FocalLoss
from torch import Tensor, nn
from torch.nn import functional as F


class BinaryFocalLoss(nn.Module):
    """Compare one logit an image with whether it is positive; easy images count less.

    Args:
        alpha: weight of the positive class; the negative class has 1 − ``alpha``. Published code for rare
            lesions uses 0.25, which makes the rare class rarer still.
        gamma: how much less an easy image counts; 0 gives weighted cross entropy.

    Raises:
        ValueError: a number is out of range.

    Reference:
        T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5.
    """

    def __init__(self, *, alpha: float = 0.75, gamma: float = 2.0) -> None:
        super().__init__()
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha must lie between 0 and 1, got {alpha}.")
        if gamma < 0.0:
            raise ValueError(f"gamma must be at least 0, got {gamma}.")
        self.loss = FocalLoss(alpha=alpha, gamma=gamma)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Give the mean loss over the batch.

        Args:
            logits: ``(B,)`` or ``(B, 1)``.
            target: 0 or 1, ``(B,)`` or ``(B, 1)``.

        Returns:
            Scalar float32, zero or more.

        Raises:
            ValueError: the shapes do not fit.
        """
        if logits.ndim not in (1, 2) or logits.numel() != len(logits) or target.numel() != len(logits):
            raise ValueError(
                f"logits and target must have shape (B,) or (B, 1), got {tuple(logits.shape)} "
                f"and {tuple(target.shape)}."
            )
        with torch.autocast(logits.device.type, enabled=False):
            return self.loss(logits.reshape(-1, 1).float(), target.reshape(-1, 1).float())


class MultiClassFocalLoss(nn.Module):
    """Compare K logits an image with its class, or with a mixture of classes.

    The loss of a mixture is the mixture of the losses; with ``gamma`` 0 it is
    :func:`torch.nn.functional.cross_entropy` with soft targets. It is the mean over the batch, not over
    ``B·K``, and is not divided by the sum of the weights.

    Args:
        gamma: how much less an easy image counts.
        class_weights: weight of each class, K of them; ``None`` for equal weights.
        label_smoothing: share of each target that is spread evenly over the classes, 0 to 1.

    Raises:
        ValueError: a number is out of range.

    Reference:
        T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
    """

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if gamma != 0.0 and gamma < 1.0:
            raise ValueError(f"gamma must be 0 or at least 1 (finite gradients), got {gamma}.")
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, got {label_smoothing}.")
        if class_weights is not None and min(class_weights) < 0.0:
            raise ValueError(f"class_weights must be at least 0, got {min(class_weights)}.")
        weight = None if class_weights is None else list(class_weights)
        self.loss = FocalLoss(gamma=gamma, weight=weight, reduction="none", use_softmax=True)
        self.num_weights = None if weight is None else len(weight)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Give the mean loss over the batch.

        Args:
            logits: ``(B, K)``.
            target: class of each image, ``(B,)`` or ``(B, 1)`` int, or shares of the classes, ``(B, K)``
                float, that add up to 1 (MixUp, CutMix).

        Returns:
            Scalar float32, zero or more.

        Raises:
            ValueError: the shapes do not fit.
        """
        num_classes = logits.shape[1] if logits.ndim == 2 else -1
        if num_classes < 2 or (self.num_weights is not None and self.num_weights != num_classes):
            classes = "two or more" if self.num_weights is None else self.num_weights
            raise ValueError(
                f"logits must have shape (B, K) with {classes} classes, got {tuple(logits.shape)}."
            )
        if not target.is_floating_point() and target.numel() == len(logits):
            target = F.one_hot(target.reshape(-1).long(), num_classes)  # (B, K)
        if target.shape != logits.shape:
            raise ValueError(
                f"target must be whole numbers (B,) or shares {tuple(logits.shape)}, "
                f"got {tuple(target.shape)} {target.dtype}."
            )
        with torch.autocast(logits.device.type, enabled=False):
            shares = target.float() * (1.0 - self.label_smoothing) + self.label_smoothing / num_classes
            return self.loss(logits.float(), shares).sum(dim=1).mean()
