"""MambaDerm: a photograph of a skin lesion, with or without metadata, to class logits; and its sizes.

Shape letters: B batch, C channels, H height, W width, L image tokens, E width of a token, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.networks.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from shared_nets.blocks.checkpointing import run_part
from shared_nets.blocks.convnext import ConvNeXtStem
from shared_nets.blocks.position_embedding import resize_position_embedding
from shared_nets.blocks.selective_scan import ScanBackend
from shared_nets.blocks.tabular_tokens import TableSchema
from shared_nets.blocks.vision_mamba import VisionMambaLayer
from shared_nets.nets.lesion_network import ImageTokens, LesionNetwork, initialise_linear
from shared_nets.nets.vmamba import VMamba, vmamba_tiny


class MambaDerm(LesionNetwork):
    """Classify skin lesions by a ConvNeXt stem, Vision Mamba layers, and attention to metadata.

    The stem gives local tokens; Mamba layers, which read them forwards and backwards, make global ones; a
    gate mixes both; every image token then reads the metadata, one token a value. Names are those of the
    published v1 where the part is the same. Other than there, each metadata value has a token of its own, so
    that the attention has something to choose from; ``dt_rank`` is ``⌈E / 16⌉``; and missing values are
    learned rather than imputed.

    Args:
        num_classes: K.
        in_channels: C.
        img_size: side, or height and width, in pixels, that the position embedding is made for; it is
            resampled for other sizes.
        stem_dims: channels of each stage of the stem.
        stem_depths: ConvNeXt blocks of each stage.
        stem_strides: by which each stage shrinks the image.
        stem_kernel_size: side of the depthwise kernels.
        stem_norm_layer: makes the normalisation of a stage from its channels; ``None`` normalises over all of
            them at once.
        stem_act_layer: makes the activation behind it; the published stem has none.
        layer_scale_init: start of the ConvNeXt blocks' branch weights.
        embed_dim: E, ``d_model`` of the Mamba layers.
        depth: number of Mamba layers.
        d_state: states of each channel.
        d_conv: length of the causal convolution.
        expand: width inside a Mamba block as a multiple of ``embed_dim``.
        mlp_ratio: width inside the MLP of a layer as a multiple of ``embed_dim``.
        num_heads: heads of the attention from image to metadata; ``None`` joins them only before the head.
        metadata_schema: what a row of metadata holds; ``None`` for images alone.
        tabular_depth: transformer blocks among the values of a row.
        modality_dropout_rate: probability that a row of metadata is dropped in training.
        drop_path_rate: probability that a sample skips a ConvNeXt branch or a Mamba layer in training; rises
            from 0 to this over depth.
        dropout_rate: dropout in layers and head.
        use_checkpoint: start of the attribute of this name: whether stem and layers are computed again in the
            backward pass rather than kept.
        scan_backend: which scan; another one gives other last bits, see
            :func:`shared_nets.blocks.selective_scan.selective_scan`.
        init_std: standard deviation at which linear layers start.

    Raises:
        ValueError: a number is out of range, or does not divide as it must.
    """

    def __init__(
        self,
        *,
        num_classes: int = 2,
        in_channels: int = 3,
        img_size: int | Sequence[int] = 224,
        stem_dims: Sequence[int] = (96,),
        stem_depths: Sequence[int] = (2,),
        stem_strides: Sequence[int] = (4,),
        stem_kernel_size: int = 7,
        stem_norm_layer: Callable[[int], nn.Module] | None = None,
        stem_act_layer: Callable[[], nn.Module] = nn.Identity,
        layer_scale_init: float = 1e-6,
        embed_dim: int = 192,
        depth: int = 4,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        mlp_ratio: float = 4.0,
        num_heads: int | None = 8,
        metadata_schema: TableSchema | None = None,
        tabular_depth: int = 2,
        modality_dropout_rate: float = 0.3,
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.1,
        use_checkpoint: bool = False,
        scan_backend: ScanBackend = "auto",
        init_std: float = 0.02,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            embed_dim=embed_dim,
            metadata_schema=metadata_schema,
            num_heads=num_heads,
            tabular_depth=tabular_depth,
            modality_dropout_rate=modality_dropout_rate,
            dropout_rate=dropout_rate,
        )
        if depth < 1:
            raise ValueError(f"depth must be 1 or more, got {depth}.")
        if not 0.0 <= drop_path_rate < 1.0:
            raise ValueError(f"drop_path_rate must lie in [0, 1), got {drop_path_rate}.")
        self.use_checkpoint = use_checkpoint
        num_stem_blocks = sum(stem_depths)
        rates = torch.linspace(0.0, drop_path_rate, num_stem_blocks + depth, device="cpu").tolist()
        self.stem = ConvNeXtStem(
            in_channels=in_channels,
            dims=stem_dims,
            depths=stem_depths,
            strides=stem_strides,
            embed_dim=embed_dim,
            kernel_size=stem_kernel_size,
            layer_scale_init=layer_scale_init,
            drop_path_rates=rates[:num_stem_blocks],
            act_layer=stem_act_layer,
            **({} if stem_norm_layer is None else {"norm_layer": stem_norm_layer}),
        )
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.grid_size = self.stem.grid_size(height, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid_size[0] * self.grid_size[1], embed_dim))
        self.mamba_layers = nn.ModuleList(
            VisionMambaLayer(
                d_model=embed_dim,
                d_state=d_state,
                d_conv=d_conv,
                expand=expand,
                mlp_ratio=mlp_ratio,
                dropout_rate=dropout_rate,
                scan_backend=scan_backend,
            )
            for _ in range(depth)
        )
        self.drop_paths = nn.ModuleList(DropPath(rate) for rate in rates[num_stem_blocks:])
        self.norm = nn.LayerNorm(embed_dim)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        initialise_linear(self, std=init_std)

    def image_tokens(self, image: Tensor) -> ImageTokens:
        """Turn images into tokens.

        Args:
            image: photographs, scaled and normalised, ``(B, C, H, W)``.

        Returns:
            Tokens with their positions, and the same after the Mamba layers, each ``(B, L, E)``.
        """
        x = run_part(self.stem, image, use_checkpoint=self.use_checkpoint)  # (B, E, rows, columns)
        positions = self._positions((x.shape[2], x.shape[3]))  # (1, L, E)
        local = x.flatten(2).transpose(1, 2) + positions  # (B, L, E)
        x = local
        for layer, drop_path in zip(self.mamba_layers, self.drop_paths, strict=True):
            y = run_part(layer, x, use_checkpoint=self.use_checkpoint)
            x = x + drop_path(y - x) if self.training and drop_path.drop_prob else y
        return ImageTokens(local, self.norm(x))

    def _positions(self, grid_size: tuple[int, int]) -> Tensor:
        no_class_token = F.pad(self.pos_embed, (0, 0, 1, 0))  # (1, 1 + L, E)
        return resize_position_embedding(no_class_token, grid_size, native_grid_size=self.grid_size)[:, 1:]


class MambaDermVMamba(LesionNetwork):
    """Classify skin lesions by a hierarchical trunk that scans the plane, and attention to metadata.

    The local tokens are the map that enters the trunk's last stage and the global ones the map that leaves
    it, each brought to the width of the rest, which is that of :class:`MambaDerm`.

    Args:
        trunk: names and shapes are those of public VMamba weights.
        num_classes: K.
        embed_dim: E.
        num_heads: heads of the attention from image to metadata; ``None`` joins them only before the head.
        metadata_schema: what a row of metadata holds; ``None`` for images alone.
        tabular_depth: transformer blocks among the values of a row.
        modality_dropout_rate: probability that a row of metadata is dropped in training.
        dropout_rate: dropout in the head.
        use_checkpoint: start of the attribute of this name: whether blocks are computed again in the backward
            pass rather than kept.

    Raises:
        ValueError: a number is out of range, or does not divide as it must.
    """

    def __init__(
        self,
        *,
        trunk: VMamba,
        num_classes: int = 2,
        embed_dim: int = 192,
        num_heads: int | None = 8,
        metadata_schema: TableSchema | None = None,
        tabular_depth: int = 2,
        modality_dropout_rate: float = 0.3,
        dropout_rate: float = 0.1,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            embed_dim=embed_dim,
            metadata_schema=metadata_schema,
            num_heads=num_heads,
            tabular_depth=tabular_depth,
            modality_dropout_rate=modality_dropout_rate,
            dropout_rate=dropout_rate,
        )
        self.use_checkpoint = use_checkpoint
        self.local_proj = nn.Linear(trunk.num_features, embed_dim)
        self.global_proj = nn.Linear(trunk.num_features, embed_dim)
        initialise_linear(self)
        self.trunk = trunk  # after the others were set: it has its own start, or weights

    def image_tokens(self, image: Tensor) -> ImageTokens:
        """Turn images into tokens.

        Args:
            image: photographs, scaled and normalised, ``(B, C, H, W)``.

        Returns:
            Tokens before and after the trunk's last stage, each ``(B, L, E)``.
        """
        self.trunk.use_checkpoint = self.use_checkpoint
        maps = self.trunk.forward_features(image)
        local = self.local_proj(maps.entering).flatten(1, 2)  # (B, L, E)
        return ImageTokens(local, self.global_proj(maps.leaving).flatten(1, 2))


def mambaderm(**overrides: Any) -> MambaDerm:
    """Build the described size for 224 pixels: stem 96, width 192, four layers.

    It has 4,410,535 parameters with seven classes, and 5,220,199 with the metadata of ISIC 2024.

    Args:
        overrides: arguments of :class:`MambaDerm` that differ.
    """
    return MambaDerm(**overrides)


def mambaderm_lite(**overrides: Any) -> MambaDerm:
    """Build the light size for 224 pixels: stem 64, width 128, two layers, no attention to metadata.

    It has 1,316,807 parameters with seven classes, and 1,617,991 with the metadata of ISIC 2024.

    Args:
        overrides: arguments of :class:`MambaDerm` that differ.
    """
    size = {"stem_dims": (64,), "embed_dim": 128, "depth": 2, "d_state": 8, "num_heads": None}
    return MambaDerm(**{**size, **overrides})


def mambaderm_mini(**overrides: Any) -> MambaDerm:
    """Build a size for images of 28 pixels: five convolutions to a map of 7 × 7, width 96, two layers.

    It has 829,095 parameters with seven classes, and 1,040,391 with the metadata of ISIC 2024. Its stem has
    batch normalisation and an activation behind each convolution, which learns faster from few images.

    Args:
        overrides: arguments of :class:`MambaDerm` that differ.
    """
    size = {
        "img_size": 28,
        "stem_dims": (32, 64, 64, 128, 128),
        "stem_depths": (0, 0, 0, 0, 1),
        "stem_strides": (1, 2, 1, 2, 1),
        "stem_kernel_size": 3,
        "stem_norm_layer": nn.BatchNorm2d,
        "stem_act_layer": nn.GELU,
        "layer_scale_init": 1.0,
        "embed_dim": 96,
        "depth": 2,
        "d_state": 8,
        "mlp_ratio": 2.0,
        "drop_path_rate": 0.1,
        "init_std": 0.06,
    }
    return MambaDerm(**{**size, **overrides})


def mambaderm_vmamba_tiny(
    *, in_channels: int = 3, drop_path_rate: float = 0.2, **overrides: Any
) -> MambaDermVMamba:
    """Build the size on VMamba-Tiny [s1l8], whose public ImageNet weights fit ``trunk``.

    It has 29,906,503 parameters with seven classes, and 30,716,167 with the metadata of ISIC 2024.

    Args:
        in_channels: channels of the image.
        drop_path_rate: of the trunk.
        overrides: arguments of :class:`MambaDermVMamba` that differ.
    """
    trunk = vmamba_tiny(in_channels=in_channels, drop_path_rate=drop_path_rate)
    return MambaDermVMamba(**{"trunk": trunk, **overrides})
