"""What a kidney picture shows in numbers, side by side: the targets that a trunk is pretrained to read off.

The sides are the patient's. Parenchyma is kidney without tumour and cyst.

Shape letters: S slices; R, C rows and columns; N people; F measures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import regionprops

from shared_nets.transforms.kidney_mask import CYST, KIDNEY, TUMOUR, kidney_sides

#: Measures of one side on one slice. Square roots keep large tumours from ruling the loss.
SLICE_MEASURES: tuple[str, ...] = (
    "parenchyma_area_sqrt_cm",
    "depth_mean_mm",
    "depth_p90_mm",
    "depth_max_mm",
    "edge_area_sqrt_cm",
    "solidity",
    "tumour_area_sqrt_cm",
    "cyst_area_sqrt_cm",
    "width_mm",
    "height_mm",
    "minor_axis_mm",
)
#: Measures of one side of a person.
SIDE_MEASURES: tuple[str, ...] = (
    "depth_mean_mm",
    "depth_p90_mm",
    "parenchyma_log_ml",
    "largest_area_cm2",
    "tumour_log_ml",
    "cyst_log_ml",
    "sphericity",
    "parenchyma_share",
)
_MIN_PIXELS = 4
_MIN_VOXELS = 500
_CLOSING_VOXELS = 8

LabelArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]


def slice_measures(labels: LabelArray, is_left: BoolArray, *, pixel_mm: float) -> FloatArray:
    """Measure both kidneys on one slice.

    The depth of a pixel of parenchyma is its distance from the nearest pixel that is none.

    Args:
        labels: canonical labels, ``(R, C)``.
        is_left: true where a pixel belongs to the left kidney, ``(R, C)``.
        pixel_mm: side of a pixel, mm.

    Returns:
        ``(2 · F,)`` float32: :data:`SLICE_MEASURES` of the left, then of the right kidney; zeros where there
        is none.
    """
    pixel_cm2 = pixel_mm * pixel_mm / 100.0
    out = np.zeros((2, len(SLICE_MEASURES)), np.float32)
    for number, side in enumerate((is_left, ~is_left)):
        kidney = np.where(side, labels, 0)  # (R, C)
        if not kidney.any():
            continue
        kidney = np.pad(kidney[ndimage.find_objects((kidney > 0).view(np.uint8))[0]], 1)
        out[number, 6] = np.sqrt(np.count_nonzero(kidney == TUMOUR) * pixel_cm2)
        out[number, 7] = np.sqrt(np.count_nonzero(kidney == CYST) * pixel_cm2)
        parenchyma = kidney == KIDNEY
        if np.count_nonzero(parenchyma) < _MIN_PIXELS:
            continue
        depth = ndimage.distance_transform_edt(parenchyma)[parenchyma] * pixel_mm
        region: Any = regionprops(parenchyma.astype(np.uint8))[0]
        out[number, :6] = (
            np.sqrt(depth.size * pixel_cm2),
            depth.mean(),
            np.percentile(depth, 90),
            depth.max(),
            np.sqrt(np.count_nonzero(depth < 1.05 * pixel_mm) * pixel_cm2),
            _solidity(region),
        )
        out[number, 8:] = (
            (region.bbox[3] - region.bbox[1]) * pixel_mm,
            (region.bbox[2] - region.bbox[0]) * pixel_mm,
            region.axis_minor_length * pixel_mm,
        )
    return out.reshape(-1)


def side_measures(labels: LabelArray, is_left: BoolArray, *, voxel_mm: float) -> FloatArray:
    """Measure both kidneys of a person.

    Args:
        labels: canonical labels, ``(S, R, C)``, on voxels with equal sides.
        is_left: true where a voxel belongs to the left kidney, ``(S, R, C)``.
        voxel_mm: side of a voxel, mm.

    Returns:
        ``(2 · F,)`` float32: :data:`SIDE_MEASURES` of the left, then of the right kidney; NaN where there is
        is none.
    """
    voxel_ml = voxel_mm**3 / 1000.0
    out = np.full((2, len(SIDE_MEASURES)), np.nan, np.float32)
    for number, side in enumerate((is_left, ~is_left)):
        kidney = np.where(side, labels, 0)  # (S, R, C)
        if np.count_nonzero(kidney == KIDNEY) < _MIN_VOXELS:
            continue
        kidney = np.pad(kidney[ndimage.find_objects((kidney > 0).view(np.uint8))[0]], 2)
        parenchyma, outline = kidney == KIDNEY, kidney > 0
        depth = ndimage.distance_transform_edt(parenchyma)[parenchyma] * voxel_mm
        volume_ml = depth.size * voxel_ml
        outline_ml = np.count_nonzero(outline) * voxel_ml
        surface = outline & ~ndimage.binary_erosion(outline)
        filled = ndimage.binary_closing(outline, iterations=_CLOSING_VOXELS)
        out[number] = (
            depth.mean(),
            np.percentile(depth, 90),
            np.log(volume_ml),
            parenchyma.sum(axis=(1, 2)).max() * voxel_mm**2 / 100.0,
            np.log1p(np.count_nonzero(kidney == TUMOUR) * voxel_ml),
            np.log1p(np.count_nonzero(kidney == CYST) * voxel_ml),
            outline_ml ** (2.0 / 3.0) / (np.count_nonzero(surface) * voxel_mm**2 / 100.0),
            volume_ml / (np.count_nonzero(filled | outline) * voxel_ml),
        )
    return out.reshape(-1)


def left_side(labels: LabelArray, *, voxel_mm: float, midline_column: float) -> BoolArray:
    """Say which voxels of displayed slices belong to the patient's left kidney.

    Args:
        labels: canonical labels, ``(S, R, C)``, columns from the patient's right to the left.
        voxel_mm: side of a voxel, mm.
        midline_column: middle of the body, for a single kidney.

    Returns:
        ``(S, R, C)`` bool.
    """
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[0, 2], affine[1, 1], affine[2, 0] = -voxel_mm, -voxel_mm, voxel_mm
    sides = kidney_sides(labels, affine, midline_x_mm=-voxel_mm * midline_column)
    return sides.masks.get("left", np.zeros(labels.shape, dtype=bool))


def _solidity(region: Any) -> float:
    """Share of the convex hull that is filled; 1 for a line, which has no hull."""
    rows, columns = region.bbox[2] - region.bbox[0], region.bbox[3] - region.bbox[1]
    return float(region.solidity) if min(rows, columns) > 1 else 1.0
