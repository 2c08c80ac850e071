"""Choose the axial slices that show kidney, before anything is resampled; say where a kidney is cut off.

Shape letters: H, W, D voxels of the box that holds the kidneys; K kept slices; S slices asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt

from shared_nets.refusals import InputRefused
from shared_nets.transforms.kidney_mask import FloatArray, KidneyLabels, kidney_sides
from shared_nets.types import Finding

_MAX_TILT_DEGREES = 20.0
#: Where the two ends of each RAS axis lie: low coordinate, high coordinate.
_ENDS = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class VolumeAxes:
    """Which voxel axis runs where; a scan is not turned to find out, so oblique axes count as the nearest.

    Args:
        right: voxel axis that runs from left to right or back; likewise ``anterior`` and ``superior``.
        right_grows: whether its index grows towards the right; likewise the others.
    """

    right: int
    anterior: int
    superior: int
    right_grows: bool
    anterior_grows: bool
    superior_grows: bool


@dataclass(frozen=True, kw_only=True)
class SliceSelection:
    """Axial slices from the feet to the head.

    Args:
        axis: voxel axis across which they lie.
        indices: along that axis of the whole grid, ``(S,)``.
        positions_mm: along the slice normal, which points to the head, RAS mm, ``(S,)``.
        is_valid: false where a slice repeats the one before it, ``(S,)``.
        areas_mm2: kidney cross-section, ``(S,)``.
        num_kidney_slices: slices that show kidney at all.
        centre_mm: position of the kidneys' centre of mass along the normal.
    """

    axis: int
    indices: IntArray
    positions_mm: FloatArray
    is_valid: npt.NDArray[np.bool_]
    areas_mm2: FloatArray
    num_kidney_slices: int
    centre_mm: float


def volume_axes(affine: npt.ArrayLike) -> VolumeAxes:
    """Find out how the voxel axes of a volume lie in the body.

    Args:
        affine: voxel index → RAS mm, ``(4, 4)``.

    Returns:
        The axes.
    """
    orientation = nib.orientations.io_orientation(np.asarray(affine, dtype=np.float64))  # (3, 2)
    axes = [int(np.flatnonzero(orientation[:, 0] == world)[0]) for world in range(3)]
    grows = [bool(orientation[axis, 1] > 0) for axis in axes]
    return VolumeAxes(
        right=axes[0],
        anterior=axes[1],
        superior=axes[2],
        right_grows=grows[0],
        anterior_grows=grows[1],
        superior_grows=grows[2],
    )


def spread_evenly(num_kept: int, num_slices: int) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Pick a fixed number of slices out of those kept.

    Slice ``s`` of ``S`` is the kept slice nearest to ``s · (K - 1) / (S - 1)``, halves upwards: the first and
    the last are always in. With fewer kept than asked for, slices repeat, and only the first of equal ones is
    valid. A single slice is the middle one.

    Args:
        num_kept: slices to pick from, K.
        num_slices: slices to pick, S.

    Returns:
        Numbers of the kept slices, ascending, ``(S,)``, and whether each is valid, ``(S,)``.

    Raises:
        ValueError: an argument is below 1.
    """
    for name, value in (("num_kept", num_kept), ("num_slices", num_slices)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if num_slices == 1:
        return np.array([(num_kept - 1) // 2]), np.array([True])
    steps = num_slices - 1
    picks = (2 * np.arange(num_slices) * (num_kept - 1) + steps) // (
        2 * steps
    )  # whole numbers: no rounding error
    is_valid = np.concatenate([[True], np.diff(picks) > 0])
    return picks, is_valid


def select_kidney_slices(
    kidneys: KidneyLabels, *, num_slices: int, min_area_mm2: float = 50.0
) -> SliceSelection:
    """Choose the slices that the network sees.

    Args:
        kidneys: kidneys on the grid of the image.
        num_slices: how many slices, whatever the length of the kidneys; see :func:`spread_evenly`.
        min_area_mm2: smallest kidney cross-section of a slice, mm²; tumour and cyst count.

    Returns:
        The slices, from the feet to the head, whatever the direction of the volume.

    Raises:
        ValueError: ``num_slices`` is below 1 or ``min_area_mm2`` is negative.
        InputRefused: ``MASK_TOO_SMALL``.
    """
    if min_area_mm2 < 0:
        raise ValueError(f"min_area_mm2 must be 0 or more, got {min_area_mm2}.")
    axes = volume_axes(kidneys.grid_affine)
    axis = axes.superior
    in_plane = [a for a in range(3) if a != axis]
    normal = np.cross(kidneys.grid_affine[:3, in_plane[0]], kidneys.grid_affine[:3, in_plane[1]])
    pixel_area_mm2 = float(np.linalg.norm(normal))
    normal = normal / pixel_area_mm2 * np.sign(normal[2])  # towards the head

    areas_mm2 = np.count_nonzero(kidneys.labels, axis=tuple(in_plane)) * pixel_area_mm2  # (D,)
    positions_mm = normal @ kidneys.affine[:3, 3] + np.arange(areas_mm2.size) * (
        normal @ kidneys.affine[:3, axis]
    )  # (D,)
    kept = np.flatnonzero((areas_mm2 >= min_area_mm2) & (areas_mm2 > 0))  # (K,)
    if kept.size == 0:
        raise InputRefused(
            "MASK_TOO_SMALL",
            f"No slice shows {min_area_mm2:g} mm² of kidney; the most in one is {areas_mm2.max():.1f} mm².",
            "Check the segmentation, or lower min_area_mm2.",
        )
    if not axes.superior_grows:
        kept = kept[::-1]
    picks, is_valid = spread_evenly(kept.size, num_slices)
    chosen = kept[picks]  # (S,)
    return SliceSelection(
        axis=axis,
        indices=chosen + kidneys.offset[axis],
        positions_mm=positions_mm[chosen],
        is_valid=is_valid,
        areas_mm2=areas_mm2[chosen],
        num_kidney_slices=int(np.count_nonzero(areas_mm2)),
        centre_mm=float(np.average(positions_mm, weights=areas_mm2)),
    )


def field_of_view_findings(
    kidneys: KidneyLabels, *, midline_x_mm: float | None = None
) -> tuple[Finding, ...]:
    """Say which kidney is cut off by which end of the image, and whether the slices are oblique.

    A kidney counts as cut off when it reaches the first or last voxel of the image along any axis.

    Args:
        kidneys: kidneys on the grid of the image.
        midline_x_mm: RAS x of the middle of the body; of the image by default.

    Returns:
        ``KIDNEY_CUT_OFF`` for each kidney and end, right before left, ``SLICES_OBLIQUE``; or nothing.
    """
    affine = kidneys.grid_affine
    axes = volume_axes(affine)
    findings = []
    tilt = np.degrees(np.arccos(min(1.0, abs(affine[2, axes.superior]) / kidneys.spacing_mm[axes.superior])))
    if tilt > _MAX_TILT_DEGREES:
        message = f"The slices are tilted {tilt:.0f}° against the axial plane."
        findings.append(Finding(code="SLICES_OBLIQUE", message=message))
    ends = [
        (world, is_high)
        for world, axis, grows in (
            (2, axes.superior, axes.superior_grows),
            (1, axes.anterior, axes.anterior_grows),
            (0, axes.right, axes.right_grows),
        )
        for is_high in (False, True)
        if _reaches(kidneys, axis, last=is_high == grows)
    ]
    if not ends:
        return tuple(findings)
    if midline_x_mm is None:
        midline_x_mm = float(affine[0, :3] @ ((np.array(kidneys.grid_shape) - 1) / 2.0) + affine[0, 3])
    sides = kidney_sides(kidneys.labels, kidneys.affine, midline_x_mm=midline_x_mm).masks
    voxel_axes = (axes.right, axes.anterior, axes.superior)
    grows = (axes.right_grows, axes.anterior_grows, axes.superior_grows)
    for name, mask in sides.items():
        for world, is_high in ends:
            if mask.take(-1 if is_high == grows[world] else 0, axis=voxel_axes[world]).any():
                findings.append(_cut_off(name, world, is_high))
    return tuple(findings)


def _reaches(kidneys: KidneyLabels, axis: int, *, last: bool) -> bool:
    start, size = kidneys.offset[axis], kidneys.labels.shape[axis]
    return start + size == kidneys.grid_shape[axis] if last else start == 0


def _cut_off(name: str, world: int, is_high: bool) -> Finding:
    end = _ENDS[world][is_high]
    kidney = "The kidney" if name == "kidney" else f"The {name} kidney"
    if world == 2:
        slice_name = "highest" if is_high else "lowest"
        message = f"{kidney} reaches the {slice_name} slice of the image; its {end} pole is cut off."
    else:
        message = f"{kidney} reaches the {end} border of the image and is cut off there."
    return Finding(code="KIDNEY_CUT_OFF", message=message)
