"""VMamba: a hierarchical trunk that scans the plane in four directions, for public ImageNet weights.

Shape letters: B batch, C channels, H height, W width, K classes.

Reference:
    Y. Liu et al., "VMamba: Visual State Space Model", NeurIPS 2024.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from monai.networks.layers import DropPath
from torch import Tensor, nn

from shared_nets.blocks.checkpointing import run_part
from shared_nets.blocks.cross_scan import SS2D
from shared_nets.blocks.mlp import Mlp


class VMambaFeatures(NamedTuple):
    """The map that enters the last stage, and the normalised map that leaves it, each ``(B, H', W', C')``."""

    entering: Tensor
    leaving: Tensor


class VSSBlock(nn.Module):
    """A scan in four directions and an MLP, each after a normalisation and beside a residual connection.

    Args:
        dim: number of channels.
        d_state: states of a channel.
        ssm_ratio: channels of the scan as a multiple of ``dim``.
        mlp_ratio: width inside the MLP as a multiple of ``dim``.
        drop_path_rate: probability that a sample skips a branch in training.
    """

    def __init__(
        self, *, dim: int, d_state: int, ssm_ratio: float, mlp_ratio: float, drop_path_rate: float
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.op = SS2D(d_model=dim, d_state=d_state, ssm_ratio=ssm_ratio)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(embed_dim=dim, hidden_dim=int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Pass a map ``(B, H, W, C)`` on to a map of the same shape."""
        x = x + self.drop_path(self.op(self.norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a map ``(B, C, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every place, ``(B, C, H, W)``."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class VMambaStage(nn.Module):
    """Blocks of one width, then a strided convolution to the next width, where there is a next stage.

    Args:
        dim: number of channels.
        next_dim: channels of the next stage; ``None`` for the last one.
        drop_path_rates: one for each block; its length is the number of blocks.
        d_state: see :class:`VSSBlock`.
        ssm_ratio: see there.
        mlp_ratio: see there.
    """

    def __init__(
        self,
        *,
        dim: int,
        next_dim: int | None,
        drop_path_rates: Sequence[float],
        d_state: int,
        ssm_ratio: float,
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            VSSBlock(dim=dim, d_state=d_state, ssm_ratio=ssm_ratio, mlp_ratio=mlp_ratio, drop_path_rate=rate)
            for rate in drop_path_rates
        )
        # The places of convolution and normalisation in public files are 1 and 3.
        self.downsample = (
            nn.Sequential(
                nn.Identity(),
                nn.Conv2d(dim, next_dim, kernel_size=3, stride=2, padding=1),
                nn.Identity(),
                ChannelNorm(next_dim),
            )
            if next_dim is not None
            else None
        )

    def forward(self, x: Tensor, run: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H / 2, W / 2, C')``, sides rounded up; the last stage keeps shape.

        Args:
            x: the map.
            run: calls a block, or recomputes it in the backward pass.

        Returns:
            The map for the next stage.
        """
        for block in self.blocks:
            x = run(block, x)
        if self.downsample is None:
            return x
        return self.downsample(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class VMamba(nn.Module):
    """Encode an image of any size by four stages, at a quarter to a thirty-second of its resolution.

    Attribute names are those of public checkpoints (the layout with ``v05_noz`` scans, patch embedding v2 and
    downsampling v3).

    Args:
        in_channels: channels of the image.
        num_classes: K; ``None`` leaves the classifier's linear layer out.
        dims: channels of each stage.
        depths: blocks of each stage.
        d_state: states of a channel.
        ssm_ratio: channels of a scan as a multiple of the stage's.
        mlp_ratio: width inside the MLPs as a multiple of the stage's channels.
        drop_path_rate: probability that a sample skips a branch in training; rises from 0 to this over depth.

    Raises:
        ValueError: the stages are not described alike.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int | None = None,
        dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 2, 8, 2),
        d_state: int = 1,
        ssm_ratio: float = 1.0,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.2,
    ) -> None:
        super().__init__()
        if len(dims) != len(depths) or not dims:
            raise ValueError(f"dims and depths must have one number a stage, got {dims} and {depths}.")
        self.in_channels = in_channels
        self.num_features = dims[-1]
        #: Whether blocks are computed again in the backward pass rather than kept.
        self.use_checkpoint = False
        # The places of convolutions and normalisations in public files are 0, 2, 5 and 7.
        self.patch_embed = nn.Sequential(
            nn.Conv2d(in_channels, dims[0] // 2, kernel_size=3, stride=2, padding=1),
            nn.Identity(),
            ChannelNorm(dims[0] // 2),
            nn.Identity(),
            nn.GELU(),
            nn.Conv2d(dims[0] // 2, dims[0], kernel_size=3, stride=2, padding=1),
            nn.Identity(),
            ChannelNorm(dims[0]),
        )
        rates = torch.linspace(0.0, drop_path_rate, sum(depths), device="cpu").tolist()
        self.layers = nn.ModuleList(
            VMambaStage(
                dim=dim,
                next_dim=dims[index + 1] if index + 1 < len(dims) else None,
                drop_path_rates=rates[sum(depths[:index]) : sum(depths[: index + 1])],
                d_state=d_state,
                ssm_ratio=ssm_ratio,
                mlp_ratio=mlp_ratio,
            )
            for index, dim in enumerate(dims)
        )
        self.classifier = nn.ModuleDict({"norm": nn.LayerNorm(dims[-1])})
        if num_classes is not None:
            self.classifier["head"] = nn.Linear(dims[-1], num_classes)
        self._initialise()

    def forward_features(self, image: Tensor) -> VMambaFeatures:
        """Describe each place of an image.

        Args:
            image: ``(B, C, H, W)``, at least one pixel.

        Returns:
            Maps before and after the last stage, at a thirty-second of the resolution, sides rounded up.

        Raises:
            ValueError: the image is not four-dimensional or has another number of channels.
        """
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"image must have shape (B, {self.in_channels}, H, W), got {tuple(image.shape)}."
            )
        run = functools.partial(run_part, use_checkpoint=self.use_checkpoint)
        x = run(self.patch_embed, image).permute(0, 2, 3, 1)  # (B, H / 4, W / 4, C)
        entering = x
        for stage in self.layers:
            entering = x
            x = stage(x, run)
        return VMambaFeatures(entering, self.classifier["norm"](x))

    def forward(self, image: Tensor) -> Tensor:
        """Classify.

        Args:
            image: ``(B, C, H, W)``.

        Returns:
            Logits, ``(B, K)``; the mean of the last map, ``(B, C')``, without a classifier.
        """
        x = self.forward_features(image).leaving.mean(dim=(1, 2))  # (B, C')
        return self.classifier["head"](x) if "head" in self.classifier else x

    def _initialise(self) -> None:
        """Start linear layers outside the scans as published; a scan sets its own start."""
        outside = [module for name, module in self.named_modules() if ".op" not in f".{name}"]
        for module in outside:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


def vmamba_tiny(**overrides: Any) -> VMamba:
    """Build VMamba-Tiny [s1l8], file ``vssm1_tiny_0230s_ckpt_epoch_264.pth``.

    It has 30,249,064 parameters with a classifier of 1,000 classes.

    Args:
        overrides: arguments of :class:`VMamba` that differ.
    """
    return VMamba(**overrides)


def vmamba_tiny_s2l5(**overrides: Any) -> VMamba:
    """Build VMamba-Tiny [s2l5], file ``vssm_tiny_0230_ckpt_epoch_262.pth``.

    It has 30,705,832 parameters with a classifier of 1,000 classes.

    Args:
        overrides: arguments of :class:`VMamba` that differ.
    """
    return VMamba(**{"depths": (2, 2, 5, 2), "ssm_ratio": 2.0, **overrides})
