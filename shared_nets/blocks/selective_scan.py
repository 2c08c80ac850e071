"""The selective scan of Mamba: one function over several implementations that agree.

Shape letters: B batch, D channels, N states of a channel, L tokens, G groups that share B and C.

The recurrence, for every channel and state, with ``h`` zero at the start::

    h[t] = exp(delta[t] · A) · h[t-1] + delta[t] · B[t] · u[t]
    y[t] = Σ over the states of C[t] · h[t]

:func:`_scan_reference` is this, line by line; the other implementations are fast forms of it.

Reference:
    A. Gu, T. Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, algorithm 2.
"""

from __future__ import annotations

import os
from typing import Literal, get_args, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from shared_nets.blocks.selective_scan_cuda import has_cuda_kernel, scan_by_cuda_kernel
from shared_nets.blocks.selective_scan_extension import extension_problem, scan_by_extension
from shared_nets.blocks.selective_scan_torch import scan_in_blocks

ScanBackend = Literal["auto", "cuda", "extension", "torch", "reference"]
#: Environment variable that names the backend where the program does not.
SCAN_VARIABLE = "SHARED_NETS_SCAN"
_pinned: ScanBackend = "auto"


def set_scan_backend(backend: ScanBackend) -> None:
    """Choose what ``backend="auto"`` means in this process; ``auto`` undoes it.

    Raises:
        ValueError: the name is unknown.
    """
    global _pinned
    _pinned = _known(backend, "backend")


def scan_backend_in_use(device: str | torch.device = "cpu", *, backend: ScanBackend = "auto") -> ScanBackend:
    """Name the backend that scans float32 inputs on a device, as a result's provenance should state it.

    The first call may compile the extension.

    Args:
        device: where the inputs lie.
        backend: what the network was told.

    Raises:
        ValueError: the name is unknown.
    """
    return _choose(backend, torch.device(device), torch.float32, is_constant=False)


def _known(name: str, argument: str) -> ScanBackend:
    if name not in get_args(ScanBackend):
        raise ValueError(f"{argument} must be one of {', '.join(get_args(ScanBackend))}, got {name!r}.")
    return name  # type: ignore[return-value]


def _choose(
    asked: ScanBackend, device: torch.device, compute: torch.dtype, *, is_constant: bool
) -> ScanBackend:
    """Turn ``auto`` into a backend, by the pin, the environment, and what can; a name given is kept.

    A pinned backend scans what it can; only what an argument names must.
    """
    if _known(asked, "backend") != "auto":
        return asked
    wanted = _pinned if _pinned != "auto" else _known(os.environ.get(SCAN_VARIABLE, "auto"), SCAN_VARIABLE)
    if wanted in ("torch", "reference"):
        return wanted
    if compute == torch.float32:
        if device.type == "cuda" and wanted != "extension" and has_cuda_kernel():
            return "cuda"
        if device.type == "cpu" and wanted != "cuda" and not is_constant and extension_problem() is None:
            return "extension"
    return "torch"


# fmt: off
@overload
def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = ...,
    z: Tensor | None = ..., delta_bias: Tensor | None = ..., delta_softplus: bool = ...,
    return_last_state: Literal[False] = ..., backend: ScanBackend = ...,
) -> Tensor: ...
@overload
def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = ...,
    z: Tensor | None = ..., delta_bias: Tensor | None = ..., delta_softplus: bool = ..., *,
    return_last_state: Literal[True], backend: ScanBackend = ...,
) -> tuple[Tensor, Tensor]: ...
# fmt: on
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: ScanBackend = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Run a state space model whose step size and projections depend on the token.

    Shapes and meaning are those of mamba-ssm. Inputs of any floating type; the state is computed in float32,
    in float64 when ``u`` is float64.

    Args:
        u: input, ``(B, D, L)``.
        delta: step size, ``(B, D, L)``.
        A: decay rates, ``(D, N)``, real.
        B: input projection, ``(D, N)``, ``(B, N, L)`` or ``(B, G, N, L)``; G divides D.
        C: output projection, shaped like one of those.
        D: weight of the skip from input to output, ``(D,)``.
        z: gate, ``(B, D, L)``; the output is multiplied by ``silu(z)``.
        delta_bias: added to ``delta`` first, ``(D,)``.
        delta_softplus: whether ``delta`` then passes through softplus.
        return_last_state: whether to return the state after the last token, too.
        backend: which implementation. ``cuda`` is mamba-ssm's kernel, ``extension`` the C++ one, ``torch``
            needs neither, ``reference`` is there to be read. ``auto`` is what :func:`set_scan_backend` or the
            variable ``SHARED_NETS_SCAN`` says, and without them the first of these that can.

    Returns:
        Output ``(B, D, L)`` in the type of ``u``; with ``return_last_state`` also the state ``(B, D, N)``.

    Raises:
        ValueError: a shape does not fit, an input is complex, or the backend named cannot take these inputs.
        RuntimeError: the backend named is not usable on this machine.
    """
    _check(u, delta, A, B, C, D, z, delta_bias)
    dtype, compute = u.dtype, torch.float64 if u.dtype == torch.float64 else torch.float32
    is_constant = B.ndim == 2 or C.ndim == 2
    chosen = _choose(backend, u.device, compute, is_constant=is_constant)
    with torch.autocast(u.device.type, enabled=False):
        u, delta, A = _plain(u, compute), _plain(delta, compute), _plain(A, compute)
        B, C = _grouped(_plain(B, compute)), _grouped(_plain(C, compute))
        D, z, delta_bias = (None if x is None else _plain(x, compute) for x in (D, z, delta_bias))
        if chosen == "cuda":
            y, last_state = scan_by_cuda_kernel(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        elif chosen == "extension":
            if is_constant or compute != torch.float32 or u.device.type != "cpu":
                raise ValueError(
                    "Inputs must be at most float32, on the CPU, and B and C vary over tokens for backend "
                    f"'extension', got {dtype} on {u.device} with B {tuple(B.shape)} and C {tuple(C.shape)}."
                )
            y, last_state = scan_by_extension(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        else:
            scan = _scan_reference if chosen == "reference" else scan_in_blocks
            if delta_bias is not None:
                delta = delta + delta_bias[:, None]
            if delta_softplus:
                delta = F.softplus(delta)
            y, last_state = scan(u, delta, A, B, C)
            if D is not None:
                y = y + u * D[:, None]
            if z is not None:
                y = y * F.silu(z)
    out = y.to(dtype)
    return (out, last_state) if return_last_state else out


def _scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence token by token, as the paper has it: to be read, and to test the others by."""
    B, C = _by_channel(B, u), _by_channel(C, u)  # (B, D, N, L)
    h = u.new_zeros(u.shape[0], *A.shape)  # (B, D, N)
    y = []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]  # (B, D, 1)
        h = torch.exp(step * A) * h + step * B[..., t] * u[:, :, t, None]  # (B, D, N)
        y.append((h * C[..., t]).sum(dim=-1))  # (B, D)
    return torch.stack(y, dim=-1) if y else torch.zeros_like(u), h  # (B, D, L), (B, D, N)


def _plain(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Take what a subclass carries along off a tensor: it would slow every operation down."""
    return x.as_subclass(Tensor).to(dtype)


def _grouped(projection: Tensor) -> Tensor:
    """Give a projection that varies over tokens its dimension of groups."""
    return projection[:, None] if projection.ndim == 3 else projection


def _by_channel(projection: Tensor, u: Tensor) -> Tensor:
    """Give each channel and token its projection, ``(B, D, N, L)``."""
    if projection.ndim == 2:  # constant over tokens
        return projection[None, :, :, None].expand(u.shape[0], -1, -1, u.shape[2])
    return projection.repeat_interleave(u.shape[1] // projection.shape[1], dim=1)


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    if u.ndim != 3:
        raise ValueError(f"u must be shaped (B, D, L), got {tuple(u.shape)}.")
    if A.ndim != 2 or A.shape[0] != u.shape[1]:
        raise ValueError(f"A must be shaped (D, N) with D {u.shape[1]}, got {tuple(A.shape)}.")
    batch, channels, length = u.shape
    states = A.shape[1]
    given = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    for name, tensor in given.items():
        if tensor is not None and not tensor.is_floating_point():
            raise ValueError(f"{name} must be real floating point, got {tensor.dtype}.")
        if tensor is not None and tensor.device != u.device:
            raise ValueError(f"{name} must be on the device of u, {u.device}, got {tensor.device}.")
    for name, tensor in (("delta", delta), ("z", z)):
        if tensor is not None and tensor.shape != u.shape:
            raise ValueError(f"{name} must be shaped like u, {tuple(u.shape)}, got {tuple(tensor.shape)}.")
    for name, tensor in (("D", D), ("delta_bias", delta_bias)):
        if tensor is not None and tensor.shape != (channels,):
            raise ValueError(f"{name} must be shaped ({channels},), got {tuple(tensor.shape)}.")
    for name, tensor in (("B", B), ("C", C)):
        shape = tuple(tensor.shape)
        fits = shape == (channels, states) or shape == (batch, states, length)
        if tensor.ndim == 4:
            fits = shape == (batch, shape[1], states, length) and shape[1] > 0 and channels % shape[1] == 0
        if not fits:
            raise ValueError(
                f"{name} must be shaped (D, N), (B, N, L) or (B, G, N, L) with B {batch}, D {channels}, "
                f"N {states}, L {length} and G a divisor of D, got {shape}."
            )
