"""A row of a table as tokens, one a value, where any value may be missing.

Shape letters: B batch, N numbers, F = N + categories, T = 1 + F tokens, E embedding.

Reference:
    Y. Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021 (FT-Transformer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from shared_nets.blocks.transformer_block import TransformerBlock


class TableSchema(Protocol):
    """What a network must know of the table that it reads; the meaning of the values stays outside.

    A row holds ``num_numbers`` numbers, NaN where missing, then one number for every category, from 0
    (unknown) up to but without the count in ``category_sizes``.
    """

    @property
    def num_numbers(self) -> int:
        """How many numbers a row starts with."""

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """How many values each category has, unknown among them."""

    @property
    def sha256(self) -> str:
        """Hash of everything that gives a row its meaning, 64 hexadecimal digits."""


class TabularTokens(nn.Module):
    """Turn rows into tokens: a class token that summarises, then one a value.

    A number becomes its standardised value times a learned vector plus another one, or a learned vector where
    it is missing; a category becomes one of its learned vectors, of which the first stands for unknown. The
    tokens then look at each other. A row in which nothing is known becomes a learned null token, repeated; in
    training whole rows are dropped at random to the same end, so that a network learns to do without.

    Args:
        schema: what the row holds. Its hash lies in the state dict; weights of another schema are refused.
        embed_dim: width of a token.
        depth: transformer blocks among the tokens of a row.
        num_heads: attention heads of these; divides ``embed_dim``.
        mlp_ratio: width inside their MLP as a multiple of ``embed_dim``.
        modality_dropout_rate: probability that a row is dropped in training.

    Raises:
        ValueError: the rate is no probability, or the schema holds nothing.
    """

    numbers_mean: Tensor
    numbers_std: Tensor
    schema_sha256: Tensor

    def __init__(
        self,
        *,
        schema: TableSchema,
        embed_dim: int,
        depth: int = 2,
        num_heads: int = 8,
        mlp_ratio: float = 2.0,
        modality_dropout_rate: float = 0.3,
    ) -> None:
        super().__init__()
        if not 0.0 <= modality_dropout_rate < 1.0:
            raise ValueError(f"modality_dropout_rate must lie in [0, 1), got {modality_dropout_rate}.")
        self.num_numbers = schema.num_numbers
        self.num_features = schema.num_numbers + len(schema.category_sizes)
        if not self.num_features:
            raise ValueError("schema must hold a number or a category, got neither.")
        self.modality_dropout_rate = modality_dropout_rate
        self.register_buffer("schema_sha256", torch.tensor(list(bytes.fromhex(schema.sha256))).byte())
        self.register_buffer("numbers_mean", torch.zeros(self.num_numbers))
        self.register_buffer("numbers_std", torch.ones(self.num_numbers))

        self.number_weight = nn.Parameter(torch.empty(self.num_numbers, embed_dim))
        self.number_bias = nn.Parameter(torch.empty(self.num_numbers, embed_dim))
        self.missing_embed = nn.Parameter(torch.empty(self.num_numbers, embed_dim))
        self.cat_embeddings = nn.ModuleList(nn.Embedding(size, embed_dim) for size in schema.category_sizes)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.null_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.blocks = nn.ModuleList(
            TransformerBlock(embed_dim=embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the tokens anew, at random."""
        for parameter in (self.number_weight, self.number_bias, self.missing_embed, self.cls_token):
            nn.init.trunc_normal_(parameter, std=0.02)
        nn.init.trunc_normal_(self.null_token, std=0.02)
        for parameter in self.cat_embeddings.parameters():
            nn.init.trunc_normal_(parameter, std=0.02)

    def set_statistics(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Store how numbers are standardised; both come from training data alone, missing values left out.

        Args:
            mean: of each number, in its unit, ``(N,)``.
            std: likewise, above 0.

        Raises:
            ValueError: there is not one for each number, or one cannot be used.
        """
        mean, std = torch.as_tensor(mean, dtype=torch.float32), torch.as_tensor(std, dtype=torch.float32)
        for name, value in (("mean", mean), ("std", std)):
            if value.shape != (self.num_numbers,) or not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name} must hold {self.num_numbers} finite numbers, got {value.tolist()}.")
        if not bool((std > 0).all()):
            raise ValueError(f"std must be above 0, got {std.tolist()}.")
        self.numbers_mean.copy_(mean)
        self.numbers_std.copy_(std)

    def forward(self, rows: Tensor) -> Tensor:
        """Turn rows into tokens.

        Args:
            rows: numbers, NaN where missing, then categories, 0 where unknown; ``(B, F)``.

        Returns:
            Tokens, the class token first, ``(B, T, E)``.

        Raises:
            ValueError: the rows have another width.
        """
        if rows.ndim != 2 or rows.shape[1] != self.num_features:
            raise ValueError(f"metadata must have shape (B, {self.num_features}), got {tuple(rows.shape)}.")
        numbers = rows[:, : self.num_numbers].float()  # (B, N)
        categories = rows[:, self.num_numbers :].nan_to_num(nan=0.0).long()  # (B, F - N)
        is_missing = numbers.isnan()
        is_null = is_missing.all(dim=1) & (categories == 0).all(dim=1)  # (B,)
        if self.training and self.modality_dropout_rate:
            is_null = is_null | (torch.rand(len(rows), device=rows.device) < self.modality_dropout_rate)
        scaled = ((numbers - self.numbers_mean) / self.numbers_std).nan_to_num(nan=0.0)
        known = scaled.unsqueeze(-1) * self.number_weight + self.number_bias  # (B, N, E)
        tokens = [
            self.cls_token.expand(len(rows), -1, -1),
            torch.where(is_missing.unsqueeze(-1), self.missing_embed, known),
            *(embed(categories[:, [i]]) for i, embed in enumerate(self.cat_embeddings)),
        ]
        x = torch.cat(tokens, dim=1)  # (B, T, E)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return torch.where(is_null[:, None, None], self.null_token.to(x.dtype), x)

    def nothing_known(self, batch_size: int) -> Tensor:
        """Give rows in which every value is missing, ``(B, F)``."""
        rows = self.numbers_mean.new_zeros(batch_size, self.num_features)
        rows[:, : self.num_numbers] = float("nan")
        return rows

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Refuse weights of another schema, however alike in shape."""
        ours = self.schema_sha256.detach().clone()
        theirs = state_dict.get(f"{prefix}schema_sha256")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if isinstance(theirs, Tensor) and not torch.equal(theirs.to(ours.device), ours):
            made_with, wanted = (bytes(value.flatten().tolist()).hex()[:12] for value in (theirs, ours))
            self.schema_sha256.copy_(ours)
            error_msgs: list[str] = args[-1] if args else kwargs["error_msgs"]
            error_msgs.append(
                f"the weights were made with the metadata schema {made_with}…, this network has {wanted}…; "
                "their values would be read as others."
            )
