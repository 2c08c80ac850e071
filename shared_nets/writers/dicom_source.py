"""The source series of a result as DICOM objects must know it: its UIDs, its grid, and whose study it is.

The objects written beside a result belong to the patient and the study of the source, so names and IDs are
read here and carried over. They never reach a log or a message, and are kept apart from what highdicom is
given, because highdicom logs a name that looks odd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DermoscopicPhotographyImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    VLPhotographicImageStorage,
)

from shared_nets.types import SourceImage

#: SOP classes that results can refer to.
SINGLE_FRAME_CLASSES = frozenset({CTImageStorage})
MULTI_FRAME_CLASSES = frozenset({EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})
#: Photographs: one image, which lies nowhere in the patient's coordinates.
PHOTOGRAPH_CLASSES = frozenset(
    {
        VLPhotographicImageStorage,
        DermoscopicPhotographyImageStorage,
        SecondaryCaptureImageStorage,
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_POSITION_DIGITS, _DIRECTION_DIGITS = 6, 10  # what is left after rounding is exact in files that round less
_OF_THE_STUDY = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_UIDS = (*_OF_THE_STUDY, "SOPClassUID", "SOPInstanceUID")
_EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")
_COPIED = ("Modality", "Rows", "Columns", "NumberOfFrames", "PositionReferenceIndicator", *_EQUIPMENT)
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_PERSONAL = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
_OF_FRAMES = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")  # not used, and long
_NOWHERE_VOXELS = 1e6  # far outside any scan


class NotReferable(ValueError):
    """DICOM objects cannot refer to this source; the message says why."""


@dataclass(frozen=True, kw_only=True)
class DicomSource:
    """A source series to which new DICOM objects refer.

    Attributes:
        images: headers without anything personal, on the grid of the result: one per slice along k, or the
            one multi-frame image or photograph.
        frame_numbers: number of each slice within its image, from 1.
        header: the first header, with the person's and the study's attributes.
    """

    images: tuple[Dataset, ...]
    frame_numbers: tuple[int, ...]
    header: Dataset = field(repr=False)

    @property
    def is_multi_frame(self) -> bool:
        """Whether one image holds all slices."""
        return self.images[0].SOPClassUID in MULTI_FRAME_CLASSES

    @property
    def is_photograph(self) -> bool:
        """Whether the source is one photograph, without a frame of reference."""
        return self.images[0].SOPClassUID in PHOTOGRAPH_CLASSES

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return str(self.images[0].SeriesInstanceUID)

    def image_of(self, k: int) -> tuple[Dataset, int | None]:
        """Give the image that holds slice ``k``, and the frame's number where the image has several."""
        return (self.images[0], self.frame_numbers[k]) if self.is_multi_frame else (self.images[k], None)


def read_dicom_source(source: SourceImage) -> DicomSource:
    """Read the headers of a source series.

    Args:
        source: the image; it names the file of each slice.

    Returns:
        The series.

    Raises:
        NotReferable: the image is not DICOM, its UIDs are missing, damaged or used twice, it is neither
            a CT nor one photograph, or it consists of several multi-frame files.
        OSError: a file cannot be read any more.
    """
    if not source.is_dicom:
        raise NotReferable("the source is not DICOM")
    paths = list(dict.fromkeys(source.files))
    with disable_value_validation():  # what is wrong in the source is the source's; warnings would quote it
        first = pydicom.dcmread(paths[0], stop_before_pixels=True, force=True)
        _decode(first)
        others = [
            pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=[*_UIDS, *_LOSSY])
            for path in paths[1:]
        ]
        headers = [first, *others]
        _check(headers, num_slices=len(source.files))
        images = [_image(first, header) for header in headers]
    if first.SOPClassUID in PHOTOGRAPH_CLASSES:
        return DicomSource(images=tuple(images), frame_numbers=source.frame_numbers, header=first)
    for image in images:
        _set_geometry(image, first, source)
    if first.SOPClassUID in MULTI_FRAME_CLASSES:
        _set_frames(images[0], source)
    else:
        for k, image in enumerate(images):
            image.ImagePositionPatient = slice_position_mm(source.affine, k)
    return DicomSource(images=tuple(images), frame_numbers=source.frame_numbers, header=first)


def slice_position_mm(affine: npt.NDArray[np.float64], k: float) -> list[float]:
    """Give the place of the first pixel of slice ``k`` as DICOM wants it.

    Args:
        affine: voxel index → RAS mm, ``(4, 4)``.
        k: slice number.

    Returns:
        Image Position (Patient): x, y, z in LPS mm.
    """
    position = _LPS_TO_RAS @ affine @ [0.0, 0.0, k, 1.0]
    return [_plain(value, _POSITION_DIGITS) for value in position[:3]]


def image_spacing_mm(affine: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Give the distances of voxels along i, j and k, mm."""
    i, j, k = (_plain(value, _POSITION_DIGITS) for value in np.linalg.norm(affine[:3, :3], axis=0))
    return i, j, k


def _decode(dataset: Dataset) -> None:
    """Turn the bytes of every element into a value; what cannot be understood is left out."""
    for keyword in _OF_FRAMES:
        dataset.pop(keyword, None)
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:  # pydicom raises many kinds for damaged values
            del dataset[tag]
            continue
        for item in element.value if element.VR == "SQ" else ():
            _decode(item)


def _check(headers: Sequence[Dataset], *, num_slices: int) -> None:
    photographs = [header.get("SOPClassUID") in PHOTOGRAPH_CLASSES for header in headers]
    needed = [uid for uid in _UIDS if uid != "FrameOfReferenceUID" or not all(photographs)]
    if any(not UID(str(header.get(keyword, ""))).is_valid for header in headers for keyword in needed):
        raise NotReferable(f"the source must have valid {', '.join(needed)}")
    if all(photographs):
        if len(headers) > 1:
            raise NotReferable("the source is neither one kind of CT image nor one photograph")
        return
    if any(len({header[keyword].value for header in headers}) > 1 for keyword in _OF_THE_STUDY):
        raise NotReferable("the source images do not belong to one series")
    if len({header.SOPInstanceUID for header in headers}) < len(headers):
        raise NotReferable("two source images have the same SOPInstanceUID")
    classes = {header.SOPClassUID for header in headers}
    if len(classes) > 1 or not classes <= SINGLE_FRAME_CLASSES | MULTI_FRAME_CLASSES:
        raise NotReferable("the source is not one kind of CT image")
    if len(headers) != (1 if classes <= MULTI_FRAME_CLASSES else num_slices):
        raise NotReferable("the source consists of several multi-frame images")


def _image(first: Dataset, header: Dataset) -> Dataset:
    """Make a header that holds what new objects take from an image, and nobody's name."""
    image = Dataset()
    for keyword in _UIDS:
        if keyword in header:
            setattr(image, keyword, str(header[keyword].value))
    for keyword in (*_COPIED, *_LOSSY):
        element = (header if keyword in _LOSSY else first).get(keyword)
        if element is not None and element != "":
            setattr(image, keyword, element)
    for keyword in _PERSONAL:
        setattr(image, keyword, "")
    return image


def _set_geometry(image: Dataset, first: Dataset, source: SourceImage) -> None:
    """Say how the slices lie."""
    axes = _LPS_TO_RAS[:3, :3] @ source.affine[:3, :2] / np.linalg.norm(source.affine[:3, :2], axis=0)
    between_columns, between_rows, between_slices = image_spacing_mm(source.affine)
    image.ImageOrientationPatient = [_plain(value, _DIRECTION_DIGITS) for value in axes.T.ravel()]
    image.PixelSpacing = [between_rows, between_columns]
    image.SpacingBetweenSlices = between_slices
    image.SliceThickness = _thickness_mm(first) or between_slices


def _thickness_mm(header: Dataset) -> float | None:
    try:
        thickness = float(header.get("SliceThickness") or 0.0)
    except (TypeError, ValueError):
        return None
    return thickness if 0.0 < thickness < math.inf else None


def _set_frames(image: Dataset, source: SourceImage) -> None:
    """Say for a multi-frame image where its frames lie; those that the grid leaves out lie nowhere near."""
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    for keyword in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"):
        measures[keyword] = image[keyword]
        del image[keyword]
    orientation["ImageOrientationPatient"] = image["ImageOrientationPatient"]
    del image["ImageOrientationPatient"]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    image.SharedFunctionalGroupsSequence = [shared]
    number_of_frames = max(int(image.get("NumberOfFrames", 1)), *source.frame_numbers)
    slice_of = {number: k for k, number in enumerate(source.frame_numbers)}
    frames = []
    for number in range(1, number_of_frames + 1):
        frame, position = Dataset(), Dataset()
        k = slice_of.get(number, _NOWHERE_VOXELS + number)
        position.ImagePositionPatient = slice_position_mm(source.affine, k)
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    image.NumberOfFrames = number_of_frames
    image.PerFrameFunctionalGroupsSequence = frames


def _plain(value: float, digits: int) -> float:
    """Round to what a decimal string holds, and keep zero unsigned."""
    return round(float(value), digits) + 0.0
