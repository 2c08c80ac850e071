"""ConvNeXt blocks, and the stem that they make: an image to a small map of features.

Shape letters: B batch, C channels, H height, W width, E embedding.

Reference:
    Z. Liu et al., "A ConvNet for the 2020s", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.networks.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNeXtBlock(nn.Module):
    """Look around by a wide depthwise convolution, then transform each place by an MLP; one residual branch.

    Args:
        dim: number of channels.
        kernel_size: side of the depthwise kernel, odd.
        mlp_ratio: width inside the MLP as a multiple of ``dim``.
        layer_scale_init: start of the weight of each channel of the branch.
        drop_path_rate: probability that a sample skips the branch in training.

    Raises:
        ValueError: the kernel has no middle.
    """

    def __init__(
        self,
        *,
        dim: int,
        kernel_size: int = 7,
        mlp_ratio: float = 4.0,
        layer_scale_init: float = 1e-6,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}.")
        hidden_dim = int(dim * mlp_ratio)
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.pwconv1 = nn.Linear(dim, hidden_dim)
        self.pwconv2 = nn.Linear(hidden_dim, dim)
        self.layer_scale = nn.Parameter(torch.full((dim,), layer_scale_init))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Pass a map ``(B, C, H, W)`` on to a map of the same shape."""
        branch = self.norm(self.dwconv(x).permute(0, 2, 3, 1))  # (B, H, W, C)
        branch = self.pwconv2(F.gelu(self.pwconv1(branch))) * self.layer_scale
        return x + self.drop_path(branch.permute(0, 3, 1, 2))  # (B, C, H, W)


def _one_group(dim: int) -> nn.Module:
    return nn.GroupNorm(1, dim)


class ConvNeXtStage(nn.Module):
    """Shrink a map by a strided convolution, normalise it, and pass it through blocks.

    A stride of 1 or 2 has an overlapping 3 × 3 kernel; a larger one cuts the map into patches.

    Args:
        in_channels: channels of the input.
        dim: channels of the output.
        stride: by which both sides shrink.
        drop_path_rates: one for each block; its length is the number of blocks.
        kernel_size: side of the blocks' depthwise kernel.
        layer_scale_init: see :class:`ConvNeXtBlock`.
        norm_layer: makes the normalisation behind the strided convolution from its channels.
        act_layer: makes the activation behind that.

    Raises:
        ValueError: the stride is below 1.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        dim: int,
        stride: int,
        drop_path_rates: Sequence[float],
        kernel_size: int = 7,
        layer_scale_init: float = 1e-6,
        norm_layer: Callable[[int], nn.Module] = _one_group,
        act_layer: Callable[[], nn.Module] = nn.Identity,
    ) -> None:
        super().__init__()
        if stride < 1:
            raise ValueError(f"stride must be 1 or more, got {stride}.")
        self.stride = stride
        side, padding = (3, 1) if stride <= 2 else (stride, 0)
        self.patch_conv = nn.Conv2d(in_channels, dim, side, stride=stride, padding=padding)
        self.patch_norm = norm_layer(dim)
        self.patch_act = act_layer()
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(
                dim=dim, kernel_size=kernel_size, layer_scale_init=layer_scale_init, drop_path_rate=rate
            )
            for rate in drop_path_rates
        )

    def shrunk(self, side: int) -> int:
        """Give the length of a side after the stage.

        Args:
            side: length before.

        Returns:
            Length after.

        Raises:
            ValueError: patches do not fill the side.
        """
        if side < 1 or (self.stride > 2 and side % self.stride):
            raise ValueError(f"image side must be a positive multiple of {self.stride}, got {side}.")
        return -(-side // self.stride)

    def _stage(self, x: Tensor) -> Tensor:
        x = self.patch_act(self.patch_norm(self.patch_conv(x)))  # (B, C, H / stride, W / stride)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``, sides rounded up."""
        return self._stage(x)


class ConvNeXtStem(ConvNeXtStage):
    """Turn an image into a map of token width through one or more stages.

    The first stage's parts have no prefix and the others stand in ``stages``, so that a stem of one stage has
    the names of MambaDerm's published one: ``patch_conv, patch_norm, blocks, proj, proj_norm``.

    Args:
        in_channels: channels of the image.
        dims: channels of each stage.
        depths: blocks of each stage.
        strides: by which each stage shrinks the image.
        embed_dim: width of a token.
        kernel_size: side of the blocks' depthwise kernel.
        layer_scale_init: see :class:`ConvNeXtBlock`.
        drop_path_rates: one for each block of all stages; ``None`` drops nothing.
        norm_layer: see :class:`ConvNeXtStage`.
        act_layer: see there.

    Raises:
        ValueError: the stages are not described alike.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        dims: Sequence[int] = (96,),
        depths: Sequence[int] = (2,),
        strides: Sequence[int] = (4,),
        embed_dim: int = 192,
        kernel_size: int = 7,
        layer_scale_init: float = 1e-6,
        drop_path_rates: Sequence[float] | None = None,
        norm_layer: Callable[[int], nn.Module] = _one_group,
        act_layer: Callable[[], nn.Module] = nn.Identity,
    ) -> None:
        if not len(dims) == len(depths) == len(strides) or not dims:
            raise ValueError(
                f"dims, depths and strides must have one number a stage, got {dims}, {depths}, {strides}."
            )
        rates = [0.0] * sum(depths) if drop_path_rates is None else list(drop_path_rates)
        if len(rates) != sum(depths):
            raise ValueError(f"drop_path_rates must have {sum(depths)} numbers, got {len(rates)}.")
        first_block = [sum(depths[:index]) for index in range(len(depths) + 1)]
        stages: list[dict[str, Any]] = [
            {
                "in_channels": in_channels if index == 0 else dims[index - 1],
                "dim": dims[index],
                "stride": strides[index],
                "drop_path_rates": rates[first_block[index] : first_block[index + 1]],
                "kernel_size": kernel_size,
                "layer_scale_init": layer_scale_init,
                "norm_layer": norm_layer,
                "act_layer": act_layer,
            }
            for index in range(len(dims))
        ]
        super().__init__(**stages[0])
        self.in_channels = in_channels
        self.stages = nn.ModuleList(ConvNeXtStage(**stage) for stage in stages[1:])
        self.proj = nn.Conv2d(dims[-1], embed_dim, kernel_size=1)
        self.proj_norm = nn.GroupNorm(1, embed_dim)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Give the rows and columns of tokens.

        Args:
            height: image height in pixels.
            width: image width in pixels.

        Returns:
            Rows and columns.

        Raises:
            ValueError: patches do not fill the image.
        """
        for stage in (self, *self.stages):
            height, width = stage.shrunk(height), stage.shrunk(width)
        return height, width

    def forward(self, x: Tensor) -> Tensor:
        """Embed an image.

        Args:
            x: image, ``(B, C, H, W)``.

        Returns:
            A map, ``(B, E, rows, columns)``.

        Raises:
            ValueError: the image is not four-dimensional, has another number of channels, or a side that
                patches do not fill.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"image must have shape (B, {self.in_channels}, H, W), got {tuple(x.shape)}.")
        self.grid_size(x.shape[2], x.shape[3])
        x = self._stage(x)
        for stage in self.stages:
            x = stage(x)
        return self.proj_norm(self.proj(x))  # (B, E, rows, columns)
