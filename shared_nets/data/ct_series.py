"""What a CT reader knows about a volume before its pixels are decoded, and how the pixels are asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

#: Hounsfield units that stand for "outside the scanner's field": what padding becomes.
AIR_HU = -1024
MIN_SLICES = 2
#: Voxels of the largest volume that is read, 4,096 slices of 512 × 512: a few packed megabytes may say more.
MAX_VOXELS = 2**30


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Decoded slices.

    Attributes:
        array: ``(I, J, S)`` Hounsfield units, int16 or float32; a view of slice-contiguous memory.
        repairs: what was put right while decoding.
        warnings: what looks odd in the values.
    """

    array: npt.NDArray[Any]
    repairs: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()


class PixelSource(Protocol):
    """Something that decodes chosen slices of one volume."""

    def read(self, slices: Sequence[int]) -> Pixels:
        """Decode the slices with these indices along ``k``, in the order given."""
        ...


@dataclass(frozen=True, kw_only=True)
class CTSeries:
    """One CT volume by its headers; nothing is decoded yet.

    Attributes:
        shape: columns I, rows J, slices K.
        affine: ``(4, 4)`` float64, voxel index ``(i, j, k)`` → RAS world, in mm.
        spacing_mm: voxel size along i, j, k.
        slice_positions_mm: ``(K,)`` positions along the slice normal, ascending.
        series_uid: ``None`` for files that are not DICOM; likewise ``study_uid`` and ``sop_uids``.
        sop_uids: one SOP instance UID per slice, along k.
        frame_numbers: one frame number per slice, from 1; 1 for single-frame files.
        files: path of the file that holds each slice, along k; empty for files that are not DICOM.
        is_resampled: whether the grid is not that of the files (a tilted gantry is straightened).
        modality: DICOM's word; what the reader expects for files that are not DICOM.
        source: ``dicom``, ``nifti``, ``nrrd`` or ``metaimage``.
        header: facts that do not identify the person.
        repairs: what was put right or left out, from the headers.
        warnings: what looks odd but is used as it is.
        pixels: decodes slices.
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    spacing_mm: tuple[float, float, float]
    slice_positions_mm: tuple[float, ...]
    series_uid: str | None = None
    study_uid: str | None = None
    sop_uids: tuple[str, ...] = ()
    frame_numbers: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    is_resampled: bool = False
    modality: str = "CT"
    source: str = "dicom"
    header: Mapping[str, str] = field(default_factory=dict)
    repairs: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    pixels: PixelSource = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class CTOptions:
    """What a reader accepts; see :class:`shared_nets.data.ct_reader.CTReader` for the meaning of each."""

    modality: str | None = "CT"
    series_uid: str | None = None
    gantry_tilt: str = "resample"
    burned_in: str = "warn"
    values: str = "refuse"
    body_parts: tuple[str, ...] | None = None
    series_choice: str = "refuse"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("gantry_tilt", ("resample", "refuse")),
            ("burned_in", ("warn", "refuse")),
            ("values", ("refuse", "warn")),
            ("series_choice", ("refuse", "rule")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}.")


def check_hounsfield_range(
    low: float, high: float, *, whole_volume: bool, policy: str, name: str
) -> tuple[Finding, ...]:
    """Tell Hounsfield units from values that were windowed, normalised or never rescaled.

    Args:
        low: smallest decoded value.
        high: largest decoded value.
        whole_volume: whether every slice was decoded.
        policy: ``refuse`` or ``warn``.
        name: what to call the image in the message.

    Returns:
        Warnings, possibly none.

    Raises:
        InputRefused: ``PIXEL_NOT_HU``, when the policy is ``refuse``.
    """
    if low >= -10 and high <= 10:
        wrong = "look normalised or constant"
    elif low >= 0 and high <= 255:
        wrong = "look like an 8-bit picture"
    elif low < np.iinfo(np.int16).min or high > np.iinfo(np.int16).max:
        wrong = "go beyond what any scanner writes"
    elif whole_volume and low > -200:
        message = f"{name} holds no value below -200 HU: there is no air in it, or the intercept was lost."
        return (Finding(code="PIXEL_NOT_HU", message=message),)
    else:
        return ()
    message = (
        f"The values of {name} run from {low:g} to {high:g} and {wrong}; these are not Hounsfield units."
    )
    if policy == "refuse":
        raise InputRefused("PIXEL_NOT_HU", message, "Give the original CT in Hounsfield units.")
    return (Finding(code="PIXEL_NOT_HU", message=message),)


def axial_warning(affine: npt.NDArray[np.float64]) -> tuple[Finding, ...]:
    """Warn when the slices are not roughly axial.

    Args:
        affine: ``(4, 4)`` voxel index → RAS.

    Returns:
        One warning, or none.
    """
    normal = np.abs(affine[:3, 2])
    if int(normal.argmax()) == 2:
        return ()
    plane = ("sagittal", "coronal")[int(normal.argmax())]
    return (Finding(code="GEOMETRY_NOT_AXIAL", message=f"The slices are {plane}, not axial."),)


def check_size(shape: Sequence[int], name: str) -> None:
    """Check that a volume is not larger than is read, before any of it is.

    Args:
        shape: voxels along each axis.
        name: of the file.

    Raises:
        InputRefused: ``IMAGE_TOO_LARGE``.
    """
    if math.prod(int(size) for size in shape) > MAX_VOXELS:
        raise InputRefused(
            "IMAGE_TOO_LARGE",
            f"{name} has {'×'.join(map(str, shape))} voxels, more than {MAX_VOXELS:,}.",
            "Cut out the part of the body that is meant.",
        )
