"""The selective scan by mamba-ssm's kernel for NVIDIA cards, where that package is installed."""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor


def has_cuda_kernel() -> bool:
    """Say whether mamba-ssm is installed."""
    return find_spec("mamba_ssm") is not None


def scan_by_cuda_kernel(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Run the whole selective scan on a card; arguments and results are those of ``selective_scan``.

    Raises:
        RuntimeError: mamba-ssm is not installed.
    """
    if not has_cuda_kernel():
        raise RuntimeError("mamba-ssm must be installed for backend 'cuda': pip install 'shared_nets[cuda]'.")
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn(
        u,
        delta,
        A,
        B,
        C,
        D=D,
        z=z,
        delta_bias=delta_bias,
        delta_softplus=delta_softplus,
        return_last_state=True,
    )
