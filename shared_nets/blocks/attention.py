"""Multi-head self-attention through torch's fused kernel.

Shape letters: B batch, L tokens, E embedding, A heads, D head dimension.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Let every token look at every other one.

    The query, key and value projections are one linear layer, ``qkv``, with rows in that order, as in
    public DINO and DINOv2 checkpoints.

    Args:
        embed_dim: width of a token.
        num_heads: number of heads; divides ``embed_dim``.
        qkv_bias: whether the joint projection has a bias.
        proj_bias: whether the output projection has a bias.

    Raises:
        ValueError: ``num_heads`` does not divide ``embed_dim``.

    Reference:
        A. Vaswani et al., "Attention Is All You Need", 2017, equation 1.
    """

    def __init__(
        self, *, embed_dim: int, num_heads: int, qkv_bias: bool = True, proj_bias: bool = True
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"num_heads must divide embed_dim {embed_dim}, got {num_heads}.")
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias)
        self.proj = nn.Linear(embed_dim, embed_dim, bias=proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attend.

        Args:
            x: tokens, ``(B, L, E)``.

        Returns:
            Tokens, ``(B, L, E)``.
        """
        B, L, E = x.shape
        qkv = self.qkv(x).view(B, L, 3, self.num_heads, E // self.num_heads)  # (B, L, 3, A, D)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, A, L, D)
        x = F.scaled_dot_product_attention(query, key, value)  # (B, A, L, D)
        return self.proj(x.transpose(1, 2).reshape(B, L, E))  # (B, L, E)
