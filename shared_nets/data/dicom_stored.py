"""The stored values of one frame: read from the file as they are, or through pydicom's decoder plugins."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import UID, RLELossless

from shared_nets.data.dicom_frames import Frame, number_of_frames
from shared_nets.data.dicom_header import DicomHeader
from shared_nets.refusals import InputRefused

logger = logging.getLogger(__name__)

_END_OF_CODESTREAM = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000
_SEND_AGAIN = "Copy or export the file again; the transfer seems to have been cut off."


def stored_format(header: DicomHeader) -> tuple[np.dtype[Any], int, int]:
    """Give the type of the stored values and the range that Bits Stored allows.

    Args:
        header: of an image file.

    Returns:
        uint16 or int16, lowest and highest value.

    Raises:
        InputRefused: ``PIXEL_FORMAT_UNSUPPORTED``.
    """
    allocated, bits = header.integer("BitsAllocated"), header.integer("BitsStored")
    high_bit, samples = header.integer("HighBit"), header.integer("SamplesPerPixel")
    colour = header.text("PhotometricInterpretation")
    if (
        samples not in (1, None)
        or colour not in ("MONOCHROME1", "MONOCHROME2")
        or allocated != 16
        or bits is None
        or not 1 <= bits <= 16
        or high_bit not in (bits - 1, None)
    ):
        raise InputRefused(
            "PIXEL_FORMAT_UNSUPPORTED",
            f"{header.name} stores {samples} samples of {bits} in {allocated} bits as {colour or 'unknown'}.",
            "Give the original CT slices: one grey sample in 16 bits.",
        )
    if header.integer("PixelRepresentation") == 1:
        return np.dtype("<i2"), -(1 << bits - 1), (1 << bits - 1) - 1
    return np.dtype("<u2"), 0, (1 << bits) - 1


def check_pixel_length(header: DicomHeader) -> None:
    """Find missing or short pixel data without reading them.

    Args:
        header: of an image file.

    Raises:
        InputRefused: ``PIXEL_MISSING`` or ``PIXEL_TRUNCATED``.
    """
    if header.pixel_offset is None:
        if not header.is_deflated:
            raise InputRefused("PIXEL_MISSING", f"{header.name} has no pixel data.", _SEND_AGAIN)
        return
    if header.pixel_length is None:
        return
    wanted = 2 * (header.integer("Rows") or 0) * (header.integer("Columns") or 0) * number_of_frames(header)
    there = min(header.pixel_length, header.file_size - header.pixel_offset)
    if there < wanted:
        raise InputRefused(
            "PIXEL_TRUNCATED", f"{header.name} holds {there} of {wanted} bytes of pixel data.", _SEND_AGAIN
        )


def read_stored_values(frame: Frame, out: npt.NDArray[Any]) -> None:
    """Read one frame as it is stored.

    Args:
        frame: what to read.
        out: ``(rows, columns)`` of :func:`stored_format`'s type, C-contiguous; written.

    Raises:
        InputRefused: ``PIXEL_TRUNCATED``, ``PIXEL_UNDECODABLE``, ``INPUT_NO_PERMISSION``.
    """
    header = frame.header
    try:
        if header.pixel_offset is None or header.big_endian:
            out[...] = _through_pydicom(frame)
        elif header.pixel_length is None:
            out[...] = _decompressed(frame)
        else:
            _read_straight(frame, header.pixel_offset, out)
    except OSError as error:
        raise InputRefused(
            "INPUT_NO_PERMISSION",
            f"{frame.name} cannot be read: {error.strerror}.",
            "Check the file's rights.",
        ) from error


def _read_straight(frame: Frame, offset: int, out: npt.NDArray[Any]) -> None:
    with Path(frame.header.path).open("rb", buffering=0) as file:
        file.seek(offset + frame.number * out.nbytes)
        view = memoryview(out.data).cast("B")
        done = 0
        while done < out.nbytes:
            count = file.readinto(view[done:])
            if not count:
                raise InputRefused(
                    "PIXEL_TRUNCATED", f"{frame.name} ends inside its pixel data.", _SEND_AGAIN
                )
            done += count


def _decompressed(frame: Frame) -> npt.NDArray[Any]:
    header = frame.header
    frames = number_of_frames(header)
    try:
        with Path(header.path).open("rb") as file:
            file.seek(header.pixel_offset or 0)
            if frames == 1:
                data = file.read()
                _check_items(frame, data)
                code = get_frame(data, 0, number_of_frames=1)
            else:  # only the bytes of this frame are read
                code = get_frame(file, frame.number, number_of_frames=frames)
        if header.transfer_syntax != RLELossless and code.rstrip(b"\0")[-2:] != _END_OF_CODESTREAM:
            raise _truncated(frame)
        options: dict[str, Any] = {
            "rows": frame.rows,
            "columns": frame.columns,
            "number_of_frames": 1,
            "samples_per_pixel": 1,
            "photometric_interpretation": header.text("PhotometricInterpretation"),
            "bits_allocated": 16,
            "bits_stored": header.integer("BitsStored"),
            "pixel_representation": header.integer("PixelRepresentation") or 0,
            "pixel_keyword": "PixelData",
            "transfer_syntax_uid": UID(header.transfer_syntax),
        }
        decoder = get_decoder(UID(header.transfer_syntax))
        array, _ = decoder.as_array(encapsulate([code]), index=0, raw=True, **options)
    except (InputRefused, OSError):
        raise
    except Exception as error:  # the codecs raise whatever they like
        raise _undecodable(frame, error) from error
    if array.shape != (frame.rows, frame.columns):
        raise _undecodable(
            frame, ValueError(f"{array.shape} pixels instead of {(frame.rows, frame.columns)}")
        )
    return array


def _check_items(frame: Frame, data: bytes) -> None:
    """Walk over the items of encapsulated pixel data; codecs fill up what is cut off without saying so."""
    position = 0
    while position + 8 <= len(data):
        tag, length = (
            data[position : position + 4],
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        if tag == b"\xfe\xff\xdd\xe0":
            return
        if tag != b"\xfe\xff\x00\xe0":
            break
        position += 8 + length
        if position > len(data):
            break
    else:
        if position == len(data) and position:
            return  # the closing tag is missing, but every item is whole
    raise _truncated(frame)


def _truncated(frame: Frame) -> InputRefused:
    message = f"{frame.name} ends inside its compressed pixel data."
    return InputRefused("PIXEL_TRUNCATED", message, _SEND_AGAIN)


def _through_pydicom(frame: Frame) -> npt.NDArray[Any]:
    """Decode what is rare (deflated, big endian) the plain way."""
    try:
        dataset = pydicom.dcmread(frame.header.path, force=True)
        if "PixelData" not in dataset:
            raise InputRefused("PIXEL_MISSING", f"{frame.name} has no pixel data.", _SEND_AGAIN)
        return pydicom.pixels.pixel_array(dataset, index=frame.number, raw=True)
    except InputRefused:
        raise
    except Exception as error:  # zlib, struct and pydicom errors
        raise _undecodable(frame, error) from error


def _undecodable(frame: Frame, error: Exception) -> InputRefused:
    logger.debug("%s cannot be decoded: %s", frame.name, error)
    return InputRefused(
        "PIXEL_UNDECODABLE",
        f"The pixel data of {frame.name} cannot be decoded ({UID(frame.header.transfer_syntax).name}).",
        "Export the file again, uncompressed if possible.",
    )
