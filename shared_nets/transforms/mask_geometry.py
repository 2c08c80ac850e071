"""Bring a kidney mask onto the grid of its CT: exactly where the grids agree, else by nearest neighbour.

Shape letters: H, W, D voxels of a box; N voxels of kidney.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from shared_nets.refusals import InputRefused
from shared_nets.transforms.kidney_mask import FloatArray, KidneyLabels
from shared_nets.types import Finding

TOLERANCE_MM = 0.1
MAX_OUTSIDE_SHARE = 0.01


def match_mask_to_image(
    kidneys: KidneyLabels,
    *,
    image_shape: tuple[int, int, int],
    image_affine: npt.ArrayLike,
    tolerance_mm: float = TOLERANCE_MM,
    max_outside_share: float = MAX_OUTSIDE_SHARE,
    has_empty_slices_omitted: bool = False,
) -> tuple[KidneyLabels, tuple[Finding, ...]]:
    """Place the kidneys of a mask in the voxel grid of an image.

    The same grid is taken as it is; the same grid with its axes flipped, permuted or cropped is rearranged
    without interpolation; any other grid is sampled at the nearest voxel.

    Args:
        kidneys: kidneys on the grid of the mask.
        image_shape: voxels of the image, I, J, K.
        image_affine: voxel index of the image → RAS mm, ``(4, 4)``.
        tolerance_mm: how far a voxel of the kidneys may lie from a voxel of the image and still be the same
            one.
        max_outside_share: how much of the kidneys' volume may lie outside the image, 0 to 1.
        has_empty_slices_omitted: whether the mask was stored without its empty slices (DICOM SEG), so that
            its grid ends where the kidneys end.

    Returns:
        The kidneys on the grid of the image, and what was repaired: nothing, ``MASK_REORIENTED``, or
        ``MASK_RESAMPLED``.

    Raises:
        InputRefused: ``MASK_GEOMETRY_MISMATCH`` when the kidneys lie outside the image, or the grid of the
            mask ends inside a kidney while the image goes on; ``GEOMETRY_BAD_SPACING`` for an affine that is
            no grid.
    """
    target = np.asarray(image_affine, dtype=np.float64)
    _check_invertible(kidneys.grid_affine, "mask")
    _check_invertible(target, "image")
    to_image = np.linalg.inv(target) @ kidneys.affine  # voxel of the box → voxel of the image
    _check_coverage(kidneys, to_image, image_shape, max_outside_share, has_empty_slices_omitted)

    exact = _nearest_signed_permutation(to_image)
    if exact is not None and _largest_shift_mm(kidneys, to_image, exact, target) <= tolerance_mm:
        labels, offset = _rearrange(kidneys.labels, exact)
        is_same = np.array_equal(exact[:3, :3], np.eye(3))
        findings = () if is_same else (_reoriented(),)
    else:
        labels, offset = _sample_nearest(kidneys.labels, to_image, image_shape)
        findings = (_resampled(kidneys, target),)
    labels, offset = _cut_to_grid(labels, offset, image_shape)
    if not labels.any():
        raise _mismatch("No kidney voxel of the mask falls on a voxel of the image.")
    matched = replace(kidneys, labels=labels, offset=offset, grid_shape=image_shape, grid_affine=target)
    return matched, findings


def _check_invertible(affine: FloatArray, name: str) -> None:
    volume = np.linalg.det(affine[:3, :3]) if affine.shape == (4, 4) and np.isfinite(affine).all() else 0.0
    if abs(volume) < 1e-9:
        raise InputRefused(
            "GEOMETRY_BAD_SPACING",
            f"The voxel size or the directions of the {name} are missing, zero or not numbers.",
            f"Write the {name} again with its true geometry.",
        )


def _check_coverage(
    kidneys: KidneyLabels,
    to_image: FloatArray,
    image_shape: tuple[int, int, int],
    max_outside_share: float,
    has_empty_slices_omitted: bool,
) -> None:
    corners = _corners(kidneys.labels.shape)
    outside = 0.0
    if not _is_inside(corners, to_image, image_shape).all():
        outside = 1.0 - float(_is_inside(np.argwhere(kidneys.labels), to_image, image_shape).mean())
    if outside == 1.0:
        raise _mismatch("The kidneys of the mask and the image do not overlap.")
    if outside > max_outside_share:
        raise _mismatch(f"{outside:.0%} of the mask's kidney volume lies outside the image.")
    if not has_empty_slices_omitted and _mask_ends_inside_kidney(kidneys, to_image, image_shape):
        raise _mismatch("The mask's grid ends inside a kidney, while the image goes on.")


def _mask_ends_inside_kidney(
    kidneys: KidneyLabels, to_image: FloatArray, image_shape: tuple[int, int, int]
) -> bool:
    """Whether kidney touches a face of the mask's grid that lies at least 1.5 voxels inside the image."""
    for axis, (start, size, whole) in enumerate(
        zip(kidneys.offset, kidneys.labels.shape, kidneys.grid_shape, strict=True)
    ):
        faces = ([(0, -1)] if start == 0 else []) + ([(size - 1, 1)] if start + size == whole else [])
        for index, direction in faces:
            face = np.argwhere(kidneys.labels.take(index, axis=axis))
            beyond = np.insert(face, axis, index + 1.5 * direction, axis=1)  # (N, 3), past the face
            if _is_inside(beyond, to_image, image_shape).any():
                return True
    return False


def _is_inside(
    voxels: npt.NDArray[Any], to_image: FloatArray, image_shape: tuple[int, int, int]
) -> npt.NDArray[np.bool_]:
    """Whether each voxel's centre, ``(N, 3)``, falls into a voxel of the image; ``(N,)``."""
    inside = np.ones(len(voxels), dtype=bool)
    for axis, size in enumerate(image_shape):
        position = voxels @ to_image[axis, :3] + to_image[axis, 3]  # (N,)
        inside &= (position > -0.5 - 1e-3) & (position < size - 0.5 + 1e-3)
    return inside


def _corners(shape: tuple[int, ...], *, margin: float = 0.0) -> FloatArray:
    """The eight corner voxels of a box, moved outwards by a margin; ``(8, 3)``."""
    return np.array(list(itertools.product(*((-margin, size - 1 + margin) for size in shape))))


def _nearest_signed_permutation(to_image: FloatArray) -> FloatArray | None:
    """The nearest rearrangement of axes with a whole-voxel offset; ``None`` if there is none."""
    rounded = np.rint(to_image)
    turn = rounded[:3, :3]
    is_permutation = (np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()
    return rounded if is_permutation else None


def _largest_shift_mm(
    kidneys: KidneyLabels, to_image: FloatArray, exact: FloatArray, target: FloatArray
) -> float:
    """Largest distance that rounding moves a voxel of the box, mm; it is reached at a corner."""
    corners = _corners(kidneys.labels.shape)
    shift = (to_image - exact)[:3]
    moved = corners @ shift[:, :3].T + shift[:, 3]
    return float(np.linalg.norm(moved @ target[:3, :3].T, axis=1).max())


def _rearrange(
    labels: npt.NDArray[np.uint8], exact: FloatArray
) -> tuple[npt.NDArray[np.uint8], tuple[int, int, int]]:
    source_axes = [int(np.abs(exact[axis, :3]).argmax()) for axis in range(3)]
    corners = exact[:3, :3] @ (np.array(labels.shape) - 1)
    start = np.minimum(corners, 0) + exact[:3, 3]
    turned = labels.transpose(source_axes)
    flips = [axis for axis in range(3) if exact[axis, source_axes[axis]] < 0]
    return np.flip(turned, axis=tuple(flips)), (int(start[0]), int(start[1]), int(start[2]))


def _sample_nearest(
    labels: npt.NDArray[np.uint8], to_image: FloatArray, image_shape: tuple[int, int, int]
) -> tuple[npt.NDArray[np.uint8], tuple[int, int, int]]:
    corners = _corners(labels.shape, margin=0.5)
    reach = corners @ to_image[:3, :3].T + to_image[:3, 3]
    first = np.clip(np.floor(reach.min(axis=0)), 0, np.array(image_shape) - 1).astype(int)
    last = np.clip(np.ceil(reach.max(axis=0)), 0, np.array(image_shape) - 1).astype(int)
    back = np.linalg.inv(to_image)
    sampled = ndimage.affine_transform(
        labels,
        back[:3, :3],
        offset=back[:3, :3] @ first + back[:3, 3],
        output_shape=tuple(last - first + 1),
        order=0,
        mode="grid-constant",
        cval=0,
    )
    return sampled, (int(first[0]), int(first[1]), int(first[2]))


def _cut_to_grid(
    labels: npt.NDArray[np.uint8], offset: tuple[int, int, int], image_shape: tuple[int, int, int]
) -> tuple[npt.NDArray[np.uint8], tuple[int, int, int]]:
    """Cut to the image, and to the box that holds kidney."""
    box = [
        slice(max(0, -o), min(size, n - o))
        for o, size, n in zip(offset, labels.shape, image_shape, strict=True)
    ]
    cut = labels[tuple(box)]
    start = [o + s.start for o, s in zip(offset, box, strict=True)]
    for axis in range(3):
        used = np.flatnonzero(cut.any(axis=tuple(a for a in range(3) if a != axis)))
        if used.size == 0:
            return cut, (start[0], start[1], start[2])
        cut = cut.take(range(used[0], used[-1] + 1), axis=axis) if used.size < cut.shape[axis] else cut
        start[axis] += int(used[0])
    return cut, (start[0], start[1], start[2])


def _reoriented() -> Finding:
    return Finding(
        code="MASK_REORIENTED",
        message="The axes of the mask were flipped or reordered as in the image, without interpolation.",
    )


def _resampled(kidneys: KidneyLabels, target: FloatArray) -> Finding:
    before, after = (
        " × ".join(f"{mm:.2f}" for mm in np.linalg.norm(a[:3, :3], axis=0))
        for a in (kidneys.grid_affine, target)
    )
    return Finding(
        code="MASK_RESAMPLED",
        message=f"The mask was sampled onto the image's grid, nearest voxel ({before} mm to {after} mm).",
    )


def _mismatch(message: str) -> InputRefused:
    return InputRefused(
        "MASK_GEOMETRY_MISMATCH",
        message,
        "Give the mask that was made from this very image, with its position kept.",
    )
