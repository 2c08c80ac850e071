"""Numbers that tell a photograph of a skin lesion from other pictures, and a good one from a bad one.

Colours are measured at 28 × 28 pixels, the size of the public images that limits can be chosen on, so a limit
means the same for a camera's photograph; focus and hairs at a long side of 512.

Shape letters: H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.color import rgb2gray, rgb2lab
from skimage.measure import blur_effect, label
from torch import Tensor

from shared_nets.transforms.hair_removal import LONG_SIDE_PX, hair_mask

COARSE_PX = 28
FOCUS_MIN_PX = 128  # in smaller images nothing can be said of the focus
_MARGIN = 4  # coarse pixels at each edge where a lesion is not looked for: rulers, corners
_BLACK_L = 12.0  # lightness below which a colour says nothing
_STRONG, _FAINT = 12.0, 5.0  # chroma
_SKIN_HUES = (-75.0, 75.0)  # degrees in the a*b* plane: from violet light over red and brown to yellow
_WHITE = 250
_NOISE_SIGMA = 2.0  # pixels; without it, noise and the steps of 8 bits would pass for sharpness
_MAX_SURROUND = 0.7

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SkinMeasures:
    """What :func:`measure_skin` found; colours are CIELAB of sRGB under D65.

    Args:
        height: rows.
        width: columns.
        chroma: 90th percentile of the chroma; 0 for grey pictures.
        neutral_share: share of the pixels, black ones left out, that are lighter than L* 30 and have next to
            no chroma: paper, screens, walls.
        foreign_share: share of the pixels, black ones left out, of a strong colour that neither skin nor
            lesions have: green, blue, pure yellow.
        hue_agreement: length of the mean colour vector over the mean chroma, 0 … 1: 1 when all hues are one.
        hue_spread: standard deviation of a* and b* together.
        unrest: mean colour difference (ΔE) of neighbours at 28 × 28 pixels; skin is smooth, scenes are not.
        contrast: standard deviation of L*, a* and b* together.
        lightest: 90th percentile of L*.
        white_share: share of white pixels.
        lesion_contrast: largest colour difference (ΔE) from the typical colour, edges left out.
        surround_share: share of the black corners that a dermatoscope's tube leaves; every measure above is
            of the rest.
        blur: perceptual blur, 0 sharp … 1; ``None`` for images under 128 pixels.
        hair_share: share that is dark hair; ``None`` likewise.
    """

    height: int
    width: int
    chroma: float
    neutral_share: float
    foreign_share: float
    hue_agreement: float
    hue_spread: float
    unrest: float
    contrast: float
    lightest: float
    white_share: float
    lesion_contrast: float
    surround_share: float
    blur: float | None
    hair_share: float | None


def measure_skin(photo: Tensor) -> SkinMeasures:
    """Measure a photograph.

    Args:
        photo: ``(3, H, W)`` uint8, sRGB.

    Returns:
        The measures.

    Raises:
        ValueError: the photograph has another shape or type, or no pixels.

    Reference:
        Blur: Crété, Dolmière, Ladret, Nicolas: The blur effect: perception and estimation with a new
        no-reference perceptual blur metric, SPIE 6492 (2007).
    """
    if photo.ndim != 3 or photo.shape[0] != 3 or photo.dtype != torch.uint8 or photo.numel() == 0:
        raise ValueError(f"photo must be (3, H, W) uint8, got {tuple(photo.shape)} {photo.dtype}.")
    coarse = _resized(photo, COARSE_PX, COARSE_PX)  # (3, 28, 28)
    rgb = coarse.permute(1, 2, 0).numpy()
    lab = rgb2lab(rgb)  # (28, 28, 3)
    lightness, colour = lab[..., 0], lab[..., 1] + 1j * lab[..., 2]
    chroma, hue = np.abs(colour), np.degrees(np.angle(colour))
    surround = _black_surround(lightness)
    seen = ~surround  # (28, 28)
    tells = seen & (lightness > _BLACK_L)
    count = max(int(tells.sum()), 1)
    is_foreign = (chroma > _STRONG) & ((hue < _SKIN_HUES[0]) | (hue > _SKIN_HUES[1])) & tells
    is_neutral = (chroma < _FAINT) & (lightness > 30.0) & tells
    typical = np.median(lab[tells if tells.any() else seen], axis=0)
    away = np.where(seen, np.linalg.norm(lab - typical, axis=-1), 0.0)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    height, width = int(photo.shape[1]), int(photo.shape[2])
    blur, hair_share = _fine_measures(photo) if max(height, width) >= FOCUS_MIN_PX else (None, None)
    return SkinMeasures(
        height=height,
        width=width,
        chroma=float(np.percentile(chroma[seen], 90)),
        neutral_share=float(is_neutral.sum() / count),
        foreign_share=float(is_foreign.sum() / count),
        hue_agreement=float(np.abs(colour[tells].sum()) / max(float(chroma[tells].sum()), 1e-6)),
        hue_spread=float(np.sqrt(lab[seen][:, 1:].var(axis=0).sum())),
        unrest=_unrest(lab, seen),
        contrast=float(np.sqrt(lab[seen].var(axis=0).sum())),
        lightest=float(np.percentile(lightness[seen], 90)),
        white_share=float((rgb.min(axis=-1) >= _WHITE)[seen].mean()),
        lesion_contrast=float(away.max()),
        surround_share=float(surround.mean()),
        blur=blur,
        hair_share=hair_share,
    )


def _fine_measures(photo: Tensor) -> tuple[float, float]:
    height, width = photo.shape[1:]
    scale = min(1.0, LONG_SIDE_PX / max(height, width))
    fine = _resized(photo, max(1, round(height * scale)), max(1, round(width * scale)))
    if min(fine.shape[1:]) < 3:  # a line, which neither focus nor hairs can be seen in
        return 0.0, 0.0
    grey = ndimage.gaussian_filter(rgb2gray(fine.permute(1, 2, 0).numpy()), _NOISE_SIGMA)
    with np.errstate(invalid="ignore", divide="ignore"):  # an image of one colour
        blur = float(blur_effect(grey))
    return (blur if np.isfinite(blur) else 0.0), float(hair_mask(fine).float().mean())


def _resized(photo: Tensor, height: int, width: int) -> Tensor:
    if photo.shape[1:] == (height, width):
        return photo
    return F.interpolate(photo[None], size=(height, width), mode="bicubic", antialias=True)[0]


def _black_surround(lightness: FloatArray) -> npt.NDArray[np.bool_]:
    """Mark what is black and reaches a corner, with its rim, unless that is most of the picture."""
    pieces = label(lightness <= _BLACK_L)
    corners = {int(pieces[row, column]) for row in (0, -1) for column in (0, -1)} - {0}
    black = ndimage.binary_dilation(np.isin(pieces, sorted(corners)), np.ones((3, 3)))
    return black if black.mean() <= _MAX_SURROUND else np.zeros_like(black)


def _unrest(lab: FloatArray, seen: npt.NDArray[np.bool_]) -> float:
    """Mean colour difference of neighbours that are both seen."""
    steps = [
        np.linalg.norm(lab[1:] - lab[:-1], axis=-1)[seen[1:] & seen[:-1]],
        np.linalg.norm(lab[:, 1:] - lab[:, :-1], axis=-1)[seen[:, 1:] & seen[:, :-1]],
    ]
    return float(np.mean([step.mean() for step in steps if step.size]))
