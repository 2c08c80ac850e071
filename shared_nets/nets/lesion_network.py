"""What every network for skin lesions shares: image tokens and metadata to an embedding, and that to logits.

Shape letters: B batch, C channels, H height, W width, L image tokens, T table tokens, F values of the
metadata, E width of a token, D width of the embedding, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from shared_nets.blocks.cross_modal_attention import CrossModalAttention
from shared_nets.blocks.local_global_gate import LocalGlobalGate
from shared_nets.blocks.mamba import Mamba
from shared_nets.blocks.tabular_tokens import TableSchema, TabularTokens


class ImageTokens(NamedTuple):
    """What the trunk says of each place, row by row, ``(B, L, E)``: before and after places were mixed."""

    local: Tensor
    global_: Tensor


class LesionFusion(nn.Module):
    """Join local tokens, global tokens and, where there is a table, its tokens.

    Args:
        embed_dim: width of a token.
        num_heads: heads of the attention from image to table; ``None`` leaves it out.
    """

    def __init__(self, *, embed_dim: int, num_heads: int | None) -> None:
        super().__init__()
        self.local_global_gate = LocalGlobalGate(embed_dim=embed_dim)
        self.cross_attn = (
            CrossModalAttention(embed_dim=embed_dim, num_heads=num_heads) if num_heads is not None else None
        )
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, image: ImageTokens, table: Tensor | None) -> Tensor:
        """Join the tokens of an image, and of a table ``(B, T, E)``, to image tokens ``(B, L, E)``."""
        x = self.local_global_gate(image.local, image.global_)  # (B, L, E)
        if self.cross_attn is not None and table is not None:
            x = self.cross_attn(x, table)
        return self.norm(x)


class LesionNetwork(nn.Module):
    """The part that every size shares: image tokens and metadata to an embedding, and that to logits.

    A subclass says how an image becomes tokens, in :meth:`image_tokens`. Without a schema there is no tabular
    part at all; with one, ``metadata=None`` and a row in which nothing is known give the same output.

    Args:
        num_classes: K.
        embed_dim: E.
        metadata_schema: what a row of metadata holds; ``None`` for images alone.
        num_heads: heads of the attention from image to metadata; ``None`` joins them only before the head.
        tabular_depth: transformer blocks among the values of a row.
        modality_dropout_rate: probability that a row is dropped in training.
        dropout_rate: dropout in the head.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dim: int,
        metadata_schema: TableSchema | None,
        num_heads: int | None,
        tabular_depth: int,
        modality_dropout_rate: float,
        dropout_rate: float,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be 1 or more, got {num_classes}.")
        has_metadata = metadata_schema is not None
        self.num_features = embed_dim * (2 if has_metadata else 1)
        #: Whether parts of the trunk are computed again in the backward pass rather than kept.
        self.use_checkpoint = False
        self.tabular_encoder = (
            TabularTokens(
                schema=metadata_schema,
                embed_dim=embed_dim,
                depth=tabular_depth,
                modality_dropout_rate=modality_dropout_rate,
            )
            if metadata_schema is not None
            else None
        )
        self.fusion = LesionFusion(embed_dim=embed_dim, num_heads=num_heads if has_metadata else None)
        self.classifier = nn.Sequential(
            nn.Linear(self.num_features, embed_dim),
            nn.LayerNorm(embed_dim),
            nn.GELU(),
            nn.Dropout(dropout_rate),
            nn.Linear(embed_dim, embed_dim // 2),
            nn.LayerNorm(embed_dim // 2),
            nn.GELU(),
            nn.Dropout(dropout_rate),
            nn.Linear(embed_dim // 2, num_classes),
        )

    def image_tokens(self, image: Tensor) -> ImageTokens:
        """Turn images ``(B, C, H, W)`` into tokens."""
        raise NotImplementedError

    def forward_features(self, image: Tensor, metadata: Tensor | None = None) -> Tensor:
        """Describe each lesion by one vector, from which the classifier starts.

        Args:
            image: photographs, scaled and normalised, ``(B, C, H, W)``.
            metadata: rows as the schema orders them, NaN or 0 where a value is missing, ``(B, F)``; ``None``
                where nothing is known.

        Returns:
            The embedding, ``(B, D)``: the mean of the image tokens, and with a schema the class token of the
            metadata behind it. D is ``num_features``.

        Raises:
            ValueError: a shape is wrong, or there are metadata for a network without a schema.
        """
        return self.fuse(self.image_tokens(image), metadata)

    def fuse(self, tokens: ImageTokens, metadata: Tensor | None = None) -> Tensor:
        """Do the part of :meth:`forward_features` that follows :meth:`image_tokens`.

        What comes before may be computed once for an image where it is not trained.

        Args:
            tokens: of images, each ``(B, L, E)``.
            metadata: see :meth:`forward_features`.

        Returns:
            The embedding, ``(B, D)``.

        Raises:
            ValueError: see :meth:`forward_features`.
        """
        table = self._table(metadata, len(tokens.local))
        x = self.fusion(tokens, table).mean(dim=1)  # (B, E)
        return x if table is None else torch.cat([x, table[:, 0]], dim=1)  # (B, D)

    def forward(self, image: Tensor, metadata: Tensor | None = None) -> Tensor:
        """Classify.

        Args:
            image: see :meth:`forward_features`.
            metadata: see there.

        Returns:
            Logits, ``(B, K)``.
        """
        return self.classifier(self.forward_features(image, metadata))

    def _table(self, metadata: Tensor | None, batch_size: int) -> Tensor | None:
        if self.tabular_encoder is None:
            if metadata is not None:
                raise ValueError("metadata must be None for a network without metadata_schema.")
            return None
        if metadata is None:
            metadata = self.tabular_encoder.nothing_known(batch_size)
        if len(metadata) != batch_size:
            raise ValueError(f"metadata must have one row an image, got {len(metadata)} for {batch_size}.")
        return self.tabular_encoder(metadata)


def initialise_linear(module: nn.Module, *, std: float = 0.02) -> None:
    """Start linear layers at a truncated normal and their biases at zero, except inside Mamba blocks.

    A Mamba block sets its own start, on which its time steps depend, and marks with ``_no_reinit`` what must
    never be set again.

    Args:
        module: whose layers are set.
        std: of the normal; a narrow network learns faster from a wider one.
    """
    if isinstance(module, Mamba):
        return
    if isinstance(module, nn.Linear):
        for parameter in (module.weight, module.bias):
            if parameter is None or getattr(parameter, "_no_reinit", False):
                continue
            if parameter is module.weight:
                nn.init.trunc_normal_(parameter, std=std)
            else:
                nn.init.zeros_(parameter)
    for child in module.children():
        initialise_linear(child, std=std)
