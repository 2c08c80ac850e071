"""Spend time to save memory: compute a part of a network again in the backward pass rather than keep it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run_part(part: nn.Module, *inputs: Any, use_checkpoint: bool) -> Tensor:
    """Run a part of a network, and keep its inputs only where that is asked for and right.

    A part that holds batch normalisation in training is run as usual: computed twice, it would count every
    batch twice in its running statistics, and the weights of a training would depend on a memory setting.

    Args:
        part: the part.
        inputs: what it takes.
        use_checkpoint: whether to save memory.

    Returns:
        What the part gives.
    """
    if use_checkpoint and torch.is_grad_enabled() and not _counts_batches(part):
        return checkpoint(part, *inputs, use_reentrant=False)
    return part(*inputs)


def _counts_batches(part: nn.Module) -> bool:
    return any(
        isinstance(module, _BatchNorm) and module.training and module.track_running_stats
        for module in part.modules()
    )
