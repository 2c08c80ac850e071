"""Let every image token ask the values of a table, one token a value.

Shape letters: B batch, L image tokens, T table tokens, E embedding, A heads, D head dimension.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class CrossModalAttention(nn.Module):
    """Attend from image tokens (queries) to table tokens (keys and values), as a residual branch.

    Args:
        embed_dim: width of a token.
        num_heads: attention heads; divides ``embed_dim``.
        dropout_rate: share of attention weights dropped in training.

    Raises:
        ValueError: ``num_heads`` does not divide ``embed_dim``.

    Reference:
        A. Vaswani et al., "Attention Is All You Need", 2017, equation 1; the scale is ``1 / √D``.
    """

    def __init__(self, *, embed_dim: int, num_heads: int = 8, dropout_rate: float = 0.1) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"num_heads must divide embed_dim {embed_dim}, got {num_heads}.")
        self.num_heads = num_heads
        self.dropout_rate = dropout_rate
        self.norm_img = nn.LayerNorm(embed_dim)
        self.norm_tab = nn.LayerNorm(embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def attention(self, image_tokens: Tensor, table_tokens: Tensor) -> Tensor:
        """Say where every image token looks.

        Args:
            image_tokens: ``(B, L, E)``.
            table_tokens: ``(B, T, E)``.

        Returns:
            Weights, ``(B, A, L, T)``; they add up to 1 over ``T``.
        """
        query, key, _ = self._project(image_tokens, table_tokens)
        return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1)  # (B, A, L, T)

    def forward(self, image_tokens: Tensor, table_tokens: Tensor) -> Tensor:
        """Add to every image token what it reads in the table.

        Args:
            image_tokens: ``(B, L, E)``.
            table_tokens: ``(B, T, E)``.

        Returns:
            Image tokens, ``(B, L, E)``.
        """
        query, key, value = self._project(image_tokens, table_tokens)
        dropout_rate = self.dropout_rate if self.training else 0.0
        read = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout_rate)  # (B, A, L, D)
        return image_tokens + self.out_proj(read.transpose(1, 2).flatten(2))  # (B, L, E)

    def _project(self, image_tokens: Tensor, table_tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image_tokens, table_tokens = self.norm_img(image_tokens), self.norm_tab(table_tokens)
        query = self._split(self.q_proj(image_tokens))  # (B, A, L, D)
        return query, self._split(self.k_proj(table_tokens)), self._split(self.v_proj(table_tokens))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, A, tokens, D)
