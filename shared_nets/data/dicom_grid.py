"""Frames → one regular grid: order along the slice normal, check every distance, undo a tilted gantry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median_low

import numpy as np
import numpy.typing as npt

from shared_nets.data.ct_series import MIN_SLICES
from shared_nets.data.dicom_frames import Frame
from shared_nets.data.dicom_wording import counted, names
from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

FloatArray = npt.NDArray[np.float64]

_DIRECTION_TOLERANCE = 1e-3  # of a direction cosine: DICOM files round to 3 to 6 digits
_SAME_PLACE_MM = 0.01
_POSITION_TOLERANCE = 0.05  # of the slice distance …
_POSITION_ROUNDING_MM = 0.11  # … or this, for files that round positions to 0.1 mm,
_POSITION_ROUNDING_SHARE = 0.3  # … unless the slices lie very close
_TILT_DEGREES = 0.1  # less is rounding
_WIDE_GAP_SHARE = 0.25  # more wide gaps than this share are another spacing, not lost slices
_EXPORT_AGAIN = "Export the whole series again from the archive or the scanner."
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Frames in order, and the grid they fill.

    Attributes:
        frames: along k, one per slice.
        shape: columns, rows, slices of the grid.
        affine: ``(4, 4)`` voxel index → RAS mm.
        spacing_mm: along i, j, k.
        positions_mm: along the normal.
        shift_px: ``(K, 2)`` how far slice k is moved along i and j, in pixels; ``None`` without tilt.
        repairs: what was put right.
        warnings: what looks odd.
    """

    frames: tuple[Frame, ...]
    shape: tuple[int, int, int]
    affine: FloatArray
    spacing_mm: tuple[float, float, float]
    positions_mm: tuple[float, ...]
    shift_px: FloatArray | None
    repairs: tuple[Finding, ...]
    warnings: tuple[Finding, ...]


def arrange(
    frames: Sequence[Frame], *, gantry_tilt: str, same_pixels: Callable[[Frame, Frame], bool]
) -> Grid:
    """Put frames into one right-handed grid with equal slice distances.

    Args:
        frames: of one series, in any order.
        gantry_tilt: ``resample`` or ``refuse``.
        same_pixels: tells whether two frames hold the same image.

    Returns:
        The grid.

    Raises:
        InputRefused: any ``GEOMETRY_…`` code of :data:`shared_nets.refusals.CODES`.
    """
    for frame in frames:
        _check_frame(frame)
    _check_alike(frames)
    row, column = _axes(frames[0])
    normal = np.cross(row, column)
    positions = np.array([frame.position for frame in frames])  # (N, 3)
    depth = positions @ normal  # (N,)
    order = np.lexsort((np.arange(len(frames)), depth))
    kept, repairs = _without_duplicates([frames[n] for n in order], depth[order], same_pixels)
    if len(kept) < MIN_SLICES:
        raise InputRefused(
            "GEOMETRY_TOO_FEW_SLICES",
            f"The series has {counted(len(kept), 'slice')}, and a volume needs at least {MIN_SLICES}.",
            "Give the folder that holds the whole series.",
        )
    positions = np.array([frame.position for frame in kept])
    depth = positions @ normal
    distance = _slice_distance(kept, depth)
    between_rows, between_columns = kept[0].spacing[:2]
    sideways = np.stack(
        [positions @ row / between_columns, positions @ column / between_rows], axis=1
    )  # (K, 2)
    shift, tilt_degrees = _tilt(kept, sideways - sideways[0], distance, (between_columns, between_rows))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (
        row * between_columns,
        column * between_rows,
        normal * distance,
    )
    affine[:3, 3] = positions[0]
    columns, rows = kept[0].columns, kept[0].rows
    if shift is not None:
        repairs = (*repairs, _tilt_repair(tilt_degrees, gantry_tilt))
        first = np.floor(shift.min(axis=0))  # (2,) pixels by which the grid grows before index 0
        affine[:3, 3] += row * between_columns * first[0] + column * between_rows * first[1]
        shift = shift - first
        columns, rows = columns + math.ceil(shift[:, 0].max()), rows + math.ceil(shift[:, 1].max())
    return Grid(
        frames=tuple(kept),
        shape=(columns, rows, len(kept)),
        affine=LPS_TO_RAS @ affine,
        spacing_mm=(float(between_columns), float(between_rows), float(distance)),
        positions_mm=tuple(float(depth[0] + distance * k) for k in range(len(kept))),
        shift_px=shift,
        repairs=repairs,
        warnings=_gap_warning(kept[0], distance),
    )


def _check_frame(frame: Frame) -> None:
    if len(frame.position) != 3 or not np.isfinite(frame.position).all():
        raise InputRefused(
            "GEOMETRY_NO_POSITION",
            f"{frame.name} has no usable ImagePositionPatient.",
            "Export the original slices; screen captures and converted images lose their position.",
        )
    if len(frame.orientation) != 6 or not np.isfinite(frame.orientation).all():
        raise InputRefused(
            "GEOMETRY_BAD_ORIENTATION",
            f"{frame.name} has no usable ImageOrientationPatient.",
            "Export the original slices.",
        )
    row, column = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > _DIRECTION_TOLERANCE or (
        abs(row @ column) > _DIRECTION_TOLERANCE
    ):
        raise InputRefused(
            "GEOMETRY_BAD_ORIENTATION",
            f"ImageOrientationPatient of {frame.name} is not two perpendicular directions of length 1.",
            "Export the original slices.",
        )
    if len(frame.spacing) < 2 or not all(0 < value < math.inf for value in frame.spacing[:2]):
        raise InputRefused(
            "GEOMETRY_BAD_SPACING",
            f"PixelSpacing of {frame.name} is missing, zero or negative.",
            "Export the original slices.",
        )


def _check_alike(frames: Sequence[Frame]) -> None:
    first = frames[0]
    for frame in frames[1:]:
        if (frame.columns, frame.rows) != (first.columns, first.rows):
            raise InputRefused(
                "GEOMETRY_MIXED_SIZE",
                f"{first.name} has {first.columns}×{first.rows} pixels, "
                f"{frame.name} {frame.columns}×{frame.rows}.",
                "Separate the two kinds of image, and give one of them.",
            )
        if frame.orientation is not first.orientation and (
            max(abs(a - b) for a, b in zip(frame.orientation, first.orientation, strict=True))
            > _DIRECTION_TOLERANCE
        ):
            raise InputRefused(
                "GEOMETRY_MIXED_ORIENTATION",
                f"{first.name} and {frame.name} are oriented differently.",
                "Separate scouts and reformats from the axial slices.",
            )
        if max(abs(a - b) for a, b in zip(frame.spacing[:2], first.spacing[:2], strict=True)) > 1e-3 * min(
            first.spacing
        ):
            raise InputRefused(
                "GEOMETRY_MIXED_SIZE",
                f"{first.name} and {frame.name} have pixels of different size.",
                "Separate the two reconstructions, and give one of them.",
            )


def _axes(frame: Frame) -> tuple[FloatArray, FloatArray]:
    """Make the two directions exactly perpendicular and of length 1; files round them."""
    row, column = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
    row = row / np.linalg.norm(row)
    column = column - row * (row @ column)
    return row, column / np.linalg.norm(column)


def _without_duplicates(
    frames: list[Frame], depth: FloatArray, same_pixels: Callable[[Frame, Frame], bool]
) -> tuple[list[Frame], tuple[Finding, ...]]:
    kept: list[Frame] = []
    last = -math.inf
    dropped: list[str] = []
    for frame, place in zip(frames, depth.tolist(), strict=True):
        if place - last >= _SAME_PLACE_MM:
            kept.append(frame)
            last = place
        elif np.allclose(frame.position, kept[-1].position, atol=_SAME_PLACE_MM) and same_pixels(
            frame, kept[-1]
        ):
            dropped.append(frame.name)
        else:
            raise InputRefused(
                "GEOMETRY_DUPLICATE_SLICE",
                f"{kept[-1].name} and {frame.name} lie at the same place but differ.",
                "Two phases or reconstructions seem to be mixed: separate them, and give one.",
            )
    if not dropped:
        return kept, ()
    message = f"Of what occurs twice, {counted(len(dropped), 'slice')} were dropped: {names(dropped)}."
    return kept, (Finding(code="GEOMETRY_DUPLICATE_SLICE", message=message),)


def _slice_distance(frames: Sequence[Frame], depth: FloatArray) -> float:
    """Give the one distance between slices, or refuse."""
    gaps = np.diff(depth)  # (K - 1,)
    distance = float(depth[-1] - depth[0]) / (len(depth) - 1)
    even = depth[0] + distance * np.arange(len(depth))
    tolerance = max(
        _POSITION_TOLERANCE * distance, min(_POSITION_ROUNDING_MM, _POSITION_ROUNDING_SHARE * distance)
    )
    if len(gaps) == 1 or (
        np.abs(depth - even).max() <= tolerance and np.abs(gaps - distance).max() <= 2 * tolerance
    ):
        return distance
    usual = float(median_low(gaps.tolist()))
    parts = gaps / usual
    wide = np.flatnonzero(parts > 1.5)
    whole = bool(np.abs(parts - np.round(parts)).max() <= 0.1)
    if len(wide) and whole and len(wide) <= max(1, _WIDE_GAP_SHARE * len(gaps)):
        k = int(wide[0])
        missing = int(np.round(parts[wide] - 1).sum())
        raise InputRefused(
            "GEOMETRY_MISSING_SLICE",
            f"Missing: {counted(missing, 'slice')} of {len(depth) + missing}; {gaps[k]:.2f} mm lie between "
            f"{frames[k].name} and {frames[k + 1].name}, elsewhere {usual:.2f} mm.",
            _EXPORT_AGAIN,
        )
    raise InputRefused(
        "GEOMETRY_IRREGULAR_SPACING",
        f"The slice distance varies from {gaps.min():.2f} to {gaps.max():.2f} mm.",
        "Give a series with one slice distance, or have it reconstructed so.",
    )


def _tilt(
    frames: Sequence[Frame], sideways_px: FloatArray, distance: float, pixel_mm: tuple[float, float]
) -> tuple[FloatArray | None, float]:
    """Give the shift of each slice in pixels when it grows steadily, ``None`` when there is none."""
    steps = np.arange(len(frames))[:, None] / (len(frames) - 1)  # (K, 1)
    steady = steps * sideways_px[-1]  # (K, 2)
    if np.abs(sideways_px - steady).max() > 0.5:
        worst = int(np.abs(sideways_px - steady).max(axis=1).argmax())
        raise InputRefused(
            "GEOMETRY_IRREGULAR_SPACING",
            f"{frames[worst].name} lies sideways of the line through the other slices.",
            "Separate the fields of view, and give one of them.",
        )
    per_slice_mm = np.array(pixel_mm) * sideways_px[-1] / (len(frames) - 1)
    degrees = math.degrees(math.atan2(float(np.linalg.norm(per_slice_mm)), distance))
    if np.abs(sideways_px[-1]).max() <= 0.5 or degrees < _TILT_DEGREES:
        return None, 0.0
    return steady, degrees


def _tilt_repair(degrees: float, gantry_tilt: str) -> Finding:
    if gantry_tilt == "refuse":
        raise InputRefused(
            "GEOMETRY_GANTRY_TILT",
            f"The slices are sheared by a gantry tilt of {degrees:.1f}°.",
            'Allow resampling with gantry_tilt="resample", or give an untilted reconstruction.',
        )
    message = f"A gantry tilt of {degrees:.1f}° was undone: slices were shifted within their planes (linear)."
    return Finding(code="GEOMETRY_GANTRY_TILT", message=message)


def _gap_warning(frame: Frame, distance: float) -> tuple[Finding, ...]:
    thickness = frame.header.numbers("SliceThickness")
    if not thickness or not 0 < thickness[0] * 1.5 < distance:
        return ()
    message = f"Slices of {thickness[0]:g} mm lie {distance:g} mm apart: every other slice may be missing."
    return (Finding(code="GEOMETRY_SLICE_GAPS", message=message),)
