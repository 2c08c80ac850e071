"""From a CT in any orientation to the coarse grid that a segmentation network sees, and back.

The coarse grid runs right, anterior, superior; oblique axes count as the nearest. Each of its voxels is the
mean of what it covers, so noise goes down and nothing is skipped.

Shape letters: I, J, K voxels of the CT; X, Y, Z voxels of the coarse grid.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor
from torch.nn import functional as F

from shared_nets.refusals import InputRefused

FloatArray = npt.NDArray[np.float64]
_MAX_VOXELS = 512**3  # of the coarse grid: a field of view of 1.5 m in every direction at 3 mm


@dataclass(frozen=True, kw_only=True)
class NetworkGrid:
    """A coarse grid over a CT.

    Args:
        orientation: as :func:`nibabel.orientations.io_orientation` gives it for the CT, ``(3, 2)``.
        ct_shape: voxels of the CT, I, J, K.
        ct_affine: voxel index of the CT → RAS mm, ``(4, 4)``.
        shape: voxels of the coarse grid, X, Y, Z.
        spacing_mm: voxel size of the coarse grid along its axes.
    """

    orientation: FloatArray
    ct_shape: tuple[int, int, int]
    ct_affine: FloatArray
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @property
    def affine(self) -> FloatArray:
        """Voxel index of the coarse grid → RAS mm, ``(4, 4)``; edges of the field of view coincide."""
        to_ct = nib.orientations.inv_ornt_aff(self.orientation, self.ct_shape)  # turned index → CT index
        turned = self.ct_affine @ to_ct
        scale = np.array(self.turned_shape) / np.array(self.shape)
        step = np.diag([*scale, 1.0])
        step[:3, 3] = (scale - 1.0) / 2.0
        return turned @ step

    @property
    def turned_shape(self) -> tuple[int, int, int]:
        """Voxels of the CT along right, anterior, superior."""
        sizes = [0, 0, 0]
        for axis, (world, _) in enumerate(self.orientation):
            sizes[int(world)] = self.ct_shape[axis]
        return sizes[0], sizes[1], sizes[2]


def network_grid(shape: tuple[int, ...], affine: npt.ArrayLike, *, spacing_mm: float) -> NetworkGrid:
    """Lay a coarse grid over a CT.

    Args:
        shape: voxels of the CT, I, J, K.
        affine: voxel index → RAS mm, ``(4, 4)``.
        spacing_mm: wanted voxel size; the nearest that divides the field of view is taken.

    Returns:
        The grid.

    Raises:
        InputRefused: ``GEOMETRY_BAD_ORIENTATION`` or ``GEOMETRY_NOT_A_VOLUME`` for what is no body.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    orientation = nib.orientations.io_orientation(matrix)
    if np.isnan(orientation).any():
        raise InputRefused(
            "GEOMETRY_BAD_ORIENTATION", "Two axes of the image point the same way.", "Export it again."
        )
    voxel_mm = np.linalg.norm(matrix[:3, :3], axis=0)
    sizes, spacing = [0, 0, 0], [0.0, 0.0, 0.0]
    for axis, (world, _) in enumerate(orientation):
        extent_mm = shape[axis] * voxel_mm[axis]
        sizes[int(world)] = max(1, round(float(extent_mm) / spacing_mm))
        spacing[int(world)] = float(extent_mm) / sizes[int(world)]
    if np.prod(sizes) > _MAX_VOXELS:
        size = " × ".join(f"{n * mm / 10:.0f} cm" for n, mm in zip(sizes, spacing, strict=True))
        raise InputRefused(
            "GEOMETRY_NOT_A_VOLUME",
            f"The image measures {size}, which is no part of a body.",
            "Check the voxel size in its header.",
        )
    return NetworkGrid(
        orientation=orientation,
        ct_shape=(shape[0], shape[1], shape[2]),
        ct_affine=matrix,
        shape=(sizes[0], sizes[1], sizes[2]),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
    )


def to_network_grid(volume: npt.NDArray[np.generic], grid: NetworkGrid) -> Tensor:
    """Bring a CT to the coarse grid, slab by slab: no copy of its size is made.

    Args:
        volume: ``(I, J, K)``, any number type.
        grid: from :func:`network_grid`.

    Returns:
        ``(X, Y, Z)`` float32: means over each coarse voxel; where the CT is coarser, linear in between.
    """
    turned = nib.orientations.apply_orientation(volume, grid.orientation)  # a view, (R, A, S)
    size_x, size_y, size_z = grid.shape
    out = torch.empty(size_x, size_y, turned.shape[2])
    for k in range(turned.shape[2]):  # in plane first: one slice at a time becomes float
        plane = torch.from_numpy(np.ascontiguousarray(turned[:, :, k], dtype=np.float32))[None, None]
        out[:, :, k] = _resized(plane, (size_x, size_y))[0, 0]
    lines = out.reshape(1, size_x * size_y, -1)  # (1, X·Y, S)
    return _resized(lines, (size_z,)).reshape(size_x, size_y, size_z)


def from_network_grid(
    values: Tensor, grid: NetworkGrid, *, threshold: float
) -> tuple[npt.NDArray[np.bool_], tuple[int, int, int]]:
    """Bring what a network says back to the grid of the CT, only where it may exceed a threshold.

    Args:
        values: ``(X, Y, Z)`` on the coarse grid.
        grid: the grid.
        threshold: what counts.

    Returns:
        Whether the values, linear between coarse voxels, exceed the threshold, in the box of CT voxels that
        holds all that do, ``(H, W, D)``; and where the box starts. The box is empty when nothing does.
    """
    above = torch.nonzero(values > threshold)
    if not len(above):
        return np.zeros((0, 0, 0), dtype=bool), (0, 0, 0)
    low, high = above.min(dim=0).values - 1, above.max(dim=0).values + 2  # coarse, one voxel around
    positions, starts = [], []
    for axis, (turned, coarse) in enumerate(zip(grid.turned_shape, grid.shape, strict=True)):
        scale = turned / coarse
        start = max(0, int(np.floor(float(low[axis]) * scale)))
        stop = min(turned, int(np.ceil(float(high[axis]) * scale)))
        starts.append(start)
        # where the centres of the CT's voxels lie between those of the coarse grid
        place = (torch.arange(start, stop, dtype=torch.float64) + 0.5) / scale - 0.5
        positions.append(place.clamp(0.0, coarse - 1.0))
    box = values.double()
    for axis, place in enumerate(positions):  # linear along one axis after the other
        left = place.floor().long().clamp(max=box.shape[axis] - 1)
        right = (left + 1).clamp(max=box.shape[axis] - 1)
        weight = (place - left).reshape([-1 if a == axis else 1 for a in range(3)])
        box = box.index_select(axis, left) * (1.0 - weight) + box.index_select(axis, right) * weight
    inside = (box > threshold).numpy()  # (R, A, S) of the box
    return _turned_back(inside, starts, grid)


def _turned_back(
    inside: npt.NDArray[np.bool_], starts: list[int], grid: NetworkGrid
) -> tuple[npt.NDArray[np.bool_], tuple[int, int, int]]:
    """Give a box of the turned CT in the CT's own axes."""
    offset = []
    for axis, (world, direction) in enumerate(grid.orientation):
        start, size = starts[int(world)], inside.shape[int(world)]
        offset.append(start if direction > 0 else grid.ct_shape[axis] - start - size)
    back = inside.transpose([int(world) for world, _ in grid.orientation])
    flips = tuple(axis for axis, (_, direction) in enumerate(grid.orientation) if direction < 0)
    return np.ascontiguousarray(np.flip(back, flips)), (offset[0], offset[1], offset[2])


def _resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Average where an axis gets shorter, interpolate where it gets longer; ``(N, C, …)``."""
    shorter = tuple(min(old, new) for old, new in zip(x.shape[2:], size, strict=True))
    if shorter != tuple(x.shape[2:]):
        x = F.interpolate(x, size=shorter, mode="area")
    if shorter == size:
        return x
    return F.interpolate(x, size=size, mode="linear" if len(size) == 1 else "bilinear", align_corners=False)


class ToNetworkGridd(MapTransform):
    """Bring a loaded CT to the coarse grid and scale a window of HU to 0 … 1.

    Writes the network's input ``(1, X, Y, Z)`` float32 under the key; keeps the CT as it was under ``ct``
    (MetaTensor ``(1, I, J, K)``), its coarse HU under ``coarse_hu`` ``(X, Y, Z)`` and the grid under
    ``network_grid``.

    Args:
        keys: one key: a CT with an affine, ``(1, I, J, K)``.
        spacing_mm: voxel size of the coarse grid.
        window_hu: lower and upper end; values outside are clipped.

    Raises:
        ValueError: the window is empty.
    """

    def __init__(
        self, keys: KeysCollection = "image", *, spacing_mm: float, window_hu: tuple[float, float]
    ) -> None:
        super().__init__(keys)
        if not window_hu[0] < window_hu[1]:
            raise ValueError(f"window_hu must ascend, got {window_hu}.")
        self.spacing_mm = spacing_mm
        self.window_hu = (float(window_hu[0]), float(window_hu[1]))

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        """Replace the key in a copy of ``data``."""
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            if not hasattr(image, "affine"):
                raise ValueError(f"{key} must be a MetaTensor with an affine, got {type(image).__name__}.")
            volume = np.asarray(image)
            if volume.ndim != 4 or volume.shape[0] != 1:
                raise InputRefused(
                    "GEOMETRY_NOT_A_VOLUME",
                    f"{key} has the shape {'×'.join(map(str, volume.shape))}, which is not one volume.",
                    "Give one three-dimensional volume.",
                )
            grid = network_grid(volume.shape[1:], np.asarray(image.affine), spacing_mm=self.spacing_mm)
            coarse = to_network_grid(volume[0], grid)
            d["ct"], d["coarse_hu"], d["network_grid"] = image, coarse, grid
            d[key] = windowed(coarse, self.window_hu)[None]
        return d


def windowed(hu: Tensor, window_hu: tuple[float, float]) -> Tensor:
    """Scale a window of HU to 0 … 1 and clip what lies outside."""
    low, high = window_hu
    return ((hu - low) / (high - low)).clamp(0.0, 1.0)
