"""What the tests of several networks look at."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def kept_and_gradients():
    """Give ``kept_and_gradients(network, *inputs)``: numbers of values kept, and gradients."""

    def run(network: torch.nn.Module, *inputs: torch.Tensor) -> tuple[int, list[torch.Tensor]]:
        network.zero_grad()
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: (kept.append(tensor.numel()), tensor)[1], lambda tensor: tensor
        ):
            loss = network(*inputs).pow(2).sum()
        loss.backward()
        return sum(kept), [parameter.grad.clone() for parameter in network.parameters()]

    return run
