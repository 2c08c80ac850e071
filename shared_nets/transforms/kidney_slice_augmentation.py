"""Kidney label slices seen anew: turned, shifted, scaled, mirrored, thinned, with a kidney or lesions gone.

Shape letters: R, C rows and columns; P side of the canvas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from shared_nets.transforms.kidney_mask import KIDNEY

LabelArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class SliceAugmentation:
    """How far a label slice may be changed.

    Args:
        max_shift_mm: largest shift along rows and columns.
        max_turn_degrees: largest rotation.
        max_log_scale: largest logarithm of the scale, along rows and columns on their own.
        mirror_probability: of exchanging left and right.
        thin_probability: of growing or shrinking the parenchyma.
        max_thin_mm: by how much.
        drop_side_probability: of leaving out one kidney.
        plain_probability: of taking lesions for kidney, as masks without lesion labels do.
    """

    max_shift_mm: float = 20.0
    max_turn_degrees: float = 15.0
    max_log_scale: float = 0.2
    mirror_probability: float = 0.5
    thin_probability: float = 0.5
    max_thin_mm: float = 3.0
    drop_side_probability: float = 0.1
    plain_probability: float = 0.1


def augment_slice(
    labels: LabelArray,
    is_left: BoolArray,
    *,
    canvas: int,
    pixel_mm: float,
    how: SliceAugmentation,
    rng: np.random.Generator,
) -> tuple[LabelArray, BoolArray]:
    """Place a label slice in the middle of a square canvas and change it at random.

    Args:
        labels: canonical labels, ``(R, C)``.
        is_left: true where a pixel belongs to the left kidney, ``(R, C)``.
        canvas: side of the canvas in pixels, P.
        pixel_mm: side of a pixel, mm.
        how: how far to change it.
        rng: random numbers.

    Returns:
        Labels and sides on the canvas, ``(P, P)`` each.
    """
    coded = labels.astype(np.uint8) + 4 * is_left.astype(np.uint8) * (labels > 0)  # sides travel with labels
    angle = np.deg2rad(rng.uniform(-how.max_turn_degrees, how.max_turn_degrees))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.exp(rng.uniform(-how.max_log_scale, how.max_log_scale, 2))
    matrix = turn / scale  # canvas pixel → slice pixel
    mirrored = rng.random() < how.mirror_probability
    if mirrored:
        matrix[:, 1] *= -1.0
    shift = rng.uniform(-how.max_shift_mm, how.max_shift_mm, 2) / pixel_mm
    offset = (np.array(labels.shape) - 1) / 2.0 - matrix @ ((canvas - 1) / 2.0 + shift)
    moved = ndimage.affine_transform(
        coded, matrix, offset, output_shape=(canvas, canvas), order=0, prefilter=False
    )
    side = (moved >= 4) != mirrored  # a mirrored left kidney is a right one
    out = moved % 4
    if rng.random() < how.plain_probability:
        out[out > 0] = KIDNEY
    if rng.random() < how.drop_side_probability:
        out[side == (rng.random() < 0.5)] = 0
    if rng.random() < how.thin_probability:
        out = _thinned(out, rng.uniform(-how.max_thin_mm, how.max_thin_mm) / pixel_mm)
        side |= ndimage.maximum_filter(side & (out > 0), size=7)
    return out, side & (out > 0)


def _thinned(labels: LabelArray, pixels: float) -> LabelArray:
    """Take ``pixels`` away from the border of the parenchyma with the outside, or add them where negative."""
    if pixels > 0:
        depth = ndimage.distance_transform_edt(labels > 0)
        return np.where((depth <= pixels) & (labels == KIDNEY), 0, labels).astype(np.uint8)
    distance = ndimage.distance_transform_edt(labels != KIDNEY)
    return np.where((distance <= -pixels) & (labels == 0), KIDNEY, labels).astype(np.uint8)
