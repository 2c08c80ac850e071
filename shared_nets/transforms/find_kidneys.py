"""From what a network says of every coarse voxel to two plausible kidneys on the grid of the CT.

Sides are told by anatomy: right and left of the spine, in the coordinates of the patient.

Shape letters: X, Y, Z voxels of the coarse grid (right, anterior, superior); H, W, D voxels of a CT box.

Reference:
    B. Cheong et al., "Normal Values for Renal Length and Volume as Measured by Magnetic Resonance Imaging",
    Clin J Am Soc Nephrol 2007 (volume 202 ± 36 mL in men, 154 ± 33 mL in women).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from shared_nets.transforms.kidney_mask import KIDNEY, KidneyLabels
from shared_nets.transforms.kidney_slices import field_of_view_findings
from shared_nets.transforms.mask_measures import bounding_box, largest_distance, surface_mesh
from shared_nets.transforms.network_grid import NetworkGrid, from_network_grid
from shared_nets.transforms.sided_mask import sided_mask
from shared_nets.types import KIDNEY_SIDES, Finding, KidneyMask, KidneyMeasurement

#: Two standard deviations below the mean of women, and above the mean of men (see Reference).
USUAL_VOLUME_ML = (154.0 - 2 * 33.0, 202.0 + 2 * 36.0)
_MIN_KIDNEY_ML = 8.0  # less is no kidney, not even an atrophic one
_MIN_PART_ML, _NEAR_MM = 0.5, 12.0  # a smaller or more distant piece does not belong to a kidney
_RIVAL_SHARE = 0.4  # of the chosen one; so large a piece elsewhere is worth a warning
_BONE_HU, _SPINE_REACH_MM = 180.0, 70.0
_MIN_BONE_VOXELS = 50
_STEP_MM = 2.0  # resolution at which lengths are measured

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FoundKidneys:
    """The kidneys of a CT.

    Args:
        labels: kidney 1, in the box that holds both.
        mask: the same, right 1 and left 2; it does not say yet which bundle drew it.
        findings: what a reader of the result must know.
        midline_x_mm: RAS x of the spine, or of the body where no spine is seen.
        facts: what a result's provenance says of the mask.
    """

    labels: KidneyLabels
    mask: KidneyMask
    findings: tuple[Finding, ...]
    midline_x_mm: float
    facts: Mapping[str, Any] = field(default_factory=dict)


def kidney_volume_ml(probability: Tensor, grid: NetworkGrid, *, threshold: float = 0.5) -> float:
    """Say how much kidney a network found at all, mL."""
    return float((probability > threshold).sum()) * float(np.prod(grid.spacing_mm)) / 1000.0


def find_kidneys(
    probability: Tensor, coarse_hu: Tensor, grid: NetworkGrid, *, threshold: float = 0.5
) -> FoundKidneys | None:
    """Keep at most one kidney a side, and bring them to the grid of the CT.

    Args:
        probability: of kidney, ``(X, Y, Z)``.
        coarse_hu: density, ``(X, Y, Z)`` HU.
        grid: the coarse grid.
        threshold: probability from which on a voxel is kidney.

    Returns:
        The kidneys; ``None`` when there is nothing of the size of a kidney.
    """
    inside = (probability > threshold).numpy()  # (X, Y, Z)
    pieces, number = ndimage.label(inside, structure=np.ones((3, 3, 3)))
    if number == 0:
        return None
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000.0
    volumes_ml: FloatArray = np.bincount(pieces.ravel(), minlength=number + 1)[1:] * np.float64(voxel_ml)
    centres = np.array(ndimage.center_of_mass(inside, pieces, range(1, number + 1)))  # (N, 3)
    middle = _midline(coarse_hu.numpy(), centres[volumes_ml.argmax()], grid)
    kept, findings = np.zeros(number + 1, dtype=bool), []
    for name, on_side in (("right", centres[:, 0] >= middle), ("left", centres[:, 0] < middle)):
        candidates = np.flatnonzero(on_side & (volumes_ml >= _MIN_KIDNEY_ML))
        if not candidates.size:
            continue
        largest = candidates[volumes_ml[candidates].argmax()]
        parts = _parts_near(pieces, largest + 1, on_side, volumes_ml, grid)
        kept[parts] = True
        rivals = [c for c in candidates if c + 1 not in parts]
        if rivals and volumes_ml[rivals].max() >= _RIVAL_SHARE * volumes_ml[largest]:
            message = (
                f"On the {name} side {len(rivals) + 1} separate organs look like kidney; "
                f"the largest, of {volumes_ml[largest]:.0f} mL, was taken."
            )
            findings.append(Finding(code="KIDNEY_CANDIDATES_SEVERAL", message=message))
    if not kept.any():
        return None
    chosen = torch.from_numpy(ndimage.binary_dilation(kept[pieces], structure=np.ones((3, 3, 3))))
    box, offset = from_network_grid(torch.where(chosen, probability, 0.0), grid, threshold=threshold)
    if not box.any():
        return None
    labels = KidneyLabels(
        labels=box.astype(np.uint8) * KIDNEY,
        offset=offset,
        grid_shape=grid.ct_shape,
        grid_affine=grid.ct_affine,
    )
    midline_x_mm = float(grid.affine[0] @ [middle, *((np.array(grid.shape[1:]) - 1) / 2.0), 1.0])
    mask = sided_mask(labels, made_by="automatic", algorithm_name="", midline_x_mm=midline_x_mm)
    findings += field_of_view_findings(labels, midline_x_mm=midline_x_mm)
    return FoundKidneys(labels=labels, mask=mask, findings=tuple(findings), midline_x_mm=midline_x_mm)


def measure_kidneys(
    mask: KidneyMask, volume: npt.NDArray[np.generic] | None, findings: tuple[Finding, ...]
) -> tuple[dict[str, KidneyMeasurement], tuple[Finding, ...]]:
    """Measure each kidney, and say what is unusual.

    Args:
        mask: the kidneys.
        volume: the CT, ``(I, J, K)`` HU; ``None`` leaves densities out.
        findings: what is known so far; cut-off kidneys are among them.

    Returns:
        Measurements by ``"right"`` and ``"left"``, and further findings.
    """
    spacing_mm = np.linalg.norm(mask.affine[:3, :3], axis=0)
    box = tuple(slice(o, o + n) for o, n in zip(mask.offset, mask.labels.shape, strict=True))
    kidneys, further = {}, []
    for number, name in ((1, "right"), (2, "left")):
        inside = mask.labels == number
        if not inside.any():
            message = (
                f"No {name} kidney was found: it was removed, never formed, lies elsewhere, or was missed."
            )
            further.append(Finding(code="KIDNEY_ABSENT", message=message))
            continue
        is_cut = any(f.code == "KIDNEY_CUT_OFF" and f.message.startswith(f"The {name}") for f in findings)
        volume_ml = float(np.count_nonzero(inside) * np.prod(spacing_mm) / 1000.0)
        kidneys[name] = KidneyMeasurement(
            volume_ml=round(volume_ml, 1),
            length_mm=round(_length_mm(inside, spacing_mm), 1),
            mean_hu=None if volume is None else round(float(np.asarray(volume[box][inside]).mean()), 1),
            is_cut_off=is_cut,
        )
        low, high = USUAL_VOLUME_ML
        if not is_cut and not low <= volume_ml <= high:
            message = (
                f"The {KIDNEY_SIDES[number]} measures {volume_ml:.0f} mL; usual in adults are {low:.0f} to "
                f"{high:.0f} mL: it is atrophic, enlarged or tumorous, or the mask is wrong."
            )
            further.append(Finding(code="KIDNEY_VOLUME_UNUSUAL", message=message))
    if (mask.labels == 3).any():
        message = "One organ looks like kidney, and nothing tells which side it is of."
        further.append(Finding(code="KIDNEY_SIDE_UNKNOWN", message=message))
    return kidneys, tuple(further)


def _midline(hu: npt.NDArray[np.float32], kidney: FloatArray, grid: NetworkGrid) -> float:
    """Find the spine near the level of the largest kidney; coarse index along X."""
    reach = max(1, round(40.0 / grid.spacing_mm[2]))
    level = int(kidney[2])
    slab = hu[:, :, max(0, level - reach) : level + reach + 1]
    body = slab > -300.0
    columns = body.sum(axis=(1, 2)).astype(np.float64)
    if not columns.any():
        return (hu.shape[0] - 1) / 2.0
    x = np.arange(len(columns))
    middle = float(np.average(x, weights=columns))
    bone = (slab > _BONE_HU).sum(axis=(1, 2)).astype(np.float64)
    for _ in range(3):  # ribs and contrast medium lie further away
        near = np.where(np.abs(x - middle) * grid.spacing_mm[0] <= _SPINE_REACH_MM, bone, 0.0)
        if near.sum() < _MIN_BONE_VOXELS:
            return middle
        middle = float(np.average(x, weights=near))
    return middle


def _parts_near(
    pieces: npt.NDArray[np.int32],
    main: int,
    on_side: BoolArray,
    volumes_ml: FloatArray,
    grid: NetworkGrid,
) -> npt.NDArray[np.int64]:
    """The largest piece of a side and what lies close to it."""
    within = pieces[bounding_box(pieces > 0)]
    away_mm = ndimage.distance_transform_edt(within != main, sampling=grid.spacing_mm)
    nearest_mm = ndimage.minimum(away_mm, within, range(1, len(volumes_ml) + 1))
    belongs = on_side & (np.asarray(nearest_mm) <= _NEAR_MM) & (volumes_ml >= _MIN_PART_ML)
    return np.flatnonzero(belongs) + 1


def _length_mm(inside: BoolArray, spacing_mm: FloatArray) -> float:
    """Longest straight line within the surface, at a resolution of about 2 mm."""
    cut = inside[bounding_box(inside)]
    steps = [max(1, round(_STEP_MM / mm)) for mm in spacing_mm]
    thinned = cut[:: steps[0], :: steps[1], :: steps[2]]
    if not thinned.any():
        thinned, steps = cut, [1, 1, 1]
    return float(largest_distance(surface_mesh(thinned, spacing_mm * steps).vertices_mm))
