"""Chosen frames → Hounsfield units in one array: straight from the files where they are not compressed."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shared_nets.data.ct_series import AIR_HU, Pixels, check_hounsfield_range
from shared_nets.data.dicom_frames import Frame
from shared_nets.data.dicom_grid import Grid
from shared_nets.data.dicom_stored import read_stored_values, stored_format
from shared_nets.data.dicom_wording import counted, names
from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

Array = npt.NDArray[Any]

_INT16 = np.iinfo(np.int16)
_TISSUE_HU = (-900.0, 3071.0)  # padding that would stand for one of these is not believed
_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class DicomPixels:
    """Decodes slices of a grid of DICOM frames.

    Args:
        grid: the frames along k, and how far a tilted gantry shifted each.
        values: ``refuse`` or ``warn`` when the values cannot be Hounsfield units.
        name: what to call the series in messages.
    """

    grid: Grid
    values: str
    name: str

    def read(self, slices: Sequence[int]) -> Pixels:
        """Decode slices.

        Args:
            slices: indices along k.

        Returns:
            ``(I, J, S)`` int16 where every slope and intercept is a whole number, else float32.

        Raises:
            InputRefused: a ``PIXEL_…`` code.
        """
        frames = self.grid.frames
        dtype = np.dtype(np.int16) if all(_keeps_int16(frame) for frame in frames) else np.dtype(np.float32)
        columns, rows = self.grid.shape[:2]
        volume = np.empty((len(slices), rows, columns), dtype=dtype)  # (S, J, I)

        def decode(place: int) -> _SliceFacts:
            return self._decode(frames[slices[place]], slices[place], volume[place])

        with ThreadPoolExecutor(_THREADS) as pool:
            facts = list(pool.map(decode, range(len(slices)), chunksize=1))
        repairs = _repairs([frames[k] for k in slices], facts)
        warnings = check_hounsfield_range(
            min((fact.low for fact in facts), default=-1000.0),
            max((fact.high for fact in facts), default=1000.0),
            whole_volume=len(set(slices)) == len(frames),
            policy=self.values,
            name=self.name,
        )
        return Pixels(array=volume.transpose(2, 1, 0), repairs=repairs, warnings=warnings)

    def _decode(self, frame: Frame, k: int, out: Array) -> _SliceFacts:
        if self.grid.shift_px is None:
            return decode_frame(frame, out)
        straight = np.empty((frame.rows, frame.columns), dtype=out.dtype)
        facts = decode_frame(frame, straight)
        _shift_into(straight, out, self.grid.shift_px[k])
        return facts


@dataclass(frozen=True, slots=True)
class _SliceFacts:
    low: float
    high: float
    padded: int


def decode_frame(frame: Frame, out: Array) -> _SliceFacts:
    """Decode one frame into Hounsfield units.

    Args:
        frame: what to decode.
        out: ``(rows, columns)`` C-contiguous int16 or float32; written.

    Returns:
        The smallest and largest value, and how many pixels were padding.

    Raises:
        InputRefused: a ``PIXEL_…`` code.
    """
    stored_type, lowest, highest = stored_format(frame.header)
    stored = out.view(stored_type) if out.dtype == np.int16 else np.empty(out.shape, dtype=stored_type)
    read_stored_values(frame, stored)
    padding = _padding_of(frame, stored)
    padded = int(np.count_nonzero(padding)) if padding is not None else 0
    if frame.header.text("PhotometricInterpretation") == "MONOCHROME1":
        np.subtract(stored_type.type(highest + lowest), stored, out=stored)
    slope, intercept = frame.slope, frame.intercept
    if padded and padding is not None:
        air = min(max(round((AIR_HU - intercept) / slope), lowest), highest)
        np.putmask(stored, padding, stored_type.type(air))
    ends = sorted((int(stored.min()) * slope + intercept, int(stored.max()) * slope + intercept))
    if out.dtype == np.int16:
        if ends[0] < _INT16.min or ends[1] > _INT16.max:
            raise InputRefused(
                "PIXEL_NOT_HU",
                f"The values of {frame.name} run from {ends[0]:g} to {ends[1]:g}: no Hounsfield units.",
                "Give the original CT; if these pixels mark the outside, they need a PixelPaddingValue.",
            )
        if slope != 1:  # arithmetic modulo 2^16 is exact, because the result fits
            np.multiply(out, np.int16(slope), out=out)
        if intercept != 0:
            np.add(out, np.int16(intercept), out=out)
    else:
        np.multiply(stored, np.float32(slope), out=out)
        np.add(out, np.float32(intercept), out=out)
    if padded and padding is not None:
        np.putmask(out, padding, out.dtype.type(AIR_HU))
    return _SliceFacts(ends[0], ends[1], padded)


def padding_range(frame: Frame) -> tuple[int, int] | None:
    """Give the stored values that mean "outside the field", or ``None`` where there are none to believe.

    Args:
        frame: a frame with a valid rescale slope.

    Returns:
        Lowest and highest stored value of the padding.
    """
    signed = frame.header.integer("PixelRepresentation") == 1
    value = frame.header.integer("PixelPaddingValue", signed=signed)
    if value is None or is_padding_doubtful(frame):
        return None
    limit = frame.header.integer("PixelPaddingRangeLimit", signed=signed)
    other = value if limit is None else limit
    return min(value, other), max(value, other)


def is_padding_doubtful(frame: Frame) -> bool:
    """Tell whether the padding value would also stand for tissue, so that using it could erase anatomy.

    Args:
        frame: a frame with a valid rescale slope.

    Returns:
        Whether the padding is to be left alone.
    """
    signed = frame.header.integer("PixelRepresentation") == 1
    bounds = (
        frame.header.integer("PixelPaddingValue", signed=signed),
        frame.header.integer("PixelPaddingRangeLimit", signed=signed),
    )
    units = [value * frame.slope + frame.intercept for value in bounds if value is not None]
    return bool(units) and max(units) > _TISSUE_HU[0] and min(units) < _TISSUE_HU[1]


def _padding_of(frame: Frame, stored: Array) -> npt.NDArray[np.bool_] | None:
    bounds = padding_range(frame)
    if bounds is None:
        return None
    low, high = bounds
    if low == high:
        return stored == low
    return (stored >= low) & (stored <= high)


def _keeps_int16(frame: Frame) -> bool:
    whole = frame.slope.is_integer() and frame.intercept.is_integer()
    return whole and max(abs(frame.slope), abs(frame.intercept)) <= _INT16.max


def _repairs(frames: Sequence[Frame], facts: Sequence[_SliceFacts]) -> tuple[Finding, ...]:
    padded = [frame.name for frame, fact in zip(frames, facts, strict=True) if fact.padded]
    if not padded:
        return ()
    pixels = sum(fact.padded for fact in facts)
    message = f"Padding was set to {AIR_HU} HU: {counted(pixels, 'pixel')} in {names(padded)}."
    return (Finding(code="PIXEL_PADDING", message=message),)


def _shift_into(image: Array, out: Array, shift_px: npt.NDArray[np.float64]) -> None:
    """Move an image by a fraction of pixels along i and j, linearly; what comes in from outside is air."""
    along_i, along_j = (float(value) for value in shift_px)
    work = image.astype(np.float32)
    for axis, shift, size in ((0, along_j, out.shape[0]), (1, along_i, out.shape[1])):
        whole = math.floor(shift)
        part = np.float32(shift - whole)
        moved = np.full(
            (size, work.shape[1]) if axis == 0 else (work.shape[0], size), AIR_HU, dtype=np.float32
        )
        here = [slice(None), slice(None)]
        here[axis] = slice(whole, whole + work.shape[axis])
        moved[tuple(here)] = work
        if part:
            before = np.roll(moved, 1, axis=axis)
            edge = [slice(None), slice(None)]
            edge[axis] = slice(0, 1)
            before[tuple(edge)] = AIR_HU
            moved = moved * (1 - part) + before * part
        work = moved
    out[...] = np.rint(work) if out.dtype == np.int16 else work


def same_stored_pixels(one: Frame, other: Frame) -> bool:
    """Tell whether two frames hold the same stored values with the same meaning.

    Args:
        one: a frame.
        other: another.

    Returns:
        Whether they are interchangeable.
    """
    if (one.rows, one.columns, one.slope, one.intercept) != (
        other.rows,
        other.columns,
        other.slope,
        other.intercept,
    ):
        return False
    first, second = stored_format(one.header)[0], stored_format(other.header)[0]
    if first != second:
        return False
    values = [np.empty((one.rows, one.columns), dtype=first) for _ in range(2)]
    read_stored_values(one, values[0])
    read_stored_values(other, values[1])
    return bool(np.array_equal(values[0], values[1]))
