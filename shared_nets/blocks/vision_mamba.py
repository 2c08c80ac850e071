"""A Vision-Mamba layer: tokens mixed by a Mamba block in each direction, then transformed by an MLP.

Shape letters: B batch, L tokens, E width of a token.

Reference:
    L. Zhu et al., "Vision Mamba: Efficient Visual Representation Learning with Bidirectional State Space
    Model", 2024, figure 2; here each direction is a whole block, and a linear layer joins the two.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from shared_nets.blocks.mamba import Mamba
from shared_nets.blocks.selective_scan import ScanBackend


class BidirectionalMamba(nn.Module):
    """Mix tokens by one block from the first to the last and one from the last to the first.

    Args:
        d_model: width of a token.
        d_state: states of a channel.
        d_conv: tokens that each block's convolution sees.
        expand: inner channels as a multiple of ``d_model``.
        dt_rank: rank of the step size's projection; ``auto`` is ``ceil(d_model / 16)``.
        scan_backend: see :func:`shared_nets.blocks.selective_scan.selective_scan`.
    """

    def __init__(
        self,
        *,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        scan_backend: ScanBackend = "auto",
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.ssm_forward, self.ssm_backward = (
            Mamba(
                d_model,
                d_state=d_state,
                d_conv=d_conv,
                expand=expand,
                dt_rank=dt_rank,
                scan_backend=scan_backend,
            )
            for _ in range(2)
        )
        self.fusion = nn.Linear(2 * d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Pass tokens ``(B, L, E)`` on to tokens of the same shape."""
        # One scan over both directions would copy all its inputs together, which costs more than it saves.
        x = self.norm(x)
        ahead, back = self.ssm_forward(x), self.ssm_backward(x.flip(1)).flip(1)  # each (B, L, E)
        return self.fusion(torch.cat([ahead, back], dim=-1))  # (B, L, E)


class VisionMambaLayer(nn.Module):
    """A bidirectional scan and an MLP, each after a normalisation and beside a residual connection.

    Args:
        d_model: width of a token.
        d_state: states of a channel.
        d_conv: tokens that each block's convolution sees.
        expand: inner channels as a multiple of ``d_model``.
        dt_rank: rank of the step size's projection; ``auto`` is ``ceil(d_model / 16)``.
        mlp_ratio: width inside the MLP as a multiple of ``d_model``.
        dropout_rate: share of values dropped at the end of each branch and inside the MLP.
        scan_backend: see :func:`shared_nets.blocks.selective_scan.selective_scan`.
    """

    def __init__(
        self,
        *,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        mlp_ratio: float = 4.0,
        dropout_rate: float = 0.1,
        scan_backend: ScanBackend = "auto",
    ) -> None:
        super().__init__()
        self.ssm_block = BidirectionalMamba(
            d_model=d_model,
            d_state=d_state,
            d_conv=d_conv,
            expand=expand,
            dt_rank=dt_rank,
            scan_backend=scan_backend,
        )
        self.dropout = nn.Dropout(dropout_rate)
        self.mlp_norm = nn.LayerNorm(d_model)
        hidden = int(d_model * mlp_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, hidden),
            nn.GELU(),
            nn.Dropout(dropout_rate),
            nn.Linear(hidden, d_model),
            nn.Dropout(dropout_rate),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Pass tokens ``(B, L, E)`` on to tokens of the same shape."""
        x = x + self.dropout(self.ssm_block(x))
        return x + self.mlp(self.mlp_norm(x))
