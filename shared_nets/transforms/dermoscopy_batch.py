"""Whole batches of small dermoscopy images seen anew: one resampling and one colour matrix an image.

Made for training on one CPU core, where a transform per image would cost more than the network. Which numbers
are drawn depends on ``(seed, step)`` only, so a training that is resumed draws what it would have drawn.

Shape letters: B batch, H rows, W columns, P pixels of an image (H × W).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = torch.linalg.inv(_TO_YIQ.double()).float()
_DRAWS = 14  # uniform numbers an image takes


class RandomDermoscopyBatch:
    """Turn, mirror, scale, shift and recolour every image of a batch at random, each on its own.

    A lesion has no top and no left, so all turns and mirrors are allowed by default; what comes in from
    outside is the image mirrored at its edge.

    Args:
        max_turn_degrees: largest rotation to either side; quarter turns come on top.
        max_scale: the image grows or shrinks by up to this share.
        max_shift: largest shift along each axis, as a share of the side.
        brightness: intensities are multiplied by 1 ± up to this.
        contrast: likewise, the distance from the image's mean grey.
        saturation: likewise, the distance from grey.
        hue: largest turn of the hue, in full circles (0.02 is 7.2°), about the grey axis of YIQ.
        exact_share: share of images that are only mirrored and turned by quarters, which changes no value;
            resampled images are softer than those that the network meets later.
        cutout: a square of up to this share of the side is painted in the image's mean colour; 0 for none.
        seed: with the step it determines everything that is drawn.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        max_turn_degrees: float = 180.0,
        max_scale: float = 0.15,
        max_shift: float = 0.1,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.02,
        exact_share: float = 0.0,
        cutout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.max_turn_degrees = _within("max_turn_degrees", max_turn_degrees, 180.0)
        self.max_scale = _within("max_scale", max_scale, 1.0)
        self.max_shift = _within("max_shift", max_shift, 1.0)
        self.brightness = _within("brightness", brightness, 1.0)
        self.contrast = _within("contrast", contrast, 1.0)
        self.saturation = _within("saturation", saturation, 1.0)
        self.hue = _within("hue", hue, 0.5)
        self.exact_share = _within("exact_share", exact_share, 1.0)
        self.cutout = _within("cutout", cutout, 1.0)
        self.seed = _whole("seed", seed)
        self._step = 0

    @property
    def step(self) -> int:
        """Number of the next call; set it to go on where another run ended."""
        return self._step

    @step.setter
    def step(self, value: int) -> None:
        self._step = _whole("step", value)

    def state_dict(self) -> dict[str, int]:
        """Return what a resumed training needs."""
        return {"seed": self.seed, "step": self.step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.seed, self.step = _whole("seed", state["seed"]), state["step"]

    def __call__(self, images: Tensor) -> Tensor:
        """Change a batch; every call draws other numbers.

        Args:
            images: ``(B, 3, H, W)``, any floating type, 0 … 1.

        Returns:
            The same shape, type and range.

        Raises:
            ValueError: the images have another shape or type.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images must be floating, (B, 3, H, W), got {tuple(images.shape)} {images.dtype}."
            )
        if images.shape[0] == 0:
            return images
        rng = np.random.default_rng([self.seed, self.step])
        draws = torch.from_numpy(rng.random((images.shape[0], _DRAWS), dtype=np.float32)).to(images.device)
        self.step += 1
        out = self._moved(images.float(), draws[:, :6], is_free=draws[:, 13] >= self.exact_share)
        out = self._recoloured(out, draws[:, 6:10])
        if self.cutout > 0:
            out = self._cut(out, draws[:, 10:13])
        return out.to(images.dtype)

    def _moved(self, images: Tensor, draws: Tensor, *, is_free: Tensor) -> Tensor:
        """Turn, mirror, scale and shift in one resampling; only by quarters where ``is_free`` is false."""
        height, width = images.shape[-2:]
        quarter = torch.floor(draws[:, 0] * 4.0) * (math.pi / 2.0)
        angle = quarter + is_free * _signed(draws[:, 1]) * math.radians(self.max_turn_degrees)
        scale = torch.exp(is_free * _signed(draws[:, 2]) * math.log1p(self.max_scale))
        shift = is_free[:, None] * _signed(draws[:, 4:6]) * 2 * self.max_shift  # (B, 2)
        mirror = torch.where(draws[:, 3] < 0.5, -1.0, 1.0)
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        aspect = height / width  # of one step along rows to one along columns, in normalised coordinates
        theta = torch.stack(
            [
                torch.stack([mirror * cos, -mirror * sin * aspect, shift[:, 0]], 1),
                torch.stack([sin / aspect, cos, shift[:, 1]], 1),
            ],
            dim=1,
        )  # (B, 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)  # (B, H, W, 2)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def _recoloured(self, images: Tensor, draws: Tensor) -> Tensor:
        return recoloured(
            images,
            brightness=1.0 + _signed(draws[:, 0]) * self.brightness,
            contrast=1.0 + _signed(draws[:, 1]) * self.contrast,
            saturation=1.0 + _signed(draws[:, 2]) * self.saturation,
            hue=_signed(draws[:, 3]) * self.hue,
        )

    def _cut(self, images: Tensor, draws: Tensor) -> Tensor:
        """Paint one square an image in its mean colour."""
        height, width = images.shape[-2:]
        half = 0.5 * self.cutout * draws[:, 0]
        rows = (torch.arange(height, device=images.device) + 0.5) / height
        columns = (torch.arange(width, device=images.device) + 0.5) / width
        in_rows = (rows - draws[:, 1:2]).abs() < half[:, None]  # (B, H)
        in_columns = (columns - draws[:, 2:3]).abs() < half[:, None]  # (B, W)
        hole = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]  # (B, 1, H, W)
        return torch.where(hole, images.mean(dim=(2, 3), keepdim=True), images)


def recoloured(
    images: Tensor, *, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """Change brightness, contrast, saturation and hue: together one matrix and one offset an image.

    Args:
        images: ``(B, 3, H, W)`` floating, 0 … 1.
        brightness: factor of all intensities, ``(B,)``.
        contrast: factor of the distance from the image's mean grey, ``(B,)``.
        saturation: factor of the distance from grey, ``(B,)``.
        hue: turn about the grey axis of YIQ, full circles, ``(B,)``.

    Returns:
        The same shape and range.
    """
    luma, to_yiq, from_yiq = (part.to(images) for part in (_LUMA, _TO_YIQ, _FROM_YIQ))
    angle = hue * (2.0 * math.pi)
    cos, sin, zero = torch.cos(angle) * saturation, torch.sin(angle) * saturation, torch.zeros_like(angle)
    turn = torch.stack(
        [
            torch.stack([torch.ones_like(angle), zero, zero], 1),
            torch.stack([zero, cos, -sin], 1),
            torch.stack([zero, sin, cos], 1),
        ],
        dim=1,
    )  # (B, 3, 3), in YIQ: grey stays, chroma grows and turns
    matrix = (brightness * contrast)[:, None, None] * (from_yiq @ turn @ to_yiq)
    flat = images.flatten(2)  # (B, 3, P)
    grey = brightness * torch.einsum("c,bcp->b", luma, flat) / flat.shape[2]
    offset = ((1.0 - contrast) * grey)[:, None, None].expand(-1, 3, 1)
    return torch.baddbmm(offset, matrix, flat).clamp_(0.0, 1.0).view_as(images)


def _signed(draws: Tensor) -> Tensor:
    """0 … 1 → -1 … 1."""
    return 2.0 * draws - 1.0


def _within(name: str, value: float, most: float) -> float:
    if not 0.0 <= value <= most:
        raise ValueError(f"{name} must lie within 0 … {most:g}, got {value}.")
    return float(value)


def _whole(name: str, value: int) -> int:
    if value < 0 or int(value) != value:
        raise ValueError(f"{name} must be a whole number from 0 on, got {value}.")
    return int(value)
