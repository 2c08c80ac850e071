"""DICOM headers → frames: one record per slice, whether it has its own file or lies in a multi-frame file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset

from shared_nets.data.dicom_header import DicomHeader
from shared_nets.refusals import InputRefused

ENHANCED_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One slice: where it lies, how its stored values become Hounsfield units, and where its bytes are.

    Attributes:
        header: of the file that holds it.
        number: of the frame within the file, from 0.
        sop_uid: SOP instance UID of the file.
        image_type: DICOM's Image Type (or Frame Type).
        position: Image Position (Patient) in mm, LPS; empty when missing.
        orientation: Image Orientation (Patient); empty when missing.
        spacing: Pixel Spacing (between rows, between columns) in mm; empty when missing.
        columns: pixels in a row.
        rows: rows.
        slope: Rescale Slope, ``nan`` when missing.
        intercept: Rescale Intercept, ``nan`` when missing.
        rescale_type: ``HU`` where the file says so.
    """

    header: DicomHeader
    number: int
    sop_uid: str
    image_type: tuple[str, ...]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    columns: int
    rows: int
    slope: float
    intercept: float
    rescale_type: str

    @property
    def name(self) -> str:
        """The file's name, and the frame's number in a multi-frame file."""
        return (
            self.header.name
            if number_of_frames(self.header) == 1
            else f"{self.header.name}[{self.number + 1}]"
        )

    @property
    def is_localizer(self) -> bool:
        """Whether the file calls itself a localizer (scout, topogram)."""
        return any(word in ("LOCALIZER", "SCOUT", "TOPOGRAM") for word in self.image_type)


def number_of_frames(header: DicomHeader) -> int:
    """Give the number of frames in a file; 1 for a single-frame image.

    Args:
        header: of the file.

    Returns:
        At least 1.
    """
    numbers = header.numbers("NumberOfFrames")
    return max(int(numbers[0]), 1) if numbers and math.isfinite(numbers[0]) else 1


def frames_of(header: DicomHeader) -> list[Frame]:
    """List the frames of one file.

    Args:
        header: of an image file.

    Returns:
        One frame for a single-frame image, else one per frame in stored order.

    Raises:
        InputRefused: a multi-frame file without the frames' own headers (``GEOMETRY_NOT_A_VOLUME``), or a
            damaged one (``INPUT_UNREADABLE``).
    """
    if header.text("SOPClassUID") in ENHANCED_CLASSES:
        return list(_enhanced_frames(header))
    if number_of_frames(header) > 1:
        raise InputRefused(
            "GEOMETRY_NOT_A_VOLUME",
            f"{header.name} holds {number_of_frames(header)} frames but does not say where each lies.",
            "Export the series as single CT slices or as Enhanced CT.",
        )
    return [
        Frame(
            header=header,
            number=0,
            sop_uid=header.text("SOPInstanceUID"),
            image_type=tuple(word.upper() for word in header.texts("ImageType")),
            position=header.numbers("ImagePositionPatient"),
            orientation=header.numbers("ImageOrientationPatient"),
            spacing=header.numbers("PixelSpacing"),
            columns=header.integer("Columns") or 0,
            rows=header.integer("Rows") or 0,
            slope=_first(header.numbers("RescaleSlope")),
            intercept=_first(header.numbers("RescaleIntercept")),
            rescale_type=header.text("RescaleType").upper(),
        )
    ]


def _enhanced_frames(header: DicomHeader) -> Iterator[Frame]:
    try:
        dataset = pydicom.dcmread(header.path, stop_before_pixels=True)
        per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
        shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
        if len(per_frame) != number_of_frames(header):
            raise ValueError(f"{number_of_frames(header)} frames, but {len(per_frame)} frame headers")
        for number, groups in enumerate(per_frame):
            both = [groups, *shared]
            value = _macro(both, "PixelValueTransformationSequence")
            kind = _macro(both, "CTImageFrameTypeSequence")
            yield Frame(
                header=header,
                number=number,
                sop_uid=header.text("SOPInstanceUID"),
                image_type=tuple(str(word).upper() for word in _values(kind, "FrameType"))
                or header.texts("ImageType"),
                position=_floats(_macro(both, "PlanePositionSequence"), "ImagePositionPatient"),
                orientation=_floats(_macro(both, "PlaneOrientationSequence"), "ImageOrientationPatient"),
                spacing=_floats(_macro(both, "PixelMeasuresSequence"), "PixelSpacing"),
                columns=header.integer("Columns") or 0,
                rows=header.integer("Rows") or 0,
                slope=_first(_floats(value, "RescaleSlope")),
                intercept=_first(_floats(value, "RescaleIntercept")),
                rescale_type=str(value.get("RescaleType", "")).upper() if value is not None else "",
            )
    except (ValueError, TypeError, EOFError, AttributeError) as error:
        raise InputRefused(
            "INPUT_UNREADABLE",
            f"The frame headers of {header.name} cannot be read: {error}.",
            "Export the series again.",
        ) from error


def _macro(groups: Sequence[Dataset], keyword: str) -> Dataset | None:
    """Find the first item of a functional group, per frame before shared."""
    for group in groups:
        sequence = group.get(keyword)
        if sequence:
            return sequence[0]
    return None


def _values(item: Dataset | None, keyword: str) -> tuple[object, ...]:
    value = item.get(keyword) if item is not None else None
    if value is None or value == "":
        return ()
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _floats(item: Dataset | None, keyword: str) -> tuple[float, ...]:
    return tuple(float(str(value)) for value in _values(item, keyword))


def _first(numbers: tuple[float, ...]) -> float:
    return numbers[0] if numbers else math.nan
