"""The selective scan in plain torch, by blocks of tokens that fit a processor's cache.

Shape letters: B batch, D channels, N states, L tokens, G groups, P = B · G, E = D / G, T tokens of a block.

A block's factors are computed at once into buffers that all blocks share; then one fused operation a token
moves the state on. The backward pass does not store states: it keeps the state at each block's start, and
computes a block's states again, last block first. Nothing is divided and no sum of logarithms is taken, so
that steps of any size stay exact.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Bytes of one buffer: two or three of them stay in a core's cache.
BUFFER_BYTES = 1 << 20
_LOG2_E = math.log2(math.e)


def scan_in_blocks(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Run the recurrence; differentiable once.

    Args:
        u: input, ``(B, D, L)``, float32 or float64; all others have its type.
        delta: step size as it is used, ``(B, D, L)``.
        A: decay rates, ``(D, N)``.
        B: input projection, ``(D, N)`` or ``(B, G, N, L)``.
        C: output projection, likewise; its G may differ.

    Returns:
        Output ``(B, D, L)``, and the state after the last token, ``(B, D, N)``.
    """
    batch, channels, _ = u.shape
    groups = math.lcm(*(x.shape[1] for x in (B, C) if x.ndim == 4))
    rate = _fold_constant(A, batch, groups)  # (P, N, E)
    y, last = _BlockScan.apply(u, delta, rate, _fold(B, batch, groups), _fold(C, batch, groups))
    last = last.view(batch, groups, A.shape[1], channels // groups).transpose(2, 3)  # (B, G, E, N)
    return y, last.flatten(1, 2)  # (B, D, N)


def _fold_constant(x: Tensor, batch: int, groups: int) -> Tensor:
    """Turn ``(D, N)`` into ``(P, N, E)``."""
    channels, states = x.shape
    return x.reshape(groups, channels // groups, states).transpose(1, 2).repeat(batch, 1, 1)


def _fold(x: Tensor, batch: int, groups: int) -> Tensor:
    """Turn a projection into ``(L, P, N, 1)``, or ``(1, P, N, E)`` where it is constant over tokens."""
    if x.ndim == 2:
        return _fold_constant(x, batch, groups)[None]
    x = x.repeat_interleave(groups // x.shape[1], dim=1).permute(3, 0, 1, 2)  # (L, B, G, N)
    return x.flatten(1, 2).contiguous()[..., None]


class _BlockScan(torch.autograd.Function):
    """The scan over ``u, delta (B, D, L)``, ``A (P, N, E)``, ``B, C (L, P, N, 1)`` or ``(1, P, N, E)``."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
        work = _Workspace(u, A, buffers=2)
        state = torch.zeros_like(A)  # (P, N, E)
        y = torch.empty_like(u)
        starts = []
        for block in work.blocks:
            if any(ctx.needs_input_grad):
                starts.append(state.clone())
            here_u, here_delta = work.take(u, block), work.take(delta, block)  # each (T, P, E)
            states = work.run(block, state, here_u, here_delta, _rows(B, block))  # (T, P, N, E)
            work.put(_sum_states(states, _rows(C, block)), y, block)
            state.copy_(states[-1])
        ctx.save_for_backward(u, delta, A, B, C, *starts)
        return y, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, *starts = ctx.saved_tensors
        with torch.autocast(u.device.type, enabled=False):
            return _backward(grad_y, grad_last, u, delta, A, B, C, starts)


def _backward(
    grad_y: Tensor,
    grad_last: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    starts: list[Tensor],
) -> tuple[Tensor, ...]:
    """Go through the blocks from the last to the first; with ``g`` the gradient of a state ``h``::

    g[t] = grad_y[t] · C[t] + exp(delta[t+1] · A) · g[t+1]
    """
    work = _Workspace(u, A, buffers=3)
    grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
    grad_A, grad_B, grad_C = torch.zeros_like(A), torch.zeros_like(B), torch.zeros_like(C)
    later = grad_last.clone()  # what reaches a block's last state from the tokens after it, (P, N, E)
    for block, start in zip(reversed(work.blocks), reversed(starts), strict=True):
        here_u, here_delta, here_grad = (work.take(x, block) for x in (u, delta, grad_y))  # each (T, P, E)
        here_B, here_C = _rows(B, block), _rows(C, block)
        states = work.run(block, start, here_u, here_delta, here_B)  # (T, P, N, E)
        decay, _, grads = work.views(block)  # each (T, P, N, E)
        decay_rows, _, grad_rows = work.rows
        torch.mul(here_grad[:, :, None], here_C, out=grads)
        last = len(states) - 1
        grad_rows[last].add_(later)
        for t in range(last, 0, -1):
            grad_rows[t - 1].addcmul_(decay_rows[t], grad_rows[t])
        torch.mul(decay_rows[0], grad_rows[0], out=later)

        _rows(grad_C, block).add_(_sum_channels(states, here_grad, here_C))
        _rows(grad_B, block).add_(_sum_channels(grads, here_delta * here_u, here_B))
        grad_input = _sum_states(grads, here_B)  # of delta · u, (T, P, E)
        work.put(grad_input * here_delta, grad_u, block)
        # The gradient of delta · A, which is g · exp(delta · A) · the state before, replaces the factors.
        decay.mul_(grads)
        decay[0].mul_(start)
        decay[1:].mul_(states[:-1])
        grad_A.add_(torch.mul(decay, here_delta[:, :, None], out=grads).sum(dim=0))
        grad_step = torch.mul(decay, A, out=grads).sum(dim=2).addcmul_(grad_input, here_u)  # (T, P, E)
        work.put(grad_step, grad_delta, block)
    return grad_u, grad_delta, grad_A, grad_B, grad_C


class _Workspace:
    """Buffers ``(T, P, N, E)`` and views of their tokens, made once and used by all blocks of a pass."""

    def __init__(self, u: Tensor, A: Tensor, *, buffers: int) -> None:
        length, state_bytes = u.shape[2], max(1, A.numel() * A.element_size())
        tokens = max(1, min(length, BUFFER_BYTES // state_bytes))
        self.blocks = [slice(start, min(length, start + tokens)) for start in range(0, length, tokens)]
        self._buffers = [u.new_empty(tokens, *A.shape) for _ in range(buffers)]
        self.rows = [buffer.unbind(0) for buffer in self._buffers]
        self._rate = A * _LOG2_E  # exp2 is the faster one in torch

    def views(self, block: slice) -> list[Tensor]:
        """Give the buffers as long as a block."""
        return [buffer[: block.stop - block.start] for buffer in self._buffers]

    def take(self, x: Tensor, block: slice) -> Tensor:
        """Copy a block out of ``(B, D, L)``, tokens first, ``(T, P, E)``."""
        tokens_first = x[:, :, block].permute(2, 0, 1).contiguous()  # (T, B, D)
        return tokens_first.view(len(tokens_first), self._rate.shape[0], self._rate.shape[2])

    def put(self, value: Tensor, x: Tensor, block: slice) -> None:
        """Write a block ``(T, P, E)`` to its place in ``(B, D, L)``."""
        x[:, :, block] = value.view(len(value), *x.shape[:2]).permute(1, 2, 0)

    def run(self, block: slice, state: Tensor, u: Tensor, delta: Tensor, B: Tensor) -> Tensor:
        """Fill the first buffer with a block's factors and the second with its states, which it returns."""
        decay, states, *_ = self.views(block)
        torch.mul(delta[:, :, None], self._rate, out=decay).exp2_()
        torch.mul((delta * u)[:, :, None], B, out=states)
        for decay_row, state_row in zip(self.rows[0][: len(states)], self.rows[1], strict=False):
            state = state_row.addcmul_(decay_row, state)
        return states


def _rows(projection: Tensor, block: slice) -> Tensor:
    return projection if projection.shape[0] == 1 else projection[block]


def _is_constant(projection: Tensor, states: Tensor) -> bool:
    return projection.shape[0] == 1 and projection.shape[-1] == states.shape[-1]


def _sum_states(states: Tensor, projection: Tensor) -> Tensor:
    """Weight ``(T, P, N, E)`` by a projection and sum over N, ``(T, P, E)``."""
    if _is_constant(projection, states):
        return (states * projection).sum(dim=2)
    T, P, N, E = states.shape
    return torch.bmm(projection.reshape(T * P, 1, N), states.view(T * P, N, E)).view(T, P, E)


def _sum_channels(states: Tensor, channels: Tensor, projection: Tensor) -> Tensor:
    """Give the gradient of a projection, shaped like it, from ``(T, P, N, E)`` and ``(T, P, E)``."""
    if _is_constant(projection, states):
        return (states * channels[:, :, None]).sum(dim=0, keepdim=True)
    T, P, N, E = states.shape
    return torch.bmm(states.view(T * P, N, E), channels.reshape(T * P, E, 1)).view(T, P, N, 1)
