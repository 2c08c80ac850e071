"""Change whole batches of images at random while a network is trained.

Shape letters: B batch, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from monai.engines import PrepareBatch
from monai.transforms import MixUp
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from torch.nn import functional as F


class Augmentation(Protocol):
    """Changes images of 0 … 1; what a call draws follows from its ``step``."""

    step: int

    def __call__(self, images: Tensor) -> Tensor:
        """Change ``(B, C, H, W)``."""
        ...


class AugmentedBatch(PrepareBatch):
    """Prepare a batch for a trainer: augment, normalise, and mix pairs of images with their labels.

    What a step draws follows from the seed and the number of the step, so that a resumed training goes on as
    if it had never stopped: ``state_dict`` holds the step.

    Args:
        augmentation: changes images ``(B, C, H, W)`` of 0 … 1; its attribute ``step`` counts the batches.
        mean: of each channel, taken away after the augmentation.
        std: of each channel, divided by.
        num_classes: K.
        mixup_alpha: of the Beta distribution that pairs are mixed by; 0 mixes nothing.
        extra_keys: keyword of ``network.forward`` → key of the batch. Extra inputs are not mixed, so
            ``mixup_alpha`` must be 0 with them.
        seed: of what is mixed with what.

    Raises:
        ValueError: pairs are mixed although there are extra inputs.

    Reference:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, equation 1.
    """

    def __init__(
        self,
        *,
        augmentation: Augmentation,
        mean: Sequence[float],
        std: Sequence[float],
        num_classes: int,
        mixup_alpha: float = 0.0,
        extra_keys: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        if mixup_alpha > 0 and extra_keys:
            raise ValueError(f"mixup_alpha must be 0 with extra_keys, got {mixup_alpha}.")
        self.augmentation = augmentation
        self.mean = torch.tensor(mean).reshape(1, -1, 1, 1)
        self.std = torch.tensor(std).reshape(1, -1, 1, 1)
        self.num_classes = num_classes
        self.mixup_alpha = mixup_alpha
        self.extra_keys = dict(extra_keys or {})
        self.seed = seed
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        """Give the number of the step."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a step."""
        self.step = int(state["step"])

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
        """Prepare ``{"image": (B, C, H, W) of 0 … 1, "label": (B,)}``.

        Returns:
            Images, labels as probabilities ``(B, K)``, no further positional inputs, extra inputs by keyword.
        """
        images = torch.as_tensor(batchdata[Keys.IMAGE]).as_subclass(torch.Tensor).float()
        labels = torch.as_tensor(batchdata[Keys.LABEL]).as_subclass(torch.Tensor).long().flatten()
        self.augmentation.step = self.step
        images = (self.augmentation(images) - self.mean) / self.std  # (B, C, H, W)
        targets = F.one_hot(labels, self.num_classes).float()  # (B, K)
        if self.mixup_alpha > 0:
            mix = MixUp(batch_size=len(images), alpha=self.mixup_alpha)
            mix.set_random_state(seed=(self.seed * 1_000_003 + self.step) % 2**32)
            images, mixed = mix(images, targets[:, :, None, None])  # (B, K, 1, 1): MONAI mixes images only
            targets = mixed[:, :, 0, 0]  # (B, K)
        self.step += 1
        extra = {
            name: torch.as_tensor(batchdata[key]).to(device, non_blocking=non_blocking)
            for name, key in self.extra_keys.items()
        }
        moved = images.to(device, non_blocking=non_blocking), targets.to(device, non_blocking=non_blocking)
        return *moved, (), extra
