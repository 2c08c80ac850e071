"""Size and shape of the kidneys in a label map: PyRadiomics' shape features, and plain volumes and lengths.

Two objects are measured, and every feature says which:

* the *outline*: kidney, tumour and cyst of both sides together, as a mask without lesion labels would be. The
  ``original_shape_*`` features and the convexity ratios are taken here.
* the *parenchyma*: kidney without tumour and cyst. Volumes, lengths and thickness are taken here.

Volumes are counted on the grid of the mask. Everything else is measured on axes no finer than 1.5 mm: a finer
axis is sampled down first (nearest voxel), so that studies of different resolution compare.

Shape letters: X, Y, Z voxels from left to right, back to front, feet to head.

Reference:
    J. J. M. van Griethuysen et al., "Computational Radiomics System to Decode the Radiographic Phenotype",
    Cancer Research 2017, and the public definitions of PyRadiomics' shape features.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage
from scipy.spatial import ConvexHull

from shared_nets.refusals import InputRefused
from shared_nets.transforms.mask_measures import (
    bounding_box,
    largest_coronal_distance,
    largest_distance,
    local_thickness_mm,
    surface_mesh,
)
from shared_nets.types import Finding

KIDNEY, TUMOUR, CYST = 1, 2, 3
WORKING_SPACING_MM = 1.5
_FINER_THAN_MM = 1.2  # an axis finer than this is sampled down to WORKING_SPACING_MM
_MIN_SIDE_GAP_MM = (
    40.0  # pieces whose centres lie further apart than this, left to right, are different kidneys
)
_MIN_KIDNEY_ML = 3.0  # less than this on the second side is a stray piece, not a kidney

#: The last twelve of the 23-value CKD table, in its order.
OUTLINE_FEATURES: tuple[str, ...] = (
    "original_shape_SurfaceVolumeRatio",
    "original_shape_Sphericity",
    "original_shape_Maximum3DDiameter",
    "original_shape_Maximum2DDiameterColumn",
    "original_shape_MinorAxisLength",
    "original_shape_LeastAxisLength",
    "original_shape_Elongation",
    "original_shape_Flatness",
    "local_thickness_mean",
    "convexity_ratio_area",
    "convexity_ratio_vol",
    "original_shape_MeshVolume",
)
PLAIN_FEATURES: tuple[str, ...] = (
    "kidney_volume_ml",
    "tumour_volume_ml",
    "cyst_volume_ml",
    "right_kidney_volume_ml",
    "left_kidney_volume_ml",
    "smaller_kidney_volume_ml",
    "larger_kidney_volume_ml",
    "kidney_volume_asymmetry",
    "right_kidney_length_mm",
    "left_kidney_length_mm",
    "shorter_kidney_length_mm",
    "longer_kidney_length_mm",
    "local_thickness_p95_mm",
    "outline_surface_area_cm2",
    "kidney_count",
)
FEATURES: tuple[str, ...] = OUTLINE_FEATURES + PLAIN_FEATURES

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class KidneyShape:
    """What was measured, and what a reader of it must know.

    Args:
        values: number by name, every name of :data:`FEATURES`; NaN where there is nothing to measure.
        findings: warnings.
    """

    values: dict[str, float]
    findings: tuple[Finding, ...]


def kidney_shape(labels: npt.ArrayLike, affine: npt.ArrayLike, *, is_cut_off: bool = False) -> KidneyShape:
    """Measure the kidneys of one person.

    Args:
        labels: label map, ``(X, Y, Z)``; 0 background, 1 kidney, 2 tumour, 3 cyst.
        affine: voxel index → mm in right-anterior-superior coordinates, ``(4, 4)``; any axis order.
        is_cut_off: whether the field of view is known to end inside a kidney. Labels in the lowest or
            highest slice tell as much.

    Returns:
        The value of every feature: ``original_shape_*`` and ``local_thickness_mean`` in mm, mm³ and 1/mm,
        others as their name says. The volume of a kidney that is not there is 0, its length NaN.

    Raises:
        InputRefused: ``MASK_EMPTY`` without label 1, ``MASK_LABELS_UNKNOWN`` for labels above 3,
            ``GEOMETRY_NOT_A_VOLUME``, ``GEOMETRY_BAD_SPACING`` or ``GEOMETRY_BAD_ORIENTATION`` for arrays or
            affines that are no volume.
    """
    voxels, spacing_mm = _to_ras(np.asarray(labels), np.asarray(affine, dtype=np.float64))
    counts = np.bincount(voxels.ravel(), minlength=4)
    if counts.size > 4:
        raise InputRefused(
            "MASK_LABELS_UNKNOWN",
            f"The mask holds labels up to {counts.size - 1}; kidney 1, tumour 2 and cyst 3 are known.",
            "Choose the label set that the mask was drawn with.",
        )
    if counts[KIDNEY] == 0:
        raise _no_kidney("The mask shows no kidney.")
    ml_per_voxel = float(np.prod(spacing_mm)) / 1000.0
    box = bounding_box(voxels > 0)
    centre_mm = (voxels.shape[0] / 2.0 - box[0].start) * spacing_mm[0]  # of the field of view, from the box
    findings = _findings(box, voxels.shape, spacing_mm, is_cut_off)
    small, small_spacing_mm = _sample_down(voxels[box], spacing_mm)
    if not (small == KIDNEY).any():
        raise _no_kidney(f"The mask shows less kidney than a voxel of {WORKING_SPACING_MM} mm.")
    sides = _sides(small, small_spacing_mm, centre_mm)  # right and left

    values = dict.fromkeys(FEATURES, float("nan"))
    values |= _outline_features(small > 0, [side > 0 for side in sides if side.any()], small_spacing_mm)
    share = np.array([np.count_nonzero(side == KIDNEY) for side in sides], dtype=np.float64)  # (2,)
    volumes_ml = counts * ml_per_voxel  # (4,)
    values |= _parenchyma_features(sides, small_spacing_mm, list(share / share.sum() * volumes_ml[KIDNEY]))
    values["kidney_volume_ml"] = volumes_ml[KIDNEY]
    values["tumour_volume_ml"] = volumes_ml[TUMOUR]
    values["cyst_volume_ml"] = volumes_ml[CYST]
    if values["kidney_count"] == 1:
        findings.append(
            Finding(
                code="KIDNEY_SHAPE_ONE_KIDNEY",
                message="The mask shows one kidney; its side is taken from its place in the field of view.",
            )
        )
    return KidneyShape(values={name: float(values[name]) for name in FEATURES}, findings=tuple(findings))


class KidneyShaped(MapTransform):
    """Measure ``data[key]`` and write the values to ``data["kidney_shape"]`` for :class:`ClinicalValuesd`.

    Writes ``kidney_shape`` (number by name) and ``kidney_shape_findings`` (list of :class:`Finding`).

    Args:
        keys: one key: label map with an affine (MetaTensor), ``(1, X, Y, Z)`` or ``(X, Y, Z)``.
        cut_off_key: key of a flag that says whether the field of view ends inside a kidney; may be absent.
        allow_missing_keys: pass samples without the label map through.

    Raises:
        InputRefused: as :func:`kidney_shape`.
    """

    def __init__(
        self,
        keys: KeysCollection = "kidney_labels",
        cut_off_key: str = "kidney_is_cut_off",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys must name one label map, got {self.keys}.")
        self.cut_off_key = cut_off_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add ``kidney_shape`` and ``kidney_shape_findings`` to a copy of ``data``."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            labels = sample[key]
            if not hasattr(labels, "affine"):
                raise ValueError(f"{key} must be a MetaTensor with an affine, got {type(labels).__name__}.")
            voxels = np.asarray(labels)
            if voxels.ndim == 4 and voxels.shape[0] == 1:
                voxels = voxels[0]  # (X, Y, Z)
            is_cut_off = bool(sample.get(self.cut_off_key, False))
            shape = kidney_shape(voxels, np.asarray(labels.affine), is_cut_off=is_cut_off)
            sample["kidney_shape"] = shape.values
            sample["kidney_shape_findings"] = list(shape.findings)
        return sample


def _no_kidney(message: str) -> InputRefused:
    return InputRefused("MASK_EMPTY", message, "Check the segmentation and its labels.")


def _to_ras(labels: npt.NDArray[Any], affine: FloatArray) -> tuple[npt.NDArray[np.uint8], FloatArray]:
    """Turn the axes to right, anterior, superior; give the voxel size along them."""
    if labels.ndim != 3:
        raise InputRefused(
            "GEOMETRY_NOT_A_VOLUME",
            f"The mask has {labels.ndim} axes, and 3 are needed.",
            "Give one label map of one volume.",
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if affine.shape != (4, 4) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise InputRefused(
            "GEOMETRY_BAD_SPACING",
            f"The voxel size of the mask is {spacing.tolist()} mm.",
            "Write the mask with its true voxel size.",
        )
    if labels.min() < 0 or labels.max() > 255 or not np.array_equal(labels, labels.astype(np.uint8)):
        raise InputRefused(
            "MASK_LABELS_UNKNOWN",
            "The mask holds values that are not whole numbers from 0 to 255.",
            "Give a label map, not a probability map.",
        )
    orientation = nib.orientations.io_orientation(affine)
    if np.isnan(orientation).any():
        raise InputRefused(
            "GEOMETRY_BAD_ORIENTATION",
            "Two axes of the mask point the same way.",
            "Write the mask with its true orientation.",
        )
    axes = np.argsort(orientation[:, 0])
    turned = nib.orientations.apply_orientation(labels.astype(np.uint8), orientation)
    return turned, spacing[axes]


def _findings(
    box: tuple[slice, ...], shape: tuple[int, ...], spacing_mm: FloatArray, is_cut_off: bool
) -> list[Finding]:
    findings = []
    touches = any(s.start == 0 or s.stop == n for s, n in zip(box[2:], shape[2:], strict=True))
    if is_cut_off or touches:
        findings.append(
            Finding(
                code="KIDNEY_SHAPE_FROM_CUT_MASK",
                message="The field of view ends inside a kidney; volumes, lengths and shapes are too small.",
            )
        )
    if (spacing_mm < _FINER_THAN_MM).any():
        size = " × ".join(f"{s:.2f}" for s in spacing_mm)
        findings.append(
            Finding(
                code="KIDNEY_SHAPE_SAMPLED_DOWN",
                message=f"Shapes are measured at {WORKING_SPACING_MM} mm; the mask has {size} mm voxels.",
            )
        )
    return findings


def _sample_down(
    labels: npt.NDArray[np.uint8], spacing_mm: FloatArray
) -> tuple[npt.NDArray[np.uint8], FloatArray]:
    index, spacing = [], spacing_mm.copy()
    for axis, size in enumerate(labels.shape):
        new_size = size
        if spacing_mm[axis] < _FINER_THAN_MM:
            new_size = max(1, round(size * spacing_mm[axis] / WORKING_SPACING_MM))
            spacing[axis] = size * spacing_mm[axis] / new_size
        index.append(((np.arange(new_size) + 0.5) * size / new_size).astype(int))
    return labels[np.ix_(*index)], spacing


def _sides(
    labels: npt.NDArray[np.uint8], spacing_mm: FloatArray, centre_mm: float
) -> list[npt.NDArray[np.uint8]]:
    """Split into the right and the left kidney, each with its lesions; an absent kidney is empty."""
    pieces, number = ndimage.label(labels > 0, structure=np.ones((3, 3, 3)))
    numbers = np.arange(1, number + 1)
    sizes = np.bincount(pieces.ravel(), minlength=number + 1)[1:]
    x_mm = np.array([c[0] for c in ndimage.center_of_mass(labels > 0, pieces, numbers)]) * spacing_mm[0]
    largest = int(sizes.argmax())
    other = np.abs(x_mm - x_mm[largest]) > _MIN_SIDE_GAP_MM
    if sizes[other].sum() * np.prod(spacing_mm) / 1000.0 < _MIN_KIDNEY_ML:
        other[:] = False
    is_other = np.concatenate([[False], other])[pieces]
    one, two = np.where(is_other, 0, labels), np.where(is_other, labels, 0)
    dividing_mm = np.average(x_mm[other], weights=sizes[other]) if other.any() else centre_mm
    return [one, two] if x_mm[largest] >= dividing_mm else [two, one]


def _outline_features(outline: BoolArray, sides: list[BoolArray], spacing_mm: FloatArray) -> dict[str, float]:
    meshes = [surface_mesh(side, spacing_mm) for side in sides]
    hulls = [ConvexHull(mesh.vertices_mm) for mesh in meshes]
    volume, area = sum(m.volume_mm3 for m in meshes), sum(m.area_mm2 for m in meshes)
    corners = np.concatenate([m.vertices_mm[h.vertices] for m, h in zip(meshes, hulls, strict=True)])
    points_mm = np.argwhere(outline) * spacing_mm  # (N, 3)
    variances = np.linalg.eigvalsh(np.cov(points_mm, rowvar=False, bias=True).reshape(3, 3)).clip(min=0.0)
    least, minor, major = np.sqrt(variances)
    return {
        "original_shape_SurfaceVolumeRatio": area / volume,
        "original_shape_Sphericity": (36.0 * np.pi * volume**2) ** (1.0 / 3.0) / area,
        "original_shape_Maximum3DDiameter": largest_distance(corners),
        "original_shape_Maximum2DDiameterColumn": largest_coronal_distance(
            np.concatenate([m.vertices_mm for m in meshes])
        ),
        "original_shape_MinorAxisLength": 4.0 * minor,
        "original_shape_LeastAxisLength": 4.0 * least,
        "original_shape_Elongation": minor / major if major > 0 else float("nan"),
        "original_shape_Flatness": least / major if major > 0 else float("nan"),
        "convexity_ratio_area": sum(h.area for h in hulls) / area,
        "convexity_ratio_vol": volume / sum(h.volume for h in hulls),
        "original_shape_MeshVolume": volume,
        "outline_surface_area_cm2": area / 100.0,
    }


def _parenchyma_features(
    sides: list[npt.NDArray[np.uint8]], spacing_mm: FloatArray, volumes_ml: list[float]
) -> dict[str, float]:
    lengths, thickness = [], []
    for side in sides:
        parenchyma = side == KIDNEY
        if not parenchyma.any():
            lengths.append(float("nan"))
            continue
        cut = parenchyma[bounding_box(parenchyma)]
        lengths.append(largest_distance(surface_mesh(cut, spacing_mm).vertices_mm))
        thickness.append(local_thickness_mm(cut, spacing_mm))
    every = np.concatenate(thickness)
    total, present = sum(volumes_ml), [n for n in lengths if not np.isnan(n)]
    return {
        "right_kidney_volume_ml": volumes_ml[0],
        "left_kidney_volume_ml": volumes_ml[1],
        "smaller_kidney_volume_ml": min(volumes_ml),
        "larger_kidney_volume_ml": max(volumes_ml),
        "kidney_volume_asymmetry": abs(volumes_ml[0] - volumes_ml[1]) / total,
        "right_kidney_length_mm": lengths[0],
        "left_kidney_length_mm": lengths[1],
        "shorter_kidney_length_mm": min(present) if len(present) == 2 else float("nan"),
        "longer_kidney_length_mm": max(present),
        "local_thickness_mean": float(every.mean()),
        "local_thickness_p95_mm": float(np.percentile(every, 95)),
        "kidney_count": float(len(present)),
    }
