"""DICOM photographs (VL Photographic, Dermoscopic, Secondary Capture) → one sRGB photograph."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.uid import UID, RLELossless

from shared_nets.data.dicom_header import DicomHeader
from shared_nets.data.dicom_person import person_facts
from shared_nets.data.photograph import (
    ByteArray,
    Notes,
    Photograph,
    PhotographOptions,
    check_megapixels,
    note_grey,
    to_eight_bits,
    to_srgb,
)
from shared_nets.refusals import InputRefused

logger = logging.getLogger(__name__)

#: SOP classes that hold photographs.
PHOTOGRAPH_CLASSES = frozenset(
    (
        "1.2.840.10008.5.1.4.1.1.77.1.4",  # VL Photographic Image
        "1.2.840.10008.5.1.4.1.1.77.1.7",  # Dermoscopic Photography
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
        "1.2.840.10008.5.1.4.1.1.7.2",  # its multi-frame kinds: grey in 8 bits,
        "1.2.840.10008.5.1.4.1.1.7.3",  # grey in 16 bits,
        "1.2.840.10008.5.1.4.1.1.7.4",  # true colour
    )
)
#: What a photograph of skin calls itself: external camera, dermoscopy, other, secondary capture.
MODALITIES = frozenset(("XC", "DMS", "OT", "SC"))
_FACTS = ("BodyPartExamined", "Manufacturer", "ManufacturerModelName")
_GIVE_PHOTOGRAPH = "Give a photograph of the lesion."
_SEND_AGAIN = "Copy or export the file again; the transfer seems to have been cut off."
_EXPORT_AGAIN = "Export the file again, uncompressed if possible."
_END_OF_CODESTREAM = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000


def read_dicom_photograph(header: DicomHeader, options: PhotographOptions) -> Photograph:
    """Read one DICOM photograph.

    Args:
        header: of the file.
        options: what is accepted.

    Returns:
        The photograph; ``header`` still lacks the sha256.

    Raises:
        InputRefused: ``WRONG_MODALITY``, ``IMAGE_…`` or ``PIXEL_…``.
    """
    notes = Notes()
    _check_kind(header, notes)
    _check_burned_in(header, options, notes)
    rows, columns = header.integer("Rows") or 0, header.integer("Columns") or 0
    check_megapixels(header.name, rows, columns, options)
    frames = header.numbers("NumberOfFrames")
    if frames and frames[0] > 1:
        raise InputRefused(
            "IMAGE_SEVERAL_FRAMES",
            f"{header.name} holds {frames[0]:.0f} pictures.",
            "Give one picture a file.",
        )
    _check_length(header, rows, columns)
    dataset, stored = _stored_values(header)
    colours = _as_bytes(dataset, stored, header, notes)
    profile = dataset.get("ICCProfile")
    image = to_srgb(Image.fromarray(colours), bytes(profile) if profile else None, notes, header.name)
    pixels = np.array(image)  # (H, W, 3)
    note_grey(pixels, notes, header.name)
    if not (header.text("SOPInstanceUID") and header.text("SeriesInstanceUID")):
        notes.warn(
            "SERIES_NO_UID", "SOP or series instance UIDs are missing; results cannot refer to the image."
        )
    facts = {keyword: header.text(keyword) for keyword in _FACTS if header.text(keyword)}
    return Photograph(
        pixels=pixels,
        source="dicom",
        header={
            "format": "DICOM",
            "stored_shape": [rows, columns],
            "sop_class_uid": header.text("SOPClassUID"),
            "transfer_syntax_uid": header.transfer_syntax,
            "is_lossy": header.text("LossyImageCompression") == "01",
            **person_facts(header),
            **facts,
        },
        files=(header.path,),
        study_uid=header.text("StudyInstanceUID"),
        series_uid=header.text("SeriesInstanceUID"),
        sop_uid=header.text("SOPInstanceUID"),
        modality=header.text("Modality"),
        repairs=tuple(notes.repairs),
        warnings=tuple(notes.warnings),
    )


def _check_kind(header: DicomHeader, notes: Notes) -> None:
    modality, kind = header.text("Modality").upper(), header.text("SOPClassUID")
    if modality and modality not in MODALITIES:
        raise InputRefused(
            "WRONG_MODALITY",
            f"{header.name} says that it is {modality}, not a photograph ({', '.join(sorted(MODALITIES))}).",
            _GIVE_PHOTOGRAPH,
        )
    if kind not in PHOTOGRAPH_CLASSES:
        what = UID(kind).name if kind else "an object without a class"
        raise InputRefused("WRONG_MODALITY", f"{header.name} is {what}, not a photograph.", _GIVE_PHOTOGRAPH)
    if not modality:
        notes.warn("MODALITY_MISSING", f"{header.name} does not say what made it (Modality).")


def _check_burned_in(header: DicomHeader, options: PhotographOptions, notes: Notes) -> None:
    if header.text("BurnedInAnnotation").upper() != "YES":
        return
    message = f"Text is burned into the pixels, says BurnedInAnnotation of {header.name}."
    if options.burned_in == "refuse":
        raise InputRefused("PIXEL_BURNED_IN_ANNOTATION", message, "Give the photograph without text.")
    notes.warn("PIXEL_BURNED_IN_ANNOTATION", message)


def _check_length(header: DicomHeader, rows: int, columns: int) -> None:
    """Find missing or short pixel data; codecs fill up what is cut off without saying so."""
    if header.pixel_offset is None:
        if not header.is_deflated:
            raise InputRefused("PIXEL_MISSING", f"{header.name} has no pixel data.", _SEND_AGAIN)
        return
    if header.pixel_length is None:
        _check_codestream(header)
        return
    samples = header.integer("SamplesPerPixel") or 1
    if header.text("PhotometricInterpretation") == "YBR_FULL_422":
        samples = 2  # chroma is stored for every second pixel
    wanted = rows * columns * samples * (header.integer("BitsAllocated") or 8) // 8
    there = min(header.pixel_length, header.file_size - header.pixel_offset)
    if there < wanted:
        message = f"{header.name} holds {there} of {wanted} bytes of pixel data."
        raise InputRefused("PIXEL_TRUNCATED", message, _SEND_AGAIN)


def _check_codestream(header: DicomHeader) -> None:
    with Path(header.path).open("rb") as file:
        file.seek(header.pixel_offset or 0)
        data = file.read()
    try:
        code = get_frame(data, 0, number_of_frames=1)
    except Exception as error:  # pydicom raises many kinds for damaged items
        raise _undecodable(header, error) from error
    is_whole = header.transfer_syntax == RLELossless or code.rstrip(b"\0").endswith(_END_OF_CODESTREAM)
    if not is_whole:
        message = f"{header.name} ends inside its compressed pixel data."
        raise InputRefused("PIXEL_TRUNCATED", message, _SEND_AGAIN)


def _stored_values(header: DicomHeader) -> tuple[Dataset, npt.NDArray[Any]]:
    """Decode the pixels; YBR becomes RGB, planes become interleaved."""
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")  # they may quote what must not be quoted
            dataset = pydicom.dcmread(io.BytesIO(Path(header.path).read_bytes()), force=True)
            return dataset, pixel_array(dataset, index=0)
    except Exception as error:  # the codecs raise whatever they like
        raise _undecodable(header, error) from error


def _as_bytes(dataset: Dataset, stored: npt.NDArray[Any], header: DicomHeader, notes: Notes) -> ByteArray:
    """Give ``(H, W, 3)``, or ``(H, W)`` for grey."""
    meaning = header.text("PhotometricInterpretation")
    bits = header.integer("BitsStored") or 8
    if meaning == "PALETTE COLOR":
        try:
            looked_up = apply_color_lut(stored, dataset)
        except Exception as error:  # a table that is missing or too short
            raise _undecodable(header, error) from error
        notes.repaired("IMAGE_PALETTE", f"The colours of {header.name} were looked up in its palette.")
        return to_eight_bits(looked_up, 255 if looked_up.dtype == np.uint8 else 65535)
    if (stored.ndim == 3) != (meaning not in ("MONOCHROME1", "MONOCHROME2")) or bits > 16:
        raise InputRefused(
            "PIXEL_FORMAT_UNSUPPORTED",
            f"{header.name} stores samples of {bits} bits as {meaning or 'unknown'}.",
            "Export the photograph in RGB with 8 bits.",
        )
    values = stored.astype(np.int32)
    if header.integer("PixelRepresentation") == 1:
        values += 1 << bits - 1
    if bits != 8:
        notes.repaired("IMAGE_16_BIT", f"The {bits} bits of {header.name} were scaled to 8.")
    out = to_eight_bits(values.clip(0, None), (1 << bits) - 1)
    if meaning == "MONOCHROME1":
        notes.repaired("PIXEL_MONOCHROME1", "The stored values were inverted (MONOCHROME1).")
        out = np.uint8(255) - out
    return out


def _undecodable(header: DicomHeader, error: Exception) -> InputRefused:
    logger.debug("%s cannot be decoded: %s", header.name, type(error).__name__)
    return InputRefused(
        "PIXEL_UNDECODABLE",
        f"The pixel data of {header.name} cannot be decoded ({UID(header.transfer_syntax).name}).",
        _EXPORT_AGAIN,
    )
