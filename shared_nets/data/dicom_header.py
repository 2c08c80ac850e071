"""The header of one DICOM file, read fast: only the tags that are used, never pixels."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("Modality", "ImageType", "SeriesNumber", "NumberOfFrames", "PatientID", "BurnedInAnnotation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "LossyImageCompression"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("PatientAge", "PatientSex", "BodyPartExamined", "SliceThickness", "KVP", "ConvolutionKernel"),
    *("ContrastBolusAgent", "Manufacturer", "GantryDetectorTilt"),
    *("ManufacturerModelName", "ProtocolName", "SeriesDescription"),
    *("PatientBirthDate", "StudyDate", "PatientSize", "PatientWeight"),
)
_TAG = {keyword: int(tag_for_keyword(keyword) or 0) for keyword in KEYWORDS}
_TAGS: list[BaseTag | int] = [Tag(tag) for tag in _TAG.values()]
_WANTED = {struct.pack("<HH", tag >> 16, tag & 0xFFFF): tag for tag in _TAG.values()}
_LONG_VR = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_PIXEL_DATA = 0x7FE00010
_PIXEL_KEY, _ITEM, _ITEM_END = b"\xe0\x7f\x10\x00", b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_UNDEFINED = 0xFFFFFFFF
_FIRST_READ, _LARGEST_READ = 1 << 14, 1 << 22  # bytes; most headers of single slices fit the first


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """The tags of :data:`KEYWORDS` as raw bytes, and where the pixel data lie.

    Attributes:
        path: the file.
        values: tag → raw value.
        big_endian: byte order of numbers and pixels.
        transfer_syntax: UID.
        pixel_offset: byte at which the value of Pixel Data starts; ``None`` when there are none, or when the
            file is deflated.
        pixel_length: bytes of pixel data, ``None`` when they are encapsulated (compressed).
        file_size: bytes.
    """

    path: str
    values: dict[int, bytes]
    big_endian: bool
    transfer_syntax: str
    pixel_offset: int | None
    pixel_length: int | None
    file_size: int

    @property
    def name(self) -> str:
        """The file's name without folders, for messages."""
        return Path(self.path).name

    @property
    def is_deflated(self) -> bool:
        """Whether everything after the file meta information is one deflated stream."""
        return self.transfer_syntax == DeflatedExplicitVRLittleEndian

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Give the values of a text tag, empty when it is missing."""
        raw = self.values.get(_TAG[keyword])
        if not raw:
            return ()
        text = raw.decode("utf-8", errors="replace").strip(" \0")
        return tuple(part.strip(" \0") for part in text.split("\\")) if text else ()

    def text(self, keyword: str) -> str:
        """Give the first value of a text tag, or an empty string."""
        return next(iter(self.texts(keyword)), "")

    def text_upper(self, keyword: str) -> str:
        """Give all values of a text tag as one upper-case string, backslashes kept."""
        return self.values.get(_TAG[keyword], b"").decode("utf-8", errors="replace").upper()

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Give the values of a DS or IS tag of any length; empty when missing or not numbers."""
        try:
            return tuple(float(text) for text in self.texts(keyword))
        except ValueError:
            return ()

    def integer(self, keyword: str, *, signed: bool = False) -> int | None:
        """Give the first value of a US or SS tag, or ``None``."""
        raw = self.values.get(_TAG[keyword])
        if raw is None or len(raw) < 2:
            return None
        return int.from_bytes(raw[:2], "big" if self.big_endian else "little", signed=signed)


def read_header(path: str) -> DicomHeader | None:
    """Read one header without touching the pixels.

    Args:
        path: a file.

    Returns:
        The header, or ``None`` when the file is not DICOM.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file starts as DICOM but cannot be understood.
    """
    with Path(path).open("rb", buffering=0) as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(_FIRST_READ)
        if head[128:132] != b"DICM" and not _looks_headless(head):
            return None
        header = _scan(path, head, size)
        if header is None and len(head) < min(size, _LARGEST_READ):
            file.seek(0)
            header = _scan(path, file.read(_LARGEST_READ), size)
        return header if header is not None else read_header_with_pydicom(path)


def read_header_with_pydicom(path: str) -> DicomHeader:
    """Read one header through pydicom: the plain twin of the fast scan, and the way for unusual files.

    Args:
        path: a DICOM file.

    Returns:
        The header.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file cannot be understood.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            dataset = read_partial(file, _at_pixels, force=True, specific_tags=_TAGS)
        except (InvalidDicomError, EOFError, struct.error, NotImplementedError, KeyError, TypeError) as error:
            raise ValueError(f"{Path(path).name} is damaged: {error}") from error
        values = {}
        for tag in _TAG.values():
            raw = dataset.get_item(tag) if tag in dataset else None
            if raw is not None and isinstance(raw.value, bytes) and raw.value:
                values[tag] = raw.value
        syntax = str(getattr(dataset.file_meta, "TransferSyntaxUID", ImplicitVRLittleEndian))
        offset, length = None, None
        if syntax != DeflatedExplicitVRLittleEndian:
            offset, length = _pixel_element(
                file, implicit=dataset.original_encoding[0] is not False, syntax=syntax
            )
    return DicomHeader(path, values, syntax == ExplicitVRBigEndian, syntax, offset, length, size)


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag == _PIXEL_DATA


def _pixel_element(file: BinaryIO, *, implicit: bool, syntax: str) -> tuple[int | None, int | None]:
    start = file.tell()
    head = file.read(12)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    if len(head) < 8 or struct.unpack_from(order + "HH", head) != (_PIXEL_DATA >> 16, _PIXEL_DATA & 0xFFFF):
        return None, None
    at = 4 if implicit else 8
    (length,) = struct.unpack_from(order + "I", head, at)
    return start + at + 4, None if length == _UNDEFINED else length


def _looks_headless(head: bytes) -> bool:
    """Tell a DICOM data set without the 128-byte preamble: it starts with a tag of group 2 or 8."""
    return (
        len(head) > 8 and head[:2] in (b"\x02\x00", b"\x08\x00") and head[2:4] < b"\x20\x00" and head[1] == 0
    )


def _scan(path: str, data: bytes, size: int) -> DicomHeader | None:
    """Walk over little-endian elements; ``None`` means "read more, or let pydicom do it"."""
    if data[128:132] != b"DICM":
        return None
    try:
        meta: dict[int, bytes] = {}
        position, syntax = 132, ""
        while data[position : position + 2] == b"\x02\x00":
            key, start, length = _element(data, position, implicit=False)
            if key == b"\x02\x00\x10\x00":
                syntax = data[start : start + length].rstrip(b"\0 ").decode("ascii")
            position = start + length
        if position < size and syntax in ("", DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
            return None
        implicit = syntax == ImplicitVRLittleEndian
        while position < size:
            key, start, length = _element(data, position, implicit=implicit)
            if key == _PIXEL_KEY:
                return DicomHeader(
                    path, meta, False, syntax, start, None if length == _UNDEFINED else length, size
                )
            if length == _UNDEFINED:
                position = _after_sequence(data, start, implicit=implicit)
                continue
            position = start + length
            if length and key in _WANTED:
                if position > len(data):
                    break
                meta[_WANTED[key]] = data[start:position]
    except (_Unusual, UnicodeDecodeError):
        return None
    except struct.error:
        position = size + 1  # the header is longer than what was read
    if position > size and len(data) == size:
        raise ValueError(f"{Path(path).name} ends inside its header")
    return DicomHeader(path, meta, False, syntax, None, None, size) if position == size else None


def _element(data: bytes, position: int, *, implicit: bool) -> tuple[bytes, int, int]:
    """Give an element's tag as bytes, where its value starts, and its length."""
    key = data[position : position + 4]
    if implicit or key[:2] == b"\xfe\xff":
        return key, position + 8, _UINT32(data, position + 4)[0]
    if data[position + 4 : position + 6] in _LONG_VR:
        return key, position + 12, _UINT32(data, position + 8)[0]
    return key, position + 8, _UINT16(data, position + 6)[0]


_UINT32 = struct.Struct("<I").unpack_from
_UINT16 = struct.Struct("<H").unpack_from


class _Unusual(Exception):
    """A header that the scan does not follow, but pydicom may."""


def _after_sequence(data: bytes, position: int, *, implicit: bool) -> int:
    """Walk over a sequence of undefined length."""
    while True:
        key, start, length = _element(data, position, implicit=implicit)
        if key == _SEQUENCE_END:
            return start
        if key != _ITEM:
            raise _Unusual
        position = _after_item(data, start, implicit=implicit) if length == _UNDEFINED else start + length


def _after_item(data: bytes, position: int, *, implicit: bool) -> int:
    while True:
        key, start, length = _element(data, position, implicit=implicit)
        if key == _ITEM_END:
            return start
        position = _after_sequence(data, start, implicit=implicit) if length == _UNDEFINED else start + length
