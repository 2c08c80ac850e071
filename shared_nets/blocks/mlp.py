"""The two-layer perceptron of a transformer block."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Mlp(nn.Module):
    """Transform each token on its own: linear, GELU, linear.

    Args:
        embed_dim: width of a token.
        hidden_dim: width in between.
        bias: whether both linear layers have a bias.
    """

    def __init__(self, *, embed_dim: int, hidden_dim: int, bias: bool = True) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim, bias=bias)
        self.fc2 = nn.Linear(hidden_dim, embed_dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens ``(..., E)`` to tokens of the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))
