"""The Mamba block: a gated state space model over a sequence of tokens.

Shape letters: B batch, L tokens, E width of a token, D inner channels, N states, R rank of the step size.

Parameters are named, shaped and initialised as in mamba-ssm, so that its checkpoints load.

Reference:
    A. Gu, T. Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, sections
    3.4 and 3.6.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared_nets.blocks.selective_scan import ScanBackend, selective_scan


class Mamba(nn.Module):
    """Mix tokens along the sequence; a token sees itself and those before it.

    Args:
        d_model: width of a token.
        d_state: states of a channel, N.
        d_conv: tokens that the causal convolution sees.
        expand: inner channels as a multiple of ``d_model``.
        dt_rank: rank of the step size's projection; ``auto`` is ``ceil(d_model / 16)``.
        dt_min: smallest step size at the start of training.
        dt_max: largest step size at the start of training.
        dt_init: how the step size's projection starts.
        dt_scale: multiplies that start.
        dt_init_floor: step sizes at the start are at least this.
        conv_bias: whether the convolution has a bias.
        bias: whether the input and output projections have one.
        scan_backend: see :func:`shared_nets.blocks.selective_scan.selective_scan`.

    Raises:
        ValueError: ``dt_init`` is unknown, or a size is not positive.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        scan_backend: ScanBackend = "auto",
    ) -> None:
        super().__init__()
        self.scan_backend: ScanBackend = scan_backend
        for name, size in {
            "d_model": d_model,
            "d_state": d_state,
            "d_conv": d_conv,
            "expand": expand,
        }.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}.")
        self.d_state = d_state
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        d_inner = expand * d_model
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=bias)
        self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, padding=d_conv - 1, groups=d_inner, bias=conv_bias)
        self.x_proj = nn.Linear(d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, d_inner, bias=True)
        init_dt_weight_(self.dt_proj.weight, mode=dt_init, scale=dt_scale)
        init_dt_bias_(self.dt_proj.bias, dt_min=dt_min, dt_max=dt_max, dt_init_floor=dt_init_floor)
        self.A_log = nn.Parameter(make_a_log(d_inner, d_state))
        self.D = nn.Parameter(torch.ones(d_inner))
        for parameter in (self.A_log, self.D):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]
        self.out_proj = nn.Linear(d_inner, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Pass tokens ``(B, L, E)`` on to tokens of the same shape."""
        u, z = self.in_proj(x).chunk(2, dim=-1)  # each (B, L, D)
        u = F.silu(causal_conv(u, self.conv1d.weight, self.conv1d.bias))  # (B, L, D)
        low, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = F.linear(low, self.dt_proj.weight)  # (B, L, D); the scan adds the bias
        y = selective_scan(
            u.transpose(1, 2),  # (B, D, L)
            delta.transpose(1, 2),
            decay_rates(self.A_log),
            B.transpose(1, 2),  # (B, N, L)
            C.transpose(1, 2),
            self.D,
            z=z.transpose(1, 2),
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            backend=self.scan_backend,
        )
        return self.out_proj(y.transpose(1, 2))  # (B, L, E)


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve each channel over a token and those before it.

    On a processor, sums of shifted products are several times as fast as ``conv1d`` with a group a channel.
    They also leave channels next to each other in memory, as linear layers and the scan like them.

    Args:
        x: tokens, ``(B, L, D)``.
        weight: as of ``conv1d``, ``(D, 1, K)``.
        bias: ``(D,)``.

    Returns:
        Tokens, ``(B, L, D)``.
    """
    length, size = x.shape[1], weight.shape[2]
    padded = F.pad(x, (0, 0, size - 1, 0))  # (B, K - 1 + L, D)
    out = padded[:, size - 1 :] * weight[:, 0, size - 1]  # (B, L, D)
    for k in range(size - 1):
        out = torch.addcmul(out, padded[:, k : k + length], weight[:, 0, k])
    return out if bias is None else out + bias


def make_a_log(channels: int, states: int) -> Tensor:
    """Make ``log(-A)`` with ``A[d, n] = -(n + 1)``, ``(D, N)`` (S4D-real)."""
    return torch.log(torch.arange(1, states + 1, dtype=torch.float32)).repeat(channels, 1)


def decay_rates(a_log: Tensor) -> Tensor:
    """Give A from the logarithm of its negative, in float32 at least: half precision would be too coarse."""
    return -torch.exp(a_log.to(torch.promote_types(a_log.dtype, torch.float32)))


def init_dt_weight_(weight: Tensor, *, mode: str, scale: float) -> None:
    """Fill the step size's projection ``(D, R)`` so that the variance at the start is kept."""
    bound = weight.shape[1] ** -0.5 * scale
    if mode == "constant":
        nn.init.constant_(weight, bound)
    elif mode == "random":
        nn.init.uniform_(weight, -bound, bound)
    else:
        raise ValueError(f"dt_init must be 'random' or 'constant', got {mode!r}.")


def init_dt_bias_(bias: Tensor, *, dt_min: float, dt_max: float, dt_init_floor: float) -> None:
    """Fill the step size's bias so that softplus gives log-uniform sizes, and mark it to stay so."""
    dt = torch.exp(torch.rand(bias.shape) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min))
    dt = dt.clamp(min=dt_init_floor)
    with torch.no_grad():
        bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
    bias._no_reinit = True  # type: ignore[attr-defined]


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split a module's trainable parameters for an optimiser into those that decay and those that do not.

    Biases, weights of normalisations and other vectors, and whatever is marked ``_no_weight_decay``
    (``A_log`` and ``D`` of the blocks) do not decay.

    Args:
        module: the network.
        weight_decay: decay of all others.

    Returns:
        Two groups, as an optimiser of torch takes them; a group without parameters is left out.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            is_kept = parameter.ndim < 2 or getattr(parameter, "_no_weight_decay", False)
            (kept if is_kept else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
