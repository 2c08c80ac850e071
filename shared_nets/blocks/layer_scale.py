"""A learnable scale for each channel of a residual branch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Start residual branches small, and let training decide how much each channel counts.

    Args:
        embed_dim: number of channels.
        init_value: what each scale starts at.

    Reference:
        H. Touvron et al., "Going Deeper with Image Transformers", 2021, equation 4.
    """

    def __init__(self, *, embed_dim: int, init_value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((embed_dim,), float(init_value)))

    def forward(self, x: Tensor) -> Tensor:
        """Scale tokens ``(..., E)`` channel by channel."""
        return x * self.gamma
