"""Measures of a binary mask: bounding box, surface mesh, largest distances, local thickness.

Shape letters: X, Y, Z voxels; V vertices; F triangles; P points; N voxels of the object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist
from skimage.measure import marching_cubes

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mesh:
    """A closed surface of triangles.

    Args:
        vertices_mm: corners, ``(V, 3)``, mm.
        triangles: three corners each, ``(F, 3)``.
    """

    vertices_mm: FloatArray  # (V, 3)
    triangles: npt.NDArray[np.integer[Any]]  # (F, 3)

    @property
    def volume_mm3(self) -> float:
        """Volume inside, mm³: the signed tetrahedra that every triangle makes with the origin."""
        a, b, c = (self.vertices_mm[self.triangles[:, i]] for i in range(3))  # (F, 3) each
        return abs(float(np.einsum("fi,fi->", a, np.cross(b, c)))) / 6.0

    @property
    def area_mm2(self) -> float:
        """Area of all triangles, mm²."""
        a, b, c = (self.vertices_mm[self.triangles[:, i]] for i in range(3))  # (F, 3) each
        return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2.0


def bounding_box(mask: BoolArray) -> tuple[slice, ...]:
    """Find the smallest box around an object.

    Args:
        mask: the object, not empty, any number of axes.

    Returns:
        One slice an axis.
    """
    box: tuple[slice, ...] = ()
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        used = np.flatnonzero(mask[box].any(axis=others))  # axes before this one are cropped already
        box += (slice(int(used[0]), int(used[-1]) + 1),)
    return box


def surface_mesh(mask: BoolArray, spacing_mm: FloatArray) -> Mesh:
    """Wrap an object in triangles, halfway between its voxels and their neighbours; always closed.

    Args:
        mask: the object, ``(X, Y, Z)``, not empty.
        spacing_mm: voxel size, ``(3,)``, mm.

    Returns:
        The mesh; the centre of the first voxel lies at 0.
    """
    box = bounding_box(mask)
    vertices, triangles, _, _ = marching_cubes(
        np.pad(mask[box], 1).astype(np.float32), 0.5, method="lorensen"
    )
    start = np.array([s.start - 1 for s in box])
    return Mesh((vertices.astype(np.float64) + start) * spacing_mm, triangles)


def largest_coronal_distance(vertices_mm: FloatArray) -> float:
    """Measure the largest distance between two surface points at the same depth from front to back.

    Args:
        vertices_mm: surface points, ``(V, 3)``, mm; the second axis runs from back to front.

    Returns:
        The distance in mm.
    """
    order = np.argsort(vertices_mm[:, 1], kind="stable")
    depth = vertices_mm[order, 1]
    planes = np.split(vertices_mm[order][:, [0, 2]], np.flatnonzero(np.diff(depth) > 1e-3) + 1)
    largest = 0.0
    for plane in planes:
        if np.linalg.norm(np.ptp(plane, axis=0)) > largest:  # else no pair of this plane can be longer
            largest = max(largest, largest_distance(plane))
    return largest


def largest_distance(points: FloatArray) -> float:
    """Measure the largest distance between two points.

    Args:
        points: coordinates, ``(P, 2)`` or ``(P, 3)``.

    Returns:
        The distance; 0 for one point.
    """
    if len(points) > 200:
        try:
            points = points[ConvexHull(points).vertices]
        except QhullError:  # all points on one line or plane: no hull, and few of them
            points = np.unique(points, axis=0)
    return float(pdist(points).max()) if len(points) > 1 else 0.0


def local_thickness_mm(mask: BoolArray, spacing_mm: npt.ArrayLike) -> FloatArray:
    """Give every voxel the diameter of the largest ball that lies in the object and covers the voxel.

    Args:
        mask: the object, ``(X, Y, Z)``.
        spacing_mm: voxel size, ``(3,)``, mm.

    Returns:
        Thickness of every voxel of the object, mm, ``(N,)``, in steps of two voxels; exact in a plate
        of an odd number of voxels, up to four voxels too small in round objects.
        A slice axis coarser than the others is split into thinner slices first, which may raise ``N``.
    """
    spacing = np.array(spacing_mm, dtype=np.float64)
    for axis, factor in enumerate(np.maximum(1, np.rint(spacing / spacing.min()).astype(int))):
        mask = np.repeat(mask, factor, axis=axis)
        spacing[axis] /= factor
    mask = np.pad(mask, 1)
    step = float(spacing.mean())
    # distances end at the centre of the first voxel outside, the surface lies half a voxel before it
    radius = ndimage.distance_transform_edt(mask, sampling=spacing) - step / 2.0
    thickness = np.zeros(mask.shape)
    level = step / 2.0
    while (centres := radius >= level - 1e-6).any():
        touched = (
            level + step / 2.0
        )  # a ball covers a voxel that it touches, else it would miss rough surfaces
        reach = np.ceil(touched / spacing).astype(int)
        box = tuple(
            slice(max(0, s.start - r), s.stop + r) for s, r in zip(bounding_box(centres), reach, strict=True)
        )
        covered = ndimage.distance_transform_edt(~centres[box], sampling=spacing) <= touched
        thickness[box][covered & mask[box]] = 2.0 * level
        level += step
    return thickness[mask]
