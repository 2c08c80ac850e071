"""Train what joins a photograph with metadata behind a trunk that stays as it is.

What the trunk says of an image is computed once, so that a training takes a minute on one core rather than
hours.

Shape letters: N images, S side, L image tokens, F values of the metadata, E width of a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from monai.optimizers import WarmupCosineSchedule
from torch import Tensor, nn
from torch.nn import functional as F

from shared_nets.blocks.mamba import parameter_groups
from shared_nets.nets.lesion_network import ImageTokens, LesionNetwork

_PARTS = ("tabular_encoder", "fusion", "classifier")


@dataclass(frozen=True, kw_only=True)
class FusionRecipe:
    """How the parts behind the trunk are trained.

    Args:
        max_epochs: passes over the images, each over the next view of them.
        batch_size: images a step.
        learning_rate: highest one of AdamW; it rises over the first fifth, then falls along a cosine.
        weight_decay: of AdamW; norms and biases do not decay.
    """

    max_epochs: int = 8
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05


@torch.inference_mode()
def tokens_of(
    network: LesionNetwork,
    images: npt.NDArray[np.uint8],
    prepare: Callable[[Tensor], Tensor],
    *,
    batch_size: int = 128,
) -> Tensor:
    """Ask the trunk once.

    Args:
        network: the network.
        images: photographs, ``(N, S, S, 3)``.
        prepare: makes of a batch of intensities 0 … 1, ``(B, 3, S, S)``, what the network takes.
        batch_size: images at a time.

    Returns:
        Local and global tokens, ``(N, 2, L, E)`` bfloat16, which keeps half of the memory free.
    """
    network.eval()
    parts = []
    for batch in torch.from_numpy(images).split(batch_size):
        x = batch.permute(0, 3, 1, 2).float() / 255  # (B, 3, S, S)
        parts.append(torch.stack(network.image_tokens(prepare(x)), dim=1).bfloat16())  # (B, 2, L, E)
    return torch.cat(parts)


def fit_fusion(
    network: LesionNetwork,
    views: Sequence[Tensor],
    rows: Tensor | None,
    target: Tensor,
    *,
    recipe: FusionRecipe,
    seed: int,
) -> None:
    """Train everything behind the trunk in place, towards one logit.

    Args:
        network: of one class; its metadata are standardised already.
        views: tokens of the same images, changed in another way in each, ``(N, 2, L, E)``.
        rows: their metadata, ``(N, F)``; ``None`` for images alone.
        target: 0 or 1, ``(N,)``.
        recipe: how to train.
        seed: of order and dropout.

    Raises:
        ValueError: the network has another number of classes, or there are no views.
    """
    if not views:
        raise ValueError("views must hold tokens of the images, got none.")
    parts = nn.ModuleList(getattr(network, name) for name in _PARTS if getattr(network, name) is not None)
    optimizer = torch.optim.AdamW(parameter_groups(parts, recipe.weight_decay), lr=recipe.learning_rate)
    steps = recipe.max_epochs * math.ceil(len(target) / recipe.batch_size)
    schedule = WarmupCosineSchedule(optimizer, warmup_steps=steps // 5, t_total=steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.train()
        for epoch in range(recipe.max_epochs):
            view = views[epoch % len(views)]
            for index in torch.randperm(len(target)).split(recipe.batch_size):
                logits = _logits(network, view[index], None if rows is None else rows[index])
                loss = F.binary_cross_entropy_with_logits(logits, target[index].float())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    network.eval()


@torch.inference_mode()
def fused_logits(
    network: LesionNetwork, tokens: Tensor, rows: Tensor | None, *, batch_size: int = 512
) -> npt.NDArray[np.float64]:
    """Say what a network makes of kept tokens and metadata.

    Args:
        network: of one class.
        tokens: ``(N, 2, L, E)``.
        rows: ``(N, F)``; ``None`` where nothing is known.
        batch_size: images at a time.

    Returns:
        The logit of each image, ``(N,)``.
    """
    network.eval()
    starts = range(0, len(tokens), batch_size)
    parts = [
        _logits(
            network,
            tokens[start : start + batch_size],
            None if rows is None else rows[start : start + batch_size],
        )
        for start in starts
    ]
    return torch.cat(parts).double().numpy()


def _logits(network: LesionNetwork, tokens: Tensor, rows: Tensor | None) -> Tensor:
    local, global_ = tokens.float().unbind(dim=1)  # (B, L, E) each
    logits = network.classifier(network.fuse(ImageTokens(local, global_), rows))  # (B, 1)
    if logits.shape[1] != 1:
        raise ValueError(f"network must have one class, got {logits.shape[1]}.")
    return logits[:, 0]
