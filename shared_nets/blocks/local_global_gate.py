"""Weigh what a token shows by itself against what it has learned from the others.

Shape letters: B batch, L tokens, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LocalGlobalGate(nn.Module):
    """Mix two rows of tokens by a learned share for each token and channel: ``g·local + (1 − g)·global``.

    Args:
        embed_dim: width of a token.
    """

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(2 * embed_dim, embed_dim)

    def forward(self, local: Tensor, global_: Tensor) -> Tensor:
        """Mix tokens.

        Args:
            local: tokens as they came, ``(B, L, E)``.
            global_: the same tokens after they looked at each other, ``(B, L, E)``.

        Returns:
            Tokens, ``(B, L, E)``, between the two in every channel.
        """
        gate = torch.sigmoid(self.gate_proj(torch.cat([local, global_], dim=-1)))  # (B, L, E)
        return gate * local + (1 - gate) * global_
