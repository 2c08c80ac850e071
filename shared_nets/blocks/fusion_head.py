"""Heads for few people: many small heads whose logits are averaged, and stage logits that respect the order.

Shape letters: B batch, F features, H hidden, M members, O outputs, K stages.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MemberLinear(nn.Module):
    """A linear layer for each of several members, computed at once.

    Args:
        in_features: inputs of a member.
        out_features: outputs of a member.
        num_members: how many there are.
    """

    def __init__(self, *, in_features: int, out_features: int, num_members: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_members, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(num_members, 1, out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew, at random."""
        bound = 1.0 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(M, B, in)`` to ``(M, B, out)``, each member by its own weights."""
        return torch.baddbmm(self.bias, x, self.weight)


class FusionHead(nn.Module):
    """Average the logits of several small heads, each a linear map plus a two-layer perceptron.

    The members differ by their random start, and by dropout in training; their mean is smoother than any of
    them, which is what a few hundred people call for. The linear map starts at zero.

    Args:
        in_features: width of the input.
        out_features: number of logits.
        hidden_features: width of a member's hidden layer.
        num_members: how many heads are averaged.
        dropout_rate: dropout on the input and on the hidden layer.
    """

    def __init__(
        self,
        *,
        in_features: int,
        out_features: int,
        hidden_features: int = 32,
        num_members: int = 8,
        dropout_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_members = num_members
        self.linear = MemberLinear(
            in_features=in_features, out_features=out_features, num_members=num_members
        )
        self.fc1 = MemberLinear(
            in_features=in_features, out_features=hidden_features, num_members=num_members
        )
        self.fc2 = MemberLinear(
            in_features=hidden_features, out_features=out_features, num_members=num_members
        )
        self.dropout = nn.Dropout(dropout_rate)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew: the linear map at zero, the perceptron at random."""
        self.fc1.reset_parameters()
        self.fc2.reset_parameters()
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def member_logits(self, x: Tensor) -> Tensor:
        """Map features of every member ``(M, B, F)`` to their logits ``(M, B, O)``."""
        x = self.dropout(x)  # each member drops its own
        hidden = self.dropout(F.gelu(self.fc1(x)))  # (M, B, H)
        return self.linear(x) + self.fc2(hidden)  # (M, B, O)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(B, F)`` to logits ``(B, O)``."""
        return self.member_logits(x.expand(self.num_members, *x.shape)).mean(dim=0)


class OrdinalLogits(nn.Module):
    """Turn one score into logits of ordered stages (proportional odds).

    P(stage worse than k) = σ(score − threshold k), with ascending thresholds; the logits are the logarithms
    of the stages' probabilities, so that a softmax gives them back.

    Args:
        num_stages: how many there are, 2 or more.

    Reference:
        P. McCullagh, "Regression Models for Ordinal Data", J R Stat Soc B 1980.
    """

    def __init__(self, *, num_stages: int) -> None:
        super().__init__()
        self.first_threshold = nn.Parameter(torch.tensor([-1.0]))
        self.log_gaps = nn.Parameter(torch.zeros(num_stages - 2))

    def forward(self, score: Tensor) -> Tensor:
        """Map scores ``(…, 1)`` to logits ``(…, K)``, best stage first."""
        thresholds = torch.cat([self.first_threshold, self.log_gaps.exp()]).cumsum(dim=0)  # (K−1,)
        margin = score - thresholds  # (…, K−1)
        log_worse = F.logsigmoid(margin)  # ln P(stage > k)
        log_not_worse = F.logsigmoid(-margin)
        # between two thresholds: ln(P(> k−1) − P(> k)), written so that no difference of near-equals is taken
        log_between = (
            log_worse[..., :-1] + log_not_worse[..., 1:] + torch.log(-torch.expm1(-self.log_gaps.exp()))
        )
        return torch.cat([log_not_worse[..., :1], log_between, log_worse[..., -1:]], dim=-1)  # (…, K)
