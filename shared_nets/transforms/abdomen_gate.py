"""Is it a CT of the abdomen at all? Plain measures of a coarse volume, and what they mean.

The measures need no training and can be read off a picture: is there air of -1000 HU, how much of the body
has the density of organs and of fat, how wide is a slice, is it closed in by a skull, how much of it is lung.
Nothing here finds a kidney; :func:`kidneys_or_refusal` puts both answers together. A pelvis alone, or thighs
that touch, pass for an abdomen here, and then fail for want of kidneys.

The thresholds rest on four real scans (LIDC-IDRI-0001 and three CTs among the tests of TotalSegmentator) and,
for heads, legs and phantoms, on synthetic volumes and on anatomy.

Shape letters: X towards the right, Y to the front, Z to the head, each index growing that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# Densities, HU. Fat, muscle, organs (with or without contrast) and lung keep these at 70–140 kVp; skin, foam
# and clothes lie between lung and fat, so the body starts at -300 and gas ends at -500.
_AIR_HU = -1024.0  # what lies below is padding outside the scanner's circle
_GAS_HU, _BODY_HU = -500.0, -300.0
_LUNG_HU = (-970.0, -500.0)  # free air is -1000
_FAT_HU, _SOFT_HU = (-150.0, -50.0), (0.0, 150.0)
_SKULL_HU = 200.0  # above brain and its enhanced vessels, below 3 mm of cortical bone beside 3 mm of brain

#: Mode of the air around the body. Calibrated scanners give -1000 ± 10; cone beams and shifted values do not.
AIR_HU_RANGE = (-1100.0, -900.0)
#: Share of the body's voxels with the density of muscle and organs: 0.34 to 0.67 in the real scans at hand.
#: Someone with two thirds of fat keeps 0.3. Below the first number values are refused, below the second
#: doubted.
SOFT_SHARE = (0.10, 0.20)
#: Share with the density of fat: 0.10 to 0.37 in the real scans. Only water phantoms, MR and shifted values
#: have none.
FAT_SHARE = 0.02
#: Share within ±25 HU of the commonest value: at most 0.4 in the real scans, nearly 1 in a cylinder of water.
SAME_VALUE_SHARE = 0.8
#: Diameter of the circle with the area of an axial slice. A waist of 50 cm has 160 mm, one of 190 cm has 600.
BODY_DIAMETER_MM = (160.0, 600.0)
#: Share of a slice that its bones close in: at most 0.04 in trunks (spinal canal), over 0.5 in a skull.
SKULL_SHARE = 0.3
#: Share of a slice that is lung. It falls below this near the dome of the liver; bowel gas stays below it.
LUNG_SHARE = 0.2
#: A scan that ends less than this below the level of :data:`LUNG_SHARE` shows at most upper poles: kidneys
#: begin 64 mm below it in the LIDC scan and 45 mm in TotalSegmentator's aorta scan.
KIDNEYS_BELOW_LUNG_MM = 60.0
#: Share of the picture's rim that is body, from which on the field of view cuts through it.
RIM_SHARE = 0.25
_TOUCHES_RIM = 0.15  # below this, what looks like lung at the rim is taken for air of a cone beam
#: A trunk is recognised from this length on.
_TRUNK_MM = 20.0
#: Of two legs the smaller has at least this share of the larger; an arm has a tenth of the trunk.
_LEG_SHARE, _LEG_DIAMETER_MM = 0.5, 260.0
_RADIUS_MM = 6.0  # opening with it takes away table, sheets and tubes

_GIVE_ABDOMEN = "Give a CT series that shows the kidneys."
_GIVE_HU = "Give the original reconstruction of a CT, in Hounsfield units."


@dataclass(frozen=True, kw_only=True)
class BodyMeasures:
    """What the coarse volume shows, in numbers.

    Args:
        air_hu: commonest value of the air around the body; ``None`` where there is hardly any.
        soft_share: share of the body with the density of muscle and organs.
        fat_share: share with the density of fat.
        same_value_share: share within ±25 HU of the commonest value.
        diameter_mm: median over the slices of the diameter of the circle with the body's area.
        rim_share: median share of the rim of a slice that is body or lung.
        body_mm: length of the scan that shows a body; likewise ``head_mm`` (within a skull), ``legs_mm`` (two
            bodies) and ``lung_mm``.
        abdomen_mm: length that may show abdomen: trunk below the lungs.
    """

    air_hu: float | None
    soft_share: float
    fat_share: float
    same_value_share: float
    diameter_mm: float
    rim_share: float
    body_mm: float
    head_mm: float
    legs_mm: float
    lung_mm: float
    abdomen_mm: float


@dataclass(frozen=True, kw_only=True)
class AbdomenCheck:
    """The answer of :func:`abdomen_findings`.

    Args:
        measures: the numbers it rests on.
        findings: what a reader of the result must know.
        refusal: why the image must not be used at all; ``None`` where that is not certain.
        looks_like_abdomen: whether there is some trunk below the lungs.
    """

    measures: BodyMeasures
    findings: tuple[Finding, ...]
    refusal: InputRefused | None
    looks_like_abdomen: bool


def abdomen_findings(volume: FloatArray, spacing_mm: Sequence[float]) -> AbdomenCheck:
    """Judge from a coarse volume whether it can be a CT of an adult's abdomen.

    Args:
        volume: ``(X, Y, Z)`` HU, index growing to the right, to the front and to the head; made for voxels of
            3–4 mm.
        spacing_mm: size of a voxel along X, Y, Z.

    Returns:
        Measures, warnings and, where it is certain, a refusal (``PIXEL_NOT_HU``, ``WRONG_BODY_PART``).

    Raises:
        ValueError: the volume does not have three axes, is empty or holds values that are not finite.
    """
    if volume.ndim != 3 or volume.size == 0 or not np.isfinite(volume).all():
        raise ValueError(f"volume must be finite, with three axes, got shape {volume.shape}.")
    if len(spacing_mm) != 3 or min(spacing_mm) <= 0:
        raise ValueError(f"spacing_mm must be three positive numbers, got {tuple(spacing_mm)}.")
    hu = np.maximum(volume, np.float32(_AIR_HU))
    measures = _measure(hu, spacing_mm)
    has_gas = bool((hu < _GAS_HU).mean() > 1e-4)
    refusal = _not_hu(measures, has_gas) or _not_a_trunk(measures, has_gas)
    findings = () if refusal else (*_doubtful_values(measures, has_gas), *_doubtful_body(measures, has_gas))
    return AbdomenCheck(
        measures=measures,
        findings=tuple(findings),
        refusal=refusal,
        looks_like_abdomen=refusal is None and (not has_gas or measures.abdomen_mm >= _TRUNK_MM),
    )


def kidneys_or_refusal(
    found_volume_ml: float, check: AbdomenCheck, *, min_volume_ml: float = 5.0
) -> InputRefused | None:
    """Say what it means that kidneys were found, or not found, in an image.

    Args:
        found_volume_ml: volume of all that was taken for kidney.
        check: of the same image.
        min_volume_ml: less than this is a speck; a shrunken kidney of end-stage disease has some 20 mL.

    Returns:
        ``None`` to go on; ``WRONG_BODY_PART`` where the image does not look like an abdomen either;
        ``KIDNEY_NOT_FOUND`` where it does; the check's own refusal before all.
    """
    if check.refusal is not None:
        return check.refusal
    if found_volume_ml >= min_volume_ml:
        return None
    if not check.looks_like_abdomen:
        reasons = " ".join(finding.message for finding in check.findings)
        return InputRefused(
            "WRONG_BODY_PART",
            f"No kidney was found, and the image does not look like an abdomen. {reasons}".strip(),
            _GIVE_ABDOMEN,
        )
    return InputRefused(
        "KIDNEY_NOT_FOUND",
        f"{check.measures.abdomen_mm:.0f} mm of the scan may be abdomen, but no kidney was found in it.",
        "Give a scan that reaches both kidneys, or a mask of your own.",
    )


def _measure(hu: FloatArray, spacing_mm: Sequence[float]) -> BodyMeasures:
    body = _bodies(hu, spacing_mm)
    cross = ndimage.generate_binary_structure(3, 1)
    is_lung = _opened((hu > _LUNG_HU[0]) & (hu < _LUNG_HU[1]), cross)  # without the rim of the skin
    rim_share = _rim_share(body)
    rim_share = np.where(rim_share >= _TOUCHES_RIM, _rim_share(body | is_lung), rim_share)
    filled = np.stack([ndimage.binary_fill_holes(body[..., z]) for z in range(hu.shape[2])], axis=-1)
    cut = rim_share >= RIM_SHARE  # there, lungs are open to the side and no hole
    lung = is_lung & (filled | cut)
    area = _areas(filled | lung)  # (Z,) voxels
    diameter_mm = 2.0 * np.sqrt(area * spacing_mm[0] * spacing_mm[1] / np.pi)  # (Z,)
    is_body = area > 0
    lung_share = _areas(lung) / np.maximum(area, 1)  # (Z,)
    bone = hu > _SKULL_HU
    closed_in = [np.count_nonzero(ndimage.binary_fill_holes(bone[..., z])) for z in range(hu.shape[2])]
    skull_share = (np.array(closed_in) - _areas(bone)) / np.maximum(area, 1)  # (Z,)
    is_head = is_body & (skull_share > SKULL_SHARE) & ~cut
    is_legs = np.array([_is_pair(body[..., z], spacing_mm) for z in range(hu.shape[2])]) & ~cut
    is_chest = is_body & ~is_head & (lung_share > LUNG_SHARE)
    trunk = is_body & ~is_head & ~is_legs & ~is_chest & (cut | (diameter_mm >= BODY_DIAMETER_MM[0]))
    if is_chest.any():
        trunk[int(np.flatnonzero(is_chest)[0]) :] = False  # what lies above is shoulder
    elif is_head.any():
        trunk[:] = False  # head and shoulders
    tissue = _smooth_tissue(hu, filled, spacing_mm)
    counts, edges = np.histogram(tissue, bins=np.arange(-300.0, 1500.0, 10.0))
    mode = float(edges[int(counts.argmax())]) + 5.0
    outside = hu[~(filled | lung) & (hu < _GAS_HU)]
    length_mm = float(spacing_mm[2])
    return BodyMeasures(
        air_hu=_air_mode(outside) if outside.size >= 0.02 * hu.size else None,
        soft_share=_share(tissue, _SOFT_HU),
        fat_share=_share(tissue, _FAT_HU),
        same_value_share=_share(tissue, (mode - 25.0, mode + 25.0)),
        diameter_mm=float(np.median(diameter_mm[is_body])) if is_body.any() else 0.0,
        rim_share=float(np.median(rim_share)),
        body_mm=int(is_body.sum()) * length_mm,
        head_mm=int(is_head.sum()) * length_mm,
        legs_mm=int((is_legs & ~is_head).sum()) * length_mm,
        lung_mm=int(is_chest.sum()) * length_mm,
        abdomen_mm=int(trunk.sum()) * length_mm,
    )


def _bodies(hu: FloatArray, spacing_mm: Sequence[float]) -> BoolArray:
    """Mark the largest object, and any other of a fifth of its volume at least: the second leg."""
    solid = hu > _BODY_HU
    steps = [max(1, round(_RADIUS_MM / step)) for step in spacing_mm[:2]]
    disc = np.ones((2 * steps[0] + 1, 2 * steps[1] + 1, 1), dtype=bool)
    x, y = np.ogrid[-steps[0] : steps[0] + 1, -steps[1] : steps[1] + 1]
    disc[..., 0] = (x / steps[0]) ** 2 + (y / steps[1]) ** 2 <= 1.0
    labels, count = ndimage.label(_opened(solid, disc))
    if count == 0:
        return np.zeros(hu.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= 0.2 * sizes.max())[labels])


def _opened(mask: BoolArray, structure: BoolArray) -> BoolArray:
    """Take away what is thinner than the structure; the edge of the volume is no surface."""
    pad = [n // 2 for n in structure.shape]
    opened = ndimage.binary_opening(np.pad(mask, [(n, n) for n in pad], mode="edge"), structure)
    return np.asarray(opened[tuple(slice(n, n + size) for n, size in zip(pad, mask.shape, strict=True))])


def _rim_share(body: BoolArray) -> FloatArray:
    """Share of each slice's rim that is body, ``(Z,)``."""
    rim = np.concatenate([body[0], body[-1], body[:, 0], body[:, -1]])  # (rim, Z)
    return np.asarray(rim.mean(axis=0), dtype=np.float32)


def _is_pair(slice_: BoolArray, spacing_mm: Sequence[float]) -> bool:
    labels, count = ndimage.label(slice_)
    if count < 2:
        return False
    sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1]
    largest_mm = 2.0 * np.sqrt(sizes[0] * spacing_mm[0] * spacing_mm[1] / np.pi)
    return bool(sizes[1] >= _LEG_SHARE * sizes[0] and largest_mm <= _LEG_DIAMETER_MM)


def _smooth_tissue(hu: FloatArray, filled: BoolArray, spacing_mm: Sequence[float]) -> FloatArray:
    """Give the body's values without noise, and without its surface, which is half air."""
    inner = ndimage.binary_erosion(filled, np.ones((3, 3, 1), dtype=bool), iterations=2)
    inner &= hu > _BODY_HU
    smooth = ndimage.gaussian_filter(hu, [3.0 / step for step in spacing_mm])
    return smooth[inner if inner.any() else hu > _BODY_HU]


def _areas(mask: BoolArray) -> npt.NDArray[np.int64]:
    return np.asarray(mask.sum(axis=(0, 1)))


def _share(values: FloatArray, bounds: tuple[float, float]) -> float:
    return float(((values > bounds[0]) & (values < bounds[1])).mean()) if values.size else 0.0


def _air_mode(values: FloatArray) -> float:
    counts, edges = np.histogram(values, bins=np.arange(_AIR_HU - 6.0, _GAS_HU + 10.0, 10.0))
    return float(edges[int(counts.argmax())]) + 5.0


def _not_hu(found: BodyMeasures, has_gas: bool) -> InputRefused | None:
    if not has_gas and found.fat_share < FAT_SHARE:
        what = "there is neither gas nor fat in the image, as in MR or where the rescale intercept was lost"
    elif found.body_mm > 0 and (found.soft_share < SOFT_SHARE[0] or len(_value_doubts(found)) > 1):
        what = " and ".join(_value_doubts(found))
    else:
        return None
    return InputRefused("PIXEL_NOT_HU", f"These are not Hounsfield units: {what}.", _GIVE_HU)


def _not_a_trunk(found: BodyMeasures, has_gas: bool) -> InputRefused | None:
    if found.body_mm == 0:
        what = "The image shows no body: nothing but air."
    elif has_gas and found.head_mm >= 0.5 * found.body_mm and found.abdomen_mm + found.lung_mm < _TRUNK_MM:
        what = f"The image shows a head: a skull encloses {found.head_mm:.0f} mm of {found.body_mm:.0f} mm."
    elif found.same_value_share > SAME_VALUE_SHARE:
        what = (
            f"{found.same_value_share:.0%} of the body has one density, as in a test phantom: this is no "
            "patient."
        )
    else:
        return None
    return InputRefused("WRONG_BODY_PART", what, _GIVE_ABDOMEN)


def _value_doubts(found: BodyMeasures) -> list[str]:
    """Say what speaks against Hounsfield units; each alone has harmless reasons, two together have none."""
    wrong = []
    if found.air_hu is not None and not AIR_HU_RANGE[0] <= found.air_hu <= AIR_HU_RANGE[1]:
        wrong.append(f"the air around the body has {found.air_hu:.0f} HU and not -1000")
    if found.soft_share < SOFT_SHARE[1]:
        wrong.append(f"only {found.soft_share:.0%} of the body has the density of muscle and organs")
    if found.fat_share < FAT_SHARE:
        wrong.append(f"only {found.fat_share:.1%} of the body has the density of fat")
    return wrong


def _doubtful_values(found: BodyMeasures, has_gas: bool) -> list[Finding]:
    wrong = _value_doubts(found)
    if not has_gas:
        wrong.append(f"nothing lies below {_GAS_HU:.0f} HU, as in values that were clipped to a window")
    if not wrong:
        return []
    message = f"The values may not be Hounsfield units (cone beam, shifted, rescaled): {'; '.join(wrong)}."
    return [Finding(code="PIXEL_NOT_HU", message=message)]


def _doubtful_body(found: BodyMeasures, has_gas: bool) -> list[Finding]:
    if not has_gas:
        return []  # without air there is no outline of a body to judge
    findings = []

    def doubt(code: str, message: str) -> None:
        findings.append(Finding(code=code, message=message))

    if found.rim_share >= RIM_SHARE:
        message = f"The body fills {found.rim_share:.0%} of the picture's rim: the field of view cuts it."
        doubt("FIELD_OF_VIEW_CUTS_BODY", message)
    elif not BODY_DIAMETER_MM[0] <= found.diameter_mm <= BODY_DIAMETER_MM[1]:
        message = f"The body is {found.diameter_mm:.0f} mm across, which is no adult's trunk."
        doubt("BODY_SIZE_IMPLAUSIBLE", message)
    if found.legs_mm >= max(_TRUNK_MM, found.abdomen_mm):
        doubt("WRONG_BODY_PART", f"{found.legs_mm:.0f} mm of the scan show two bodies, as two legs do.")
    if found.head_mm >= max(_TRUNK_MM, found.abdomen_mm + found.lung_mm):
        doubt("WRONG_BODY_PART", f"A skull encloses {found.head_mm:.0f} mm of the scan.")
    if found.lung_mm > 0 and found.abdomen_mm < KIDNEYS_BELOW_LUNG_MM:
        message = (
            f"The scan reaches {found.abdomen_mm:.0f} mm below the lungs: the kidneys, or all but their "
            "upper poles, are probably not in it."
        )
        doubt("KIDNEYS_PROBABLY_OUTSIDE", message)
    elif 0 < found.body_mm < KIDNEYS_BELOW_LUNG_MM:
        message = f"The scan is only {found.body_mm:.0f} mm long and cannot hold a whole kidney."
        doubt("SCAN_TOO_SHORT", message)
    return findings
