"""Bring the vectors of a bag of slices to one vector: gated attention, and the mean it is compared with.

Shape letters: B bags, S slices, E features, A attention width.

Reference:
    M. Ilse, J. Tomczak, M. Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018, eq. 9.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GatedAttentionPooling(nn.Module):
    """Average the slices of a bag with learned weights that add up to 1 over the valid slices.

    Args:
        features: width of a slice vector.
        attention_features: width of the hidden layer that scores slices.
    """

    def __init__(self, *, features: int, attention_features: int = 64) -> None:
        super().__init__()
        self.value = nn.Linear(features, attention_features)
        self.gate = nn.Linear(features, attention_features)
        self.score = nn.Linear(attention_features, 1, bias=False)  # a softmax ignores a common shift

    def attention(self, x: Tensor, is_valid: Tensor) -> Tensor:
        """Say how much each slice counts.

        Args:
            x: slice vectors, ``(B, S, E)``.
            is_valid: true where a slice holds an image, ``(B, S)`` bool.

        Returns:
            Weights, ``(B, S)``; 0 for invalid slices, and for all slices of a bag without a valid one.
        """
        scores = self.score(torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x))).squeeze(-1)  # (B, S)
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(~is_valid, lowest).softmax(dim=1)
        return weights * is_valid  # an empty bag would otherwise get equal weights

    def forward(self, x: Tensor, is_valid: Tensor) -> Tensor:
        """Pool slice vectors ``(B, S, E)`` with validity ``(B, S)`` to bag vectors ``(B, E)``."""
        return torch.einsum("bs,bse->be", self.attention(x, is_valid), x)  # (B, E)


class MaskedMeanPooling(nn.Module):
    """Average the valid slices of a bag; a bag without a valid slice becomes zero."""

    def forward(self, x: Tensor, is_valid: Tensor) -> Tensor:
        """Pool slice vectors ``(B, S, E)`` with validity ``(B, S)`` to bag vectors ``(B, E)``."""
        weights = is_valid.to(x.dtype)
        return torch.einsum("bs,bse->be", weights, x) / weights.sum(dim=1, keepdim=True).clamp(min=1.0)


class ConcatPooling(nn.Module):
    """Lay the slices of a bag end to end; invalid slices become zeros.

    Args:
        num_slices: slices in every bag.

    Raises:
        ValueError: ``forward`` gets another number of slices.
    """

    def __init__(self, *, num_slices: int) -> None:
        super().__init__()
        self.num_slices = num_slices

    def forward(self, x: Tensor, is_valid: Tensor) -> Tensor:
        """Pool slice vectors ``(B, S, E)`` with validity ``(B, S)`` to bag vectors ``(B, S·E)``."""
        if x.shape[1] != self.num_slices:
            raise ValueError(
                f"image must hold {self.num_slices} slices for concat pooling, got {x.shape[1]}."
            )
        return (x * is_valid.unsqueeze(-1)).flatten(1)  # (B, S·E)
