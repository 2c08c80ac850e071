"""The selective scan in plain torch, by blocks of tokens that fit a processor's cache.

Shape letters: B batch, D channels, N states, L tokens, G groups, P = B · G, E = D / G, T tokens of a block.

A block's factors are computed at once into buffers that all blocks share; then one fused operation a token
moves the state on. The backward pass does not store states: it keeps the state at each block's start, and
computes a block's states again, last block first. Nothing is divided and no sum of logarithms is taken, so
that steps of any size stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Bytes of one buffer: two or three of them stay in a core's cache.
_BUFFER_BYTES = 1 << 20


def scan_in_blocks(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence; differentiable once.

    Args:
        u: input, ``(B, D, L)``, float32 or float64; all others have its type.
        delta: step size as it is used, ``(B, D, L)``.
        A: decay rates, ``(D, N)``.
        B: input projection, ``(D, N)`` or ``(B, G, N, L)``.
        C: output projection, likewise.

    Returns:
        Output ``(B, D, L)``, and the state after the last token, ``(B, D, N)``.
    """
    batch, channels, length = u.shape
    groups = max(x.shape[1] if x.ndim == 4 else 1 for x in (B, C))
    if any(x.ndim == 4 and x.shape[1] not in (1, groups) and groups % x.shape[1] for x in (B, C)):
        groups = channels  # B and C are grouped differently
    fold = (length, batch * groups, channels // groups)  # (L, P, E)
    y, last = _BlockScan.apply(
        u.permute(2, 0, 1).reshape(fold),
        delta.permute(2, 0, 1).reshape(fold),
        _fold_constant(A, batch, groups),
        _fold(B, batch, groups),
        _fold(C, batch, groups),
    )
    y = y.view(length, batch, channels).permute(1, 2, 0)  # (B, D, L)
    last = last.view(batch, groups, -1, channels // groups).transpose(2, 3)  # (B, G, E, N)
    return y, last.reshape(batch, channels, -1)


def _fold_constant(x: Tensor, batch: int, groups: int) -> Tensor:
    """Turn ``(D, N)`` into ``(P, N, E)``."""
    channels, states = x.shape
    x = x.view(groups, channels // groups, states) if x.is_contiguous() else x.reshape(groups, -1, states)
    return x.transpose(1, 2).repeat(batch, 1, 1)  # (P, N, E)


def _fold(x: Tensor, batch: int, groups: int) -> Tensor:
    """Turn a projection into ``(L, P, N)``, or ``(P, N, E)`` where it is constant over tokens."""
    if x.ndim == 2:
        return _fold_constant(x, batch, groups)[None]  # (1, P, N, E)
    x = x.repeat_interleave(groups // x.shape[1], dim=1)  # (B, G, N, L)
    return x.permute(3, 0, 1, 2).reshape(x.shape[3], batch * groups, -1)[..., None]  # (L, P, N, 1)


class _Buffers:
    """Memory for ``count`` blocks, and views of each token, which all blocks of a pass use again."""

    def __init__(self, count: int, like: Tensor, shape: torch.Size, length: int) -> None:
        state_bytes = max(1, shape[0] * shape[1] * shape[2] * like.element_size())
        self.tokens = max(1, min(length, _BUFFER_BYTES // state_bytes))
        self.blocks = [like.new_empty(self.tokens, *shape) for _ in range(count)]
        self.rows = [block.unbind(0) for block in self.blocks]


def _contract_states(states: Tensor, projection: Tensor) -> Tensor:
    """Sum over N: ``(T, P, N, E)`` by ``(T, P, N, 1)`` or ``(1, P, N, E)`` to ``(T, P, E)``."""
    if projection.shape[-1] == states.shape[-1] and projection.shape[0] == 1:
        return (states * projection).sum(dim=2)
    T, P, N, E = states.shape
    left = projection.reshape(T * P, 1, N)
    return torch.bmm(left, states.view(T * P, N, E)).view(T, P, E)


def _projection_gradient(states: Tensor, channels: Tensor, projection: Tensor) -> Tensor:
    """Give the gradient of a projection, shaped like it, from ``(T, P, N, E)`` and ``(T, P, E)``."""
    if projection.shape[-1] == states.shape[-1] and projection.shape[0] == 1:
        return (states * channels[:, :, None]).sum(dim=0, keepdim=True)  # (1, P, N, E)
    T, P, N, E = states.shape
    out = torch.bmm(states.view(T * P, N, E), channels.reshape(T * P, E, 1))
    return out.view(T, P, N, 1)


def _rows(x: Tensor, start: int, stop: int) -> Tensor:
    return x if x.shape[0] == 1 else x[start:stop]


def _run_block(
    decay: Tensor,
    states: Tensor,
    rows: tuple[Sequence[Tensor], Sequence[Tensor]],
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
) -> Tensor:
    """Fill ``decay`` and ``states``, both ``(T, P, N, E)``, for one block; return its last state."""
    torch.mul(delta[:, :, None], A, out=decay)
    decay.exp_()
    torch.mul((delta * u)[:, :, None], B, out=states)
    for decay_row, state_row in zip(*rows, strict=True):
        state = state_row.addcmul_(decay_row, state)
    return state


class _BlockScan(torch.autograd.Function):
    """The scan over ``u, delta (L, P, E)``, ``A (P, N, E)``, ``B, C (L, P, N, 1)`` or ``(1, P, N, E)``."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
    ) -> tuple[Tensor, Tensor]:
        length = u.shape[0]
        buffers = _Buffers(2, u, A.shape, length)
        (decay, states), (decay_rows, state_rows) = buffers.blocks, buffers.rows
        state = A.new_zeros(A.shape)  # (P, N, E)
        y = torch.empty_like(u)
        starts = []
        keep = any(ctx.needs_input_grad)
        for start in range(0, length, buffers.tokens):
            if keep:
                starts.append(state.clone())
            stop = min(length, start + buffers.tokens)
            T = stop - start
            state = _run_block(
                decay[:T],
                states[:T],
                (decay_rows[:T], state_rows[:T]),
                state,
                u[start:stop],
                delta[start:stop],
                A,
                _rows(B, start, stop),
            )
            y[start:stop] = _contract_states(states[:T], _rows(C, start, stop))
            state = state.clone()
        ctx.save_for_backward(u, delta, A, B, C, *starts)
        return y, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, *starts = ctx.saved_tensors
        length = u.shape[0]
        buffers = _Buffers(3, u, A.shape, length)
        grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
        grad_A, grad_B, grad_C = (torch.zeros_like(x) for x in (A, B, C))
        carry = grad_last.clone()  # gradient that reaches a block's last state from later tokens
        with torch.autocast(u.device.type, enabled=False):
            for index in reversed(range(len(starts))):
                start = index * buffers.tokens
                stop = min(length, start + buffers.tokens)
                T = stop - start
                decay, states, grads = (block[:T] for block in buffers.blocks)
                decay_rows, state_rows, grad_rows = (rows[:T] for rows in buffers.rows)
                here_u, here_delta, here_gy = u[start:stop], delta[start:stop], grad_y[start:stop]
                here_B, here_C = _rows(B, start, stop), _rows(C, start, stop)
                _run_block(
                    decay, states, (decay_rows, state_rows), starts[index], here_u, here_delta, A, here_B
                )
                torch.mul(here_gy[:, :, None], here_C, out=grads)
                grad_rows[T - 1].add_(carry)
                for t in range(T - 2, -1, -1):
                    grad_rows[t].addcmul_(decay_rows[t + 1], grad_rows[t + 1])
                torch.mul(decay_rows[0], grad_rows[0], out=carry)

                _rows(grad_C, start, stop).add_(_projection_gradient(states, here_gy, here_C))
                product = here_delta * here_u
                _rows(grad_B, start, stop).add_(_projection_gradient(grads, product, here_B))
                grad_product = _contract_states(grads, here_B)  # (T, P, E)
                # gradient of delta · A, written over the factors: grad · decay · state before
                decay.mul_(grads)
                decay[0].mul_(starts[index])
                decay[1:].mul_(states[:-1])
                grad_A.add_((decay * here_delta[:, :, None]).sum(dim=0))
                grad_u[start:stop] = grad_product * here_delta
                grad_delta[start:stop] = (decay * A).sum(dim=2).addcmul_(grad_product, here_u)
        return grad_u, grad_delta, grad_A, grad_B, grad_C
