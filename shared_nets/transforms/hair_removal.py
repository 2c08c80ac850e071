"""Take dark hairs out of a dermoscopy image: find thin dark lines, and fill them from beside.

Light hairs are left alone. Sizes are those of an image whose long side has :data:`LONG_SIDE_PX` pixels;
larger ones are judged at that size and changed at their own.

Shape letters: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import skeletonize
from torch import Tensor

LONG_SIDE_PX = 512
MIN_SIDE_PX = 64  # in smaller images a hair is no line any more
_HALF_LENGTH = 6  # of the line that closes, pixels: hairs up to 12 pixels wide are found
_DIRECTIONS = ((0, 1), (1, 2), (1, 1), (2, 1), (1, 0), (2, -1), (1, -1), (1, -2))  # steps in rows, columns
_FILL_SIGMA = 3.0  # of the Gaussian that fills, pixels

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def hair_mask(
    photo: Tensor, *, min_depth: float = 18.0, min_length: float = 30.0, max_width: float = 10.0
) -> Tensor:
    """Mark dark hairs.

    A morphological closing with a line across a hair fills it, with a line along the hair it does not; a spot
    is filled by both. The difference is therefore high on lines only. Of what is left, pieces that are short
    or broad are no hairs. The idea is that of DullRazor, with more directions and a test against spots.

    Args:
        photo: ``(3, H, W)`` uint8.
        min_depth: how much darker than its sides a hair must be, grey levels of 255.
        min_length: shortest hair, pixels at a long side of 512.
        max_width: broadest hair, likewise.

    Returns:
        ``(H, W)`` bool; all false for images under 64 pixels.

    Raises:
        ValueError: the photograph has another shape or type.

    Reference:
        Lee, Ng, Gallagher, Coldman, McLean: DullRazor: a software approach to hair removal from images,
        Computers in Biology and Medicine 27 (1997).
    """
    _check(photo)
    if min(photo.shape[1:]) < MIN_SIDE_PX:
        return torch.zeros(photo.shape[1:], dtype=torch.bool)
    mask = torch.from_numpy(_find(_small(photo), min_depth, min_length, max_width))
    if mask.shape == photo.shape[1:]:
        return mask
    size = (int(photo.shape[1]), int(photo.shape[2]))
    return F.interpolate(mask[None, None].float(), size=size, mode="bilinear")[0, 0] > 0.25


def remove_hair(photo: Tensor, mask: Tensor | None = None) -> Tensor:
    """Fill dark hairs with the colours beside them.

    Args:
        photo: ``(3, H, W)`` uint8.
        mask: ``(H, W)`` bool; :func:`hair_mask` by default.

    Returns:
        ``(3, H, W)`` uint8; outside the mask the very same pixels.

    Raises:
        ValueError: the photograph or the mask has another shape or type.
    """
    _check(photo)
    mask = hair_mask(photo) if mask is None else mask
    if mask.shape != photo.shape[1:] or mask.dtype != torch.bool:
        raise ValueError(f"mask must be (H, W) bool as the photo, got {tuple(mask.shape)} {mask.dtype}.")
    if not bool(mask.any()) or bool(mask.all()):
        return photo.clone()
    small = _small(photo)  # (h, w, 3)
    size = small.shape[:2]
    covered = mask if mask.shape == size else F.adaptive_max_pool2d(mask[None, None].float(), size)[0, 0] > 0
    fill = torch.from_numpy(_filled(small, covered.numpy())).permute(2, 0, 1)  # (3, h, w)
    if fill.shape != photo.shape:
        whole = (int(photo.shape[1]), int(photo.shape[2]))
        fill = F.interpolate(fill[None], size=whole, mode="bilinear")[0]
    return torch.where(mask, fill.round().clamp(0, 255).to(torch.uint8), photo)


class RemoveHaird(MapTransform):
    """Replace a photograph by :func:`remove_hair` of it, and keep the original for people.

    Writes ``photo`` (the photograph before), unless it is there already, and ``hair_share`` (0 … 1).

    Args:
        keys: key of the photograph, ``(3, H, W)`` uint8.
        min_depth: see :func:`hair_mask`.
        max_share: where more than this share of the image is hair, nothing is removed: too little skin is
            left to fill from.
        photo_key: where the photograph is kept; ``None`` to keep none.
        share_key: where the share of hair is written.
        allow_missing_keys: leave data without the key alone.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        min_depth: float = 18.0,
        max_share: float = 0.4,
        photo_key: str | None = "photo",
        share_key: str = "hair_share",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not 0 < max_share <= 1:
            raise ValueError(f"max_share must lie within 0 … 1, got {max_share}.")
        if min_depth <= 0:
            raise ValueError(f"min_depth must be positive, got {min_depth}.")
        self.min_depth, self.max_share = min_depth, max_share
        self.photo_key, self.share_key = photo_key, share_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change a copy of ``data``."""
        d = dict(data)
        for key in self.key_iterator(d):
            photo = d[key]
            if self.photo_key is not None:
                d.setdefault(self.photo_key, photo)
            plain = photo.as_tensor() if isinstance(photo, MetaTensor) else photo
            mask = hair_mask(plain, min_depth=self.min_depth)
            d[self.share_key] = float(mask.float().mean())
            if d[self.share_key] <= self.max_share:
                changed = remove_hair(plain, mask)
                d[key] = MetaTensor(changed, meta=photo.meta) if isinstance(photo, MetaTensor) else changed
        return d


def _small(photo: Tensor) -> FloatArray:
    """Give ``(h, w, 3)`` float32 with a long side of 512 at most."""
    long_side = max(photo.shape[1:])
    if long_side > LONG_SIDE_PX:
        size = [max(1, round(side * LONG_SIDE_PX / long_side)) for side in photo.shape[1:]]
        photo = F.interpolate(photo[None], size=size, mode="bilinear", antialias=True)[0]
    return np.ascontiguousarray(photo.permute(1, 2, 0).numpy()).astype(np.float32)


def _find(image: FloatArray, min_depth: float, min_length: float, max_width: float) -> BoolArray:
    grey = image[..., 0]  # in red, furrows of the skin and pigment are faint, and hairs are not
    closed = [ndimage.grey_closing(grey, footprint=_line(*step)) for step in _DIRECTIONS]
    filled, along = np.max(closed, axis=0), np.min(closed, axis=0)
    depth = np.minimum(filled - grey, filled - along)  # dark against its sides, and a line
    candidates = ndimage.binary_closing(np.pad(depth > min_depth, 1), np.ones((3, 3)))[1:-1, 1:-1]
    pieces, count = label(candidates, return_num=True, connectivity=2)
    if count == 0:
        return candidates
    areas = np.bincount(pieces.ravel(), minlength=count + 1)
    lengths = np.bincount(pieces[skeletonize(candidates)], minlength=count + 1)
    spans = np.array(
        [0.0, *(np.hypot(*(s.stop - s.start for s in box)) for box in ndimage.find_objects(pieces))]
    )
    is_hair = (spans >= min_length) & (areas <= max_width * np.maximum(lengths, 1))
    is_hair[0] = False
    return np.asarray(ndimage.binary_dilation(is_hair[pieces], np.ones((3, 3)), iterations=1))


def _line(rows: int, columns: int) -> BoolArray:
    """Draw a line through the middle of a square, in steps of so many rows and columns."""
    size = 2 * _HALF_LENGTH + 1
    footprint = np.zeros((size, size), dtype=bool)
    at = np.linspace(-1.0, 1.0, 2 * size) * _HALF_LENGTH / np.hypot(rows, columns)
    footprint[
        _HALF_LENGTH + np.rint(at * rows).astype(int), _HALF_LENGTH + np.rint(at * columns).astype(int)
    ] = True
    return footprint


def _filled(image: FloatArray, mask: BoolArray) -> FloatArray:
    """Mean of the pixels around that are no hair, weighted by a Gaussian; the nearest where none is near."""
    weight = ndimage.gaussian_filter((~mask).astype(np.float32), _FILL_SIGMA)
    nearest = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    out = image[tuple(nearest)]
    near = weight > 1e-3
    for channel in range(3):
        mean = ndimage.gaussian_filter(np.where(mask, 0.0, image[..., channel]), _FILL_SIGMA)
        out[..., channel][near] = mean[near] / weight[near]
    return out


def _check(photo: Tensor) -> None:
    if photo.ndim != 3 or photo.shape[0] != 3 or photo.dtype != torch.uint8 or photo.numel() == 0:
        raise ValueError(f"photo must be (3, H, W) uint8, got {tuple(photo.shape)} {photo.dtype}.")
