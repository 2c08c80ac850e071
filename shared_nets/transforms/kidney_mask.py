"""What the numbers of a kidney mask mean: named label sets, one canonical map, and which kidney is which.

Canonical labels: 0 background, 1 kidney parenchyma, 2 tumour, 3 cyst. World coordinates are millimetres in
RAS, so the patient's right has the larger x.

Shape letters: I, J, K voxels of the whole mask; H, W, D voxels of the box that holds the kidneys; N voxels of
kidney.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

KIDNEY, TUMOUR, CYST = 1, 2, 3

_MAX_LABEL = 65535
_MIN_PIECE_ML = 1.0  # a smaller piece follows its neighbours; it is no kidney of its own
_MIN_PIECE_SHARE = 0.05  # likewise, of the largest piece
_MIN_GAP_BETWEEN_KIDNEYS_MM = 40.0  # centres of pieces this far apart, left to right, are two kidneys
_MIN_FUSED_WIDTH_MM = 130.0  # one piece this wide, left to right, is two kidneys that touch

BoolArray = npt.NDArray[np.bool_]
LabelArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """The meaning of a mask's numbers.

    Args:
        canonical: canonical label by number (by SNOMED code for DICOM SEG).
        every_label_is_kidney: whether any number but 0 is kidney.
        has_one_label: whether a second number must mean something else, and is refused.
        other_labels_are_known: whether other numbers are other organs, to be ignored.
        right: number of the right kidney, where the set tells sides apart.
        left: number of the left kidney, likewise.
    """

    canonical: Mapping[int | str, int] = field(default_factory=dict)
    every_label_is_kidney: bool = False
    has_one_label: bool = False
    other_labels_are_known: bool = False
    right: int | str | None = None
    left: int | str | None = None


#: SNOMED CT codes (and the older SNOMED-RT ones) of DICOM segments.
KIDNEY_CODES = ("64033007", "9846003", "18639004", "T-71000", "T-71010", "T-71020")
TUMOUR_CODES = ("108369006", "86049000", "372087000", "14799000", "4147007", "M-8FFFF", "M-80003", "M-03000")
CYST_CODES = ("367643001", "M-3340A")
#: Tissue, organ, body structure, anatomical structure: what such a segment is, its region says.
GENERIC_CODES = ("85756007", "113343008", "123037004", "91723000")

LABEL_SETS: Mapping[str, LabelSet] = {
    "kidney": LabelSet(every_label_is_kidney=True, has_one_label=True),
    "any": LabelSet(every_label_is_kidney=True),
    "kits": LabelSet(canonical={1: KIDNEY, 2: TUMOUR, 3: CYST}),
    "totalsegmentator": LabelSet(
        canonical={2: KIDNEY, 3: KIDNEY}, other_labels_are_known=True, right=2, left=3
    ),
    "right_left": LabelSet(canonical={1: KIDNEY, 2: KIDNEY}, right=1, left=2),
    "dicom_seg": LabelSet(
        canonical={
            **dict.fromkeys(KIDNEY_CODES, KIDNEY),
            **dict.fromkeys(TUMOUR_CODES, TUMOUR),
            **dict.fromkeys(CYST_CODES, CYST),
        },
        other_labels_are_known=True,
        right="9846003",
        left="18639004",
    ),
}


@dataclass(frozen=True, kw_only=True)
class KidneyLabels:
    """The kidneys of one mask, cut to the box that holds them.

    Args:
        labels: canonical labels, ``(H, W, D)`` uint8.
        offset: where the box starts in the whole grid, in voxels.
        grid_shape: voxels of the whole grid, I, J, K.
        grid_affine: voxel index of the whole grid → RAS mm, ``(4, 4)``.
        findings: what is odd about the mask.
    """

    labels: LabelArray
    offset: tuple[int, int, int]
    grid_shape: tuple[int, int, int]
    grid_affine: FloatArray
    findings: tuple[Finding, ...] = ()

    @property
    def affine(self) -> FloatArray:
        """Voxel index of the box → RAS mm, ``(4, 4)``."""
        affine = self.grid_affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.array(self.offset)
        return affine

    @property
    def spacing_mm(self) -> FloatArray:
        """Voxel size along the three axes, mm, ``(3,)``."""
        return np.linalg.norm(self.grid_affine[:3, :3], axis=0)


@dataclass(frozen=True, kw_only=True)
class KidneySides:
    """Which voxels belong to which kidney.

    Args:
        masks: by ``"right"`` and ``"left"``, each ``(H, W, D)``; a kidney that is not there is left out. One
            kidney whose side cannot be told stands under ``"kidney"``.
        arrangement: ``"two"``; ``"fused"`` for a horseshoe or for kidneys that touch, divided in the middle;
            ``"single"``.
        midline_x_mm: where the two sides were divided, RAS x; ``None`` when nothing says where.
    """

    masks: dict[str, BoolArray]
    arrangement: str
    midline_x_mm: float | None


def canonical_labels(
    mask: npt.NDArray[Any],
    affine: npt.ArrayLike,
    *,
    label_set: str,
    segment_codes: Mapping[int, str] | None = None,
    segment_regions: Mapping[int, str] | None = None,
) -> KidneyLabels:
    """Keep the kidneys of a mask, whatever its numbers, and cut them out.

    The mask is read slab by slab: nothing of its size is allocated.

    Args:
        mask: labels, ``(I, J, K)``, whole numbers (of any type).
        affine: voxel index → RAS mm, ``(4, 4)``.
        label_set: name in :data:`LABEL_SETS`.
        segment_codes: SNOMED code by number, for ``dicom_seg``.
        segment_regions: SNOMED code of the organ that a lesion lies in, by number, for ``dicom_seg``; a
            lesion of another organ is not of the kidney.

    Returns:
        The canonical labels in the box that holds them.

    Raises:
        ValueError: ``label_set`` is not known, or ``dicom_seg`` comes without codes.
        InputRefused: ``MASK_EMPTY``, ``MASK_LABELS_UNKNOWN``, ``GEOMETRY_NOT_A_VOLUME``.
    """
    if label_set not in LABEL_SETS:
        raise ValueError(f"label_set must be one of {sorted(LABEL_SETS)}, got {label_set!r}.")
    if mask.ndim != 3:
        raise InputRefused(
            "GEOMETRY_NOT_A_VOLUME",
            f"The mask has {mask.ndim} axes, and 3 are needed.",
            "Give one label map of one volume.",
        )
    grid_affine = np.asarray(affine, dtype=np.float64)
    meaning = _by_number(label_set, segment_codes, segment_regions)
    table, is_known = _lookup_tables(LABEL_SETS[label_set], meaning)
    box, counts = _scan(mask, table)
    found = np.flatnonzero(counts)
    unknown = found[~is_known[found]]
    if unknown.size:
        raise InputRefused(
            "MASK_LABELS_UNKNOWN",
            f'The mask holds the labels {_listed(unknown)}, which the label set "{label_set}" does not name.',
            f"Choose the label set that the mask was made with: {', '.join(LABEL_SETS)}.",
        )
    if LABEL_SETS[label_set].has_one_label and found.size > 1:
        raise InputRefused(
            "MASK_LABELS_UNKNOWN",
            f'The mask holds the labels {_listed(found)}, and the label set "{label_set}" has only one.',
            f"Choose the label set that the mask was made with: {', '.join(LABEL_SETS)}.",
        )
    if box is None:
        raise InputRefused(
            "MASK_EMPTY",
            f'The mask shows no kidney under the label set "{label_set}"; it holds {_listed(found)}.',
            f"Check the segmentation, and choose the label set it was made with: {', '.join(LABEL_SETS)}.",
        )
    raw = mask[box]
    return KidneyLabels(
        labels=table[raw if raw.dtype == np.uint8 else raw.astype(np.uint16)],  # (H, W, D)
        offset=(box[0].start, box[1].start, box[2].start),
        grid_shape=(mask.shape[0], mask.shape[1], mask.shape[2]),
        grid_affine=grid_affine,
        findings=_side_findings(raw, grid_affine, _side_numbers(label_set, segment_codes)),
    )


def kidney_sides(
    labels: npt.NDArray[Any], affine: npt.ArrayLike, *, midline_x_mm: float | None = None
) -> KidneySides:
    """Tell the right kidney from the left by where its connected pieces lie.

    Pieces whose centres stand at least 40 mm apart, left to right, are two kidneys. Otherwise there is one:
    fused when it is at least 130 mm wide, else single, on the side of ``midline_x_mm`` that it lies on. A
    small stray piece goes with the side it lies on.

    Args:
        labels: label map, ``(H, W, D)``; any non-zero value is kidney.
        affine: voxel index → RAS mm, ``(4, 4)``.
        midline_x_mm: RAS x of the middle of the body, for a single kidney.

    Returns:
        The sides.

    Raises:
        InputRefused: ``MASK_EMPTY``.
    """
    kidney = labels != 0
    pieces, number = ndimage.label(kidney, structure=np.ones((3, 3, 3)))  # (H, W, D)
    if number == 0:
        raise InputRefused("MASK_EMPTY", "The mask shows no kidney.", "Check the segmentation.")
    matrix = np.asarray(affine, dtype=np.float64)
    voxels = np.nonzero(kidney)
    x_mm = matrix[0, 3] + sum(matrix[0, axis] * voxels[axis] for axis in range(3))  # (N,)
    piece_of = pieces[voxels] - 1  # (N,)
    sizes = np.bincount(piece_of, minlength=number)
    centres_mm = np.bincount(piece_of, weights=x_mm, minlength=number) / sizes
    voxel_ml = abs(float(np.linalg.det(matrix[:3, :3]))) / 1000.0
    is_major = sizes >= max(_MIN_PIECE_SHARE * sizes.max(), min(_MIN_PIECE_ML / voxel_ml, sizes.max()))
    major = np.flatnonzero(is_major)
    major = major[np.argsort(centres_mm[major], kind="stable")]
    gaps_mm = np.diff(centres_mm[major])

    if gaps_mm.size and gaps_mm.max() >= _MIN_GAP_BETWEEN_KIDNEYS_MM:
        split = int(gaps_mm.argmax()) + 1
        left, right = (
            np.average(centres_mm[group], weights=sizes[group]) for group in (major[:split], major[split:])
        )
        middle = float(left + right) / 2.0
        is_right = centres_mm >= middle  # whole pieces
        return KidneySides(
            masks=_two_masks(pieces, np.concatenate([[False], is_right])[pieces]),
            arrangement="two",
            midline_x_mm=middle,
        )
    if np.ptp(x_mm) >= _MIN_FUSED_WIDTH_MM:
        middle = float(x_mm.min() + x_mm.max()) / 2.0
        if midline_x_mm is not None and abs(midline_x_mm - middle) < np.ptp(x_mm) / 4.0:
            middle = midline_x_mm
        is_right_voxel = np.zeros(kidney.shape, dtype=bool)
        is_right_voxel[voxels] = x_mm >= middle
        return KidneySides(masks=_two_masks(pieces, is_right_voxel), arrangement="fused", midline_x_mm=middle)
    name = "kidney" if midline_x_mm is None else ("right" if x_mm.mean() >= midline_x_mm else "left")
    return KidneySides(masks={name: kidney}, arrangement="single", midline_x_mm=midline_x_mm)


def _two_masks(pieces: npt.NDArray[Any], is_right: BoolArray) -> dict[str, BoolArray]:
    return {"right": (pieces > 0) & is_right, "left": (pieces > 0) & ~is_right}


def _by_number(
    label_set: str, codes: Mapping[int, str] | None, regions: Mapping[int, str] | None
) -> dict[int, int]:
    """Canonical label by number."""
    canonical = LABEL_SETS[label_set].canonical
    if label_set != "dicom_seg":
        return {int(number): value for number, value in canonical.items()}
    if codes is None:
        raise ValueError('segment_codes must be given for the label set "dicom_seg", got None.')
    meaning = {}
    for number, code in codes.items():
        region = (regions or {}).get(number, "")
        if code in KIDNEY_CODES or (code in GENERIC_CODES and region in KIDNEY_CODES):
            meaning[int(number)] = KIDNEY
        elif code in canonical and (not region or region in KIDNEY_CODES):
            meaning[int(number)] = canonical[code]
    return meaning


def _side_numbers(label_set: str, codes: Mapping[int, str] | None) -> tuple[int | None, int | None]:
    """Numbers of the right and the left kidney, where the set names them."""
    named = LABEL_SETS[label_set]
    if label_set != "dicom_seg":
        return (named.right, named.left)  # type: ignore[return-value]
    by_code = {code: int(number) for number, code in (codes or {}).items()}
    return (by_code.get(str(named.right)), by_code.get(str(named.left)))


def _lookup_tables(label_set: LabelSet, meaning: Mapping[int, int]) -> tuple[LabelArray, BoolArray]:
    """Canonical label of every number, and whether the set names the number; ``(65536,)`` each."""
    table = np.zeros(_MAX_LABEL + 1, dtype=np.uint8)
    is_known = np.full(_MAX_LABEL + 1, label_set.other_labels_are_known or label_set.every_label_is_kidney)
    is_known[0] = True
    if label_set.every_label_is_kidney:
        table[1:] = KIDNEY
    for number, canonical in meaning.items():
        table[number] = canonical
        is_known[number] = True
    return table, is_known


def _scan(
    mask: npt.NDArray[Any], table: LabelArray
) -> tuple[tuple[slice, slice, slice] | None, npt.NDArray[np.int64]]:
    """Find the box of kidney voxels, and count every number; one slab along the slowest axis at a time."""
    slow = int(np.argmax(np.abs(mask.strides)))
    others = [axis for axis in range(3) if axis != slow]
    used = [np.zeros(size, dtype=bool) for size in mask.shape]
    counts = np.zeros(_MAX_LABEL + 1, dtype=np.int64)
    is_kidney_number = table != 0
    for number, slab in enumerate(np.moveaxis(mask, slow, 0)):
        if not slab.any():
            continue
        whole = _whole_numbers(slab)
        size = 256 if whole.dtype == np.uint8 else _MAX_LABEL + 1
        in_slab = np.bincount(whole.ravel(order="K"), minlength=size)
        counts[:size] += in_slab
        if in_slab[is_kidney_number[:size]].any():
            kidney = is_kidney_number[whole]
            used[slow][number] = True
            used[others[0]] |= kidney.any(axis=1)
            used[others[1]] |= kidney.any(axis=0)
    counts[0] = 0
    if not used[slow].any():
        return None, counts
    first, last = ([int(np.flatnonzero(u)[i]) for u in used] for i in (0, -1))
    box = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))
    return (box[0], box[1], box[2]), counts


def _whole_numbers(slab: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The slab as uint8 or uint16, or a refusal."""
    if slab.dtype == np.uint8:
        return slab
    low, high = slab.min(), slab.max()
    is_whole = bool(np.isfinite(low) and np.isfinite(high)) and low >= 0 and high <= _MAX_LABEL
    if is_whole:
        whole = slab.astype(np.uint16)
        if slab.dtype.kind != "f" or np.array_equal(whole, slab):
            return whole
    raise InputRefused(
        "MASK_LABELS_UNKNOWN",
        f"The mask holds values that are not whole numbers from 0 to {_MAX_LABEL}.",
        "Give a label map, not a probability map or an image.",
    )


def _side_findings(
    raw: npt.NDArray[Any], affine: FloatArray, sides: tuple[int | None, int | None]
) -> tuple[Finding, ...]:
    """Warn when the kidney called right lies to the left of the one called left."""
    centres = []
    sparse = raw[::3, ::3, ::3]  # enough for a centre
    for number in sides:
        voxels = np.argwhere(sparse == number) if number is not None else np.empty((0, 3))
        if not len(voxels):
            return ()
        centres.append(float(affine[0, :3] @ voxels.mean(axis=0)))
    if centres[0] >= centres[1]:
        return ()
    message = (
        "The mask calls the kidney on the patient's left side the right one: its labels or its orientation "
        "are swapped. Sides are taken from where the kidneys lie."
    )
    return (Finding(code="MASK_SIDES_SWAPPED", message=message),)


def _listed(numbers: npt.NDArray[np.int64]) -> str:
    shown = ", ".join(str(n) for n in numbers[:10])
    return (shown + (", …" if numbers.size > 10 else "")) or "nothing but 0"
