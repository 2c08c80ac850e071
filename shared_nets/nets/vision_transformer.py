"""A vision transformer that public DINO, DINOv2 and RAD-DINO weights fit, and its sizes.

Shape letters: B batch, C channels, H height, W width, N patches, R registers, L = 1 + R + N tokens,
E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shared_nets.blocks.checkpointing import run_part
from shared_nets.blocks.patch_embed import PatchEmbed
from shared_nets.blocks.position_embedding import resize_position_embedding
from shared_nets.blocks.transformer_block import TransformerBlock, layer_norm


class ViTFeatures(NamedTuple):
    """What the trunk says about each image: the class token, the registers, and one token a patch.

    ``cls_token`` is ``(B, E)``, ``register_tokens`` ``(B, R, E)`` (``R`` may be 0), and ``patch_tokens``
    ``(B, N, E)``, row by row.
    """

    cls_token: Tensor
    register_tokens: Tensor
    patch_tokens: Tensor


class VisionTransformer(nn.Module):
    """Encode an image of any size that the patch size divides.

    Attribute names are those of public DINOv2 checkpoints.

    Args:
        img_size: side, or height and width, in pixels, that the position embedding is made for.
        patch_size: side of a patch in pixels.
        in_channels: channels of the image.
        embed_dim: width of a token.
        depth: number of transformer blocks.
        num_heads: attention heads; divides ``embed_dim``.
        mlp_ratio: width inside the MLP as a multiple of ``embed_dim``.
        qkv_bias: whether the query-key-value projection has a bias.
        proj_bias: whether the attention's output projection has a bias.
        ffn_bias: whether the MLP's layers have a bias.
        layer_scale_init: start of the LayerScale weights; ``None`` leaves LayerScale out.
        num_register_tokens: learned tokens beside the class token, without position.
        use_mask_token: whether there is a token for masked patches.
        drop_path_rate: probability that a sample skips a branch in training; rises from 0 to this over depth.
        interpolate_offset: see :func:`shared_nets.blocks.position_embedding.resize_position_embedding`.
        antialias: whether shrinking the position embedding is smoothed.
        norm_layer: makes a normalisation from the width.

    Raises:
        ValueError: a number is out of range, or does not divide as it must.

    Reference:
        M. Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023;
        T. Darcet et al., "Vision Transformers Need Registers", 2023.
    """

    def __init__(
        self,
        *,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        ffn_bias: bool = True,
        layer_scale_init: float | None = None,
        num_register_tokens: int = 0,
        use_mask_token: bool = True,
        drop_path_rate: float = 0.0,
        interpolate_offset: float = 0.0,
        antialias: bool = False,
        norm_layer: Callable[..., nn.Module] = layer_norm,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth must be 1 or more, got {depth}.")
        if num_register_tokens < 0:
            raise ValueError(f"num_register_tokens must be 0 or more, got {num_register_tokens}.")
        if not 0.0 <= drop_path_rate < 1.0:
            raise ValueError(f"drop_path_rate must lie in [0, 1), got {drop_path_rate}.")
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size = (height, width)
        self.embed_dim = embed_dim
        self.num_register_tokens = num_register_tokens
        self.interpolate_offset = interpolate_offset
        self.antialias = antialias
        self.gradient_checkpointing = False
        self._position_cache: _CachedPositions | None = None

        self.patch_embed = PatchEmbed(patch_size=patch_size, in_channels=in_channels, embed_dim=embed_dim)
        rows, columns = self.patch_embed.grid_size(height, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, embed_dim))
        self.register_tokens = (
            nn.Parameter(torch.zeros(1, num_register_tokens, embed_dim)) if num_register_tokens else None
        )
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim)) if use_mask_token else None
        self.blocks = nn.ModuleList(
            TransformerBlock(
                embed_dim=embed_dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                proj_bias=proj_bias,
                ffn_bias=ffn_bias,
                layer_scale_init=layer_scale_init,
                drop_path_rate=drop_path_rate * index / max(depth - 1, 1),
                norm_layer=norm_layer,
            )
            for index in range(depth)
        )
        self.norm = norm_layer(embed_dim)
        self._initialise()

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Trade time for memory: recompute each block in the backward pass instead of keeping it."""
        self.gradient_checkpointing = enabled

    def patch_grid(self, height: int, width: int) -> tuple[int, int]:
        """Give the rows and columns of patches for an image size in pixels; ``N`` is their product."""
        return self.patch_embed.grid_size(height, width)

    def forward(self, x: Tensor) -> Tensor:
        """Describe each image by one vector.

        Args:
            x: images, ``(B, C, H, W)``; the patch size divides both sides.

        Returns:
            The normalised class token, ``(B, E)``.
        """
        return self.forward_features(x).cls_token

    def forward_features(self, x: Tensor, masks: Tensor | None = None) -> ViTFeatures:
        """Describe each image and each of its patches, after the final normalisation.

        Args:
            x: images, ``(B, C, H, W)``; the patch size divides both sides.
            masks: true where a patch is hidden from the network, ``(B, N)`` bool.

        Returns:
            Class token, registers and patch tokens.

        Raises:
            ValueError: an image or mask has the wrong shape, or there is no mask token.
        """
        x = self._embed(x, masks)
        for block in self.blocks:
            x = run_part(block, x, use_checkpoint=self.gradient_checkpointing)
        return self._split(self.norm(x))

    def get_intermediate_layers(
        self, x: Tensor, n: int | Sequence[int] = 1, *, norm: bool = True
    ) -> list[ViTFeatures]:
        """Describe each image as several blocks see it.

        Args:
            x: images, ``(B, C, H, W)``; the patch size divides both sides.
            n: how many of the last blocks, or the indices of blocks, from 0.
            norm: whether each block's output goes through the final normalisation.

        Returns:
            One item for each block, in order of depth.

        Raises:
            ValueError: there is no such block, or the image has the wrong shape.
        """
        depth = len(self.blocks)
        wanted = set(range(depth - n, depth) if isinstance(n, int) else n)
        if not wanted or min(wanted) < 0 or max(wanted) >= depth:
            raise ValueError(f"n must name 1 to {depth} blocks, or indices from 0 to {depth - 1}, got {n}.")
        features = []
        x = self._embed(x, None)
        for index, block in enumerate(self.blocks[: max(wanted) + 1]):
            x = run_part(block, x, use_checkpoint=self.gradient_checkpointing)
            if index in wanted:
                features.append(self._split(self.norm(x) if norm else x))
        return features

    def _embed(self, x: Tensor, masks: Tensor | None) -> Tensor:
        tokens = self.patch_embed(x)  # (B, N, E)
        if masks is not None:
            tokens = self._mask(tokens, masks)
        positions = self._positions(self.patch_grid(x.shape[2], x.shape[3]))  # (1, 1 + N, E)
        batch_size = x.shape[0]
        parts = [(self.cls_token + positions[:, :1]).expand(batch_size, -1, -1), tokens + positions[:, 1:]]
        if self.register_tokens is not None:
            parts.insert(1, self.register_tokens.expand(batch_size, -1, -1))
        return torch.cat(parts, dim=1)  # (B, L, E)

    def _mask(self, tokens: Tensor, masks: Tensor) -> Tensor:
        if self.mask_token is None:
            raise ValueError("masks must be None for a network with use_mask_token=False.")
        if masks.shape != tokens.shape[:2] or masks.dtype != torch.bool:
            raise ValueError(
                f"masks must be bool of shape {tuple(tokens.shape[:2])}, "
                f"got {masks.dtype} of shape {tuple(masks.shape)}."
            )
        return torch.where(masks.unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens)

    def _positions(self, grid_size: tuple[int, int]) -> Tensor:
        """Resize the position embedding, once for all forward passes of one size in evaluation on a CPU."""
        native = self.patch_embed.grid_size(*self.img_size)
        if grid_size == native:
            return self.pos_embed
        may_cache = (
            not self.training
            and not (torch.is_grad_enabled() and self.pos_embed.requires_grad)
            and self.pos_embed.device.type == "cpu"  # elsewhere resizing is cheaper than comparing
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
        )
        cache = self._position_cache
        if may_cache and cache is not None and cache.holds(grid_size, self.pos_embed):
            return cache.positions

        def resize() -> Tensor:
            return resize_position_embedding(
                self.pos_embed,
                grid_size,
                native_grid_size=native,
                interpolate_offset=self.interpolate_offset,
                antialias=self.antialias,
            )

        if not may_cache:
            self._position_cache = None
            return resize()
        with (
            torch.inference_mode(False),
            torch.no_grad(),
        ):  # an inference tensor could not be used in training
            self._position_cache = _CachedPositions(grid_size, self.pos_embed.detach().clone(), resize())
        return self._position_cache.positions

    def _split(self, x: Tensor) -> ViTFeatures:
        first_patch = 1 + self.num_register_tokens
        return ViTFeatures(x[:, 0], x[:, 1:first_patch], x[:, first_patch:])

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class _CachedPositions(NamedTuple):
    """A resized position embedding, and the one it was made from, by which a change of weights is seen."""

    grid_size: tuple[int, int]
    source: Tensor
    positions: Tensor

    def holds(self, grid_size: tuple[int, int], pos_embed: Tensor) -> bool:
        return (
            self.grid_size == grid_size
            and self.source.dtype == pos_embed.dtype
            and self.source.device == pos_embed.device
            and torch.equal(self.source, pos_embed)
        )


def vit_base_patch16_amos(**overrides: Any) -> VisionTransformer:
    """Build the ViT-B/16 that was trained on abdominal CT (AMOS) with DINOv2; 85,771,776 parameters.

    Args:
        overrides: arguments of :class:`VisionTransformer` that differ.
    """
    return _build(overrides, ffn_bias=False, layer_scale_init=1.0, drop_path_rate=0.1, interpolate_offset=0.1)


def vit_base_patch16_dino(**overrides: Any) -> VisionTransformer:
    """Build DINO's ViT-B/16, without LayerScale, mask token and registers; 85,798,656 parameters.

    Args:
        overrides: arguments of :class:`VisionTransformer` that differ.
    """
    return _build(overrides, use_mask_token=False, interpolate_offset=0.1)


def vit_base_patch14(**overrides: Any) -> VisionTransformer:
    """Build DINOv2's ViT-B/14 without registers, RAD-DINO's size too; 86,580,480 parameters.

    Args:
        overrides: arguments of :class:`VisionTransformer` that differ; ``interpolate_offset=0.0`` resizes the
            position embedding as Hugging Face does.
    """
    return _build(overrides, img_size=518, patch_size=14, layer_scale_init=1e-5, interpolate_offset=0.1)


def vit_base_patch14_reg4(**overrides: Any) -> VisionTransformer:
    """Build DINOv2's ViT-B/14 with four registers, CXformer-base's size too; 86,583,552 parameters.

    Args:
        overrides: arguments of :class:`VisionTransformer` that differ.
    """
    return _build(
        overrides, img_size=518, patch_size=14, layer_scale_init=1e-5, num_register_tokens=4, antialias=True
    )


def vit_small_patch14_reg4(**overrides: Any) -> VisionTransformer:
    """Build DINOv2's ViT-S/14 with four registers, CXformer-small's size too; 22,058,112 parameters.

    Args:
        overrides: arguments of :class:`VisionTransformer` that differ.
    """
    return vit_base_patch14_reg4(**{"embed_dim": 384, "num_heads": 6, **overrides})


def vit_tiny_patch16(**overrides: Any) -> VisionTransformer:
    """Build a small ViT for one-channel images that trains on a CPU; 851,712 parameters.

    Args:
        overrides: arguments of :class:`VisionTransformer` that differ.
    """
    return _build(overrides, in_channels=1, embed_dim=128, depth=4, num_heads=4)


def _build(overrides: dict[str, Any], **size: Any) -> VisionTransformer:
    return VisionTransformer(**{**size, **overrides})
