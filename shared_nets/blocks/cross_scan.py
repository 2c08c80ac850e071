"""SS2D: a selective scan over an image along its rows and its columns, each forwards and backwards.

Shape letters: B batch, H height, W width, L = H · W, E width of a token, D inner channels, N states, R rank
of the step size. The four directions are, in this order: rows, columns, rows backwards, columns backwards.

Parameters are named, shaped and initialised as in VMamba, so that its checkpoints load.

Reference:
    Y. Liu et al., "VMamba: Visual State Space Model", 2024, section 4.2 and figure 3.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared_nets.blocks.mamba import decay_rates, init_dt_bias_, init_dt_weight_, make_a_log
from shared_nets.blocks.selective_scan import selective_scan

_DIRECTIONS = 4


def cross_scan(x: Tensor) -> Tensor:
    """Read an image in four directions.

    Args:
        x: image, ``(B, H, W, D)``.

    Returns:
        Tokens in the order of each direction, ``(B, L, 4, D)``.
    """
    rows, columns = x.flatten(1, 2), x.transpose(1, 2).flatten(1, 2)  # each (B, L, D)
    return torch.stack([rows, columns, rows.flip(1), columns.flip(1)], dim=2)


def cross_merge(tokens: Tensor, height: int, width: int) -> Tensor:
    """Bring the tokens of all directions back to their places and add up: :func:`cross_scan` transposed.

    Args:
        tokens: ``(B, L, 4, D)``.
        height: H.
        width: W.

    Returns:
        Image, ``(B, H, W, D)``.
    """
    rows, columns, rows_back, columns_back = tokens.unbind(2)  # each (B, L, D)
    along_rows = (rows + rows_back.flip(1)).unflatten(1, (height, width))  # (B, H, W, D)
    along_columns = (columns + columns_back.flip(1)).unflatten(1, (width, height))  # (B, W, H, D)
    return along_rows + along_columns.transpose(1, 2)


class SS2D(nn.Module):
    """Mix the places of an image by a scan in four directions; every place sees all others.

    Args:
        d_model: width of a token.
        d_state: states of a channel, N.
        d_conv: side of the depthwise convolution before the scan; odd.
        ssm_ratio: inner channels as a multiple of ``d_model``.
        dt_rank: rank of the step size's projection; ``auto`` is ``ceil(d_model / 16)``.
        is_gated: whether the scan's output is multiplied by a gate computed from the input, as in VMamba v0.
        conv_bias: whether the convolution has a bias.
        dt_min: smallest step size at the start of training.
        dt_max: largest step size at the start of training.
        dt_init_floor: step sizes at the start are at least this.

    Raises:
        ValueError: ``d_conv`` is even.
    """

    def __init__(
        self,
        *,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 3,
        ssm_ratio: float = 2.0,
        dt_rank: int | Literal["auto"] = "auto",
        is_gated: bool = False,
        conv_bias: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
    ) -> None:
        super().__init__()
        if d_conv % 2 == 0:
            raise ValueError(f"d_conv must be odd, got {d_conv}.")
        self.d_state = d_state
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.is_gated = is_gated
        d_inner = int(ssm_ratio * d_model)
        self.in_proj = nn.Linear(d_model, (2 if is_gated else 1) * d_inner, bias=False)
        self.conv2d = nn.Conv2d(d_inner, d_inner, d_conv, padding=d_conv // 2, groups=d_inner, bias=conv_bias)
        self.x_proj_weight = nn.Parameter(torch.empty(_DIRECTIONS, self.dt_rank + 2 * d_state, d_inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(_DIRECTIONS, d_inner, self.dt_rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(_DIRECTIONS, d_inner))
        for direction in range(_DIRECTIONS):
            nn.init.kaiming_uniform_(
                self.x_proj_weight[direction], a=math.sqrt(5)
            )  # as a linear layer starts
            init_dt_weight_(self.dt_projs_weight[direction], mode="random", scale=1.0)
        init_dt_bias_(self.dt_projs_bias, dt_min=dt_min, dt_max=dt_max, dt_init_floor=dt_init_floor)
        self.A_logs = nn.Parameter(make_a_log(_DIRECTIONS * d_inner, d_state))
        self.Ds = nn.Parameter(torch.ones(_DIRECTIONS * d_inner))
        for parameter in (self.dt_projs_bias, self.A_logs, self.Ds):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]
        self.out_norm = nn.LayerNorm(d_inner)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pass an image of tokens ``(B, H, W, E)`` on to one of the same shape."""
        gate = None
        x = self.in_proj(x)  # (B, H, W, D), twice as wide with a gate
        if self.is_gated:
            x, gate = x.chunk(2, dim=-1)  # each (B, H, W, D)
        x = F.silu(self.conv2d(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)  # (B, H, W, D)
        y = self.out_norm(self._scan(x))  # (B, H, W, D)
        if gate is not None:
            y = y * F.silu(gate)
        return self.out_proj(y)  # (B, H, W, E)

    def _scan(self, x: Tensor) -> Tensor:
        """Scan ``(B, H, W, D)`` in all directions at once, each a group of channels of one scan."""
        tokens = cross_scan(x)  # (B, L, 4, D)
        low, B, C = torch.einsum("blkd,kcd->blkc", tokens, self.x_proj_weight).split(
            [self.dt_rank, self.d_state, self.d_state], dim=-1
        )
        delta = torch.einsum("blkr,kdr->blkd", low, self.dt_projs_weight)  # (B, L, 4, D)
        y = selective_scan(
            u=tokens.flatten(2).transpose(1, 2),  # (B, 4D, L)
            delta=delta.flatten(2).transpose(1, 2),
            A=decay_rates(self.A_logs),
            B=B.permute(0, 2, 3, 1),  # (B, 4, N, L)
            C=C.permute(0, 2, 3, 1),
            D=self.Ds,
            delta_bias=self.dt_projs_bias.flatten(),
            delta_softplus=True,
        )
        y = y.transpose(1, 2).unflatten(2, (_DIRECTIONS, -1))  # (B, L, 4, D)
        return cross_merge(y, x.shape[1], x.shape[2])
