"""What spoils dermoscopy images, drawn into clean ones: hairs, a dark rim, ruler marks, coarse coding.

All take and give ``(3, H, W)`` float32, 0 … 1; random ones draw from a NumPy generator alone.

Shape letters: H rows, W columns.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

_FINER = 3  # lines are drawn at this multiple of the size, so that their edges are smooth
_CURVE_POINTS = 24


def draw_hairs(image: Tensor, *, num_hairs: int, width: float, rng: np.random.RandomState) -> Tensor:
    """Lay dark hairs over an image.

    Args:
        image: ``(3, H, W)``.
        num_hairs: how many.
        width: of a hair, as a share of the long side; each varies by a third.
        rng: random numbers.

    Returns:
        ``(3, H, W)``.
    """
    height, columns = image.shape[1:]
    long_side = max(height, columns)
    cover = Image.new("L", (columns * _FINER, height * _FINER))
    pen = ImageDraw.Draw(cover)
    t = np.linspace(0.0, 1.0, _CURVE_POINTS)[:, None]
    for _ in range(num_hairs):
        start = rng.uniform(-0.1, 1.1, 2) * (columns, height)
        angle = rng.uniform(0.0, 2.0 * np.pi)
        reach = rng.uniform(0.3, 1.2) * long_side * np.array([np.cos(angle), np.sin(angle)])
        bend = rng.uniform(-0.25, 0.25) * np.array([-reach[1], reach[0]])
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * (start + reach / 2 + bend) + t**2 * (start + reach)
        thick = max(1, round(width * long_side * rng.uniform(0.67, 1.33) * _FINER))
        pen.line([(float(x), float(y)) for x, y in curve * _FINER], fill=255, width=thick, joint="curve")
    dark = rng.uniform(0.02, 0.25) * np.array([1.0, 0.8, 0.65])  # black to brown
    return _laid_over(image, cover, dark * rng.uniform(0.8, 1.2, 3), opacity=float(rng.uniform(0.75, 1.0)))


def draw_ruler(image: Tensor, *, rng: np.random.RandomState) -> Tensor:
    """Lay a scale along one edge of an image, long marks at every tenth.

    Args:
        image: ``(3, H, W)``.
        rng: random numbers.

    Returns:
        ``(3, H, W)``.
    """
    height, columns = image.shape[1:]
    edge = int(rng.randint(4))
    length, depth = (columns, height) if edge < 2 else (height, columns)
    step, inset = rng.uniform(0.015, 0.05) * max(height, columns), rng.uniform(0.0, 0.12) * depth
    reach = rng.uniform(0.03, 0.07) * depth
    cover = Image.new("L", (columns * _FINER, height * _FINER))
    pen = ImageDraw.Draw(cover)
    thick = max(1, round(0.15 * step * _FINER))
    for number, at in enumerate(np.arange(rng.uniform(0.0, step), length, step)):
        ends = (inset, inset + reach * (1.8 if number % 10 == 0 else 1.4 if number % 5 == 0 else 1.0))
        if edge % 2:
            ends = (depth - ends[0], depth - ends[1])
        line = [(at, end) if edge < 2 else (end, at) for end in ends]
        pen.line([(float(x) * _FINER, float(y) * _FINER) for x, y in line], fill=255, width=thick)
    return _laid_over(image, cover, np.full(3, rng.uniform(0.0, 0.3)), opacity=float(rng.uniform(0.6, 1.0)))


def add_vignette(image: Tensor, *, radius: float, softness: float) -> Tensor:
    """Darken what lies outside a circle about the middle, as the tube of a dermatoscope does.

    Args:
        image: ``(3, H, W)``.
        radius: of the circle, as a share of half the diagonal.
        softness: width of the edge, likewise; positive.

    Returns:
        ``(3, H, W)``.
    """
    height, columns = image.shape[1:]
    y = torch.arange(height, dtype=torch.float32) - (height - 1) / 2
    x = torch.arange(columns, dtype=torch.float32) - (columns - 1) / 2
    distance = torch.hypot(y[:, None], x[None, :]) / (0.5 * float(np.hypot(height, columns)))  # (H, W)
    return image * torch.sigmoid((radius - distance) * (4.0 / softness))


def relight(image: Tensor, gains: npt.ArrayLike) -> Tensor:
    """Show an image under light of another colour.

    Args:
        image: ``(3, H, W)``.
        gains: factor of each channel, three.

    Returns:
        ``(3, H, W)``; clipped at 1.
    """
    return (image * torch.as_tensor(np.asarray(gains), dtype=torch.float32)[:, None, None]).clamp(0.0, 1.0)


def downscale(image: Tensor, share: float) -> Tensor:
    """Lose detail: make an image smaller and large again.

    Args:
        image: ``(3, H, W)``.
        share: of the sides that is kept in between, 0 … 1.

    Returns:
        ``(3, H, W)``.
    """
    size = [max(1, round(side * share)) for side in image.shape[1:]]
    small = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)
    return F.interpolate(small, size=list(image.shape[1:]), mode="bilinear")[0]


def jpeg_coded(image: Tensor, quality: int) -> Tensor:
    """Code an image as JPEG and decode it again.

    Args:
        image: ``(3, H, W)``.
        quality: of the coding, 1 … 95.

    Returns:
        ``(3, H, W)``.
    """
    pixels = (image * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    with Image.open(buffer) as coded:
        decoded = np.array(coded)
    return torch.from_numpy(decoded).permute(2, 0, 1).float() / 255.0


def _laid_over(
    image: Tensor, cover: Image.Image, colour: npt.NDArray[np.float64], *, opacity: float
) -> Tensor:
    smooth = cover.reduce(_FINER)
    alpha = torch.from_numpy(np.array(smooth)).float() * (opacity / 255.0)  # (H, W)
    paint = torch.as_tensor(colour, dtype=torch.float32).clamp(0.0, 1.0)[:, None, None]
    return image * (1.0 - alpha) + paint * alpha
