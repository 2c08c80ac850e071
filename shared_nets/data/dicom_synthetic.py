"""A small synthetic CT series, sound in every respect; the start of every synthetic defect and test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

COLUMNS, ROWS, SLICES = 40, 32, 12  # JPEG 2000 wants at least 32
SPACING_MM = (0.8, 0.8, 2.0)
ORIGIN_LPS_MM = (-12.0, -9.0, 100.0)
INTERCEPT = -1024
_UID_ROOT = "1.2.826.0.1.3680043.8.498.7"  # pydicom's root for examples
STUDY_UID, SERIES_UID, FRAME_UID = f"{_UID_ROOT}.1", f"{_UID_ROOT}.2", f"{_UID_ROOT}.3"


def synthetic_hounsfield(slices: int = SLICES) -> npt.NDArray[np.int16]:
    """Make a volume in which every value tells its place.

    Args:
        slices: number of slices.

    Returns:
        ``(I, J, K)`` int16: ``-1000 + 100 k + 3 j + i`` HU.
    """
    i, j, k = np.ogrid[:COLUMNS, :ROWS, :slices]
    return (-1000 + 100 * k + 3 * j + i).astype(np.int16)


def synthetic_series(slices: int = SLICES) -> list[Dataset]:
    """Make the data sets of a sound axial series, one per slice, from feet to head.

    Args:
        slices: number of slices.

    Returns:
        Data sets that :func:`write_series` writes.
    """
    volume = synthetic_hounsfield(slices)
    return [_slice(k, volume[:, :, k].T) for k in range(slices)]  # rows first, as DICOM stores them


def set_pixels(dataset: Dataset, stored: npt.NDArray[Any]) -> None:
    """Put stored values into a data set.

    Args:
        dataset: changed.
        stored: ``(rows, columns)`` or ``(frames, rows, columns)`` of 16-bit integers.
    """
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(stored).tobytes()


def get_pixels(dataset: Dataset) -> npt.NDArray[Any]:
    """Take the stored values out of an uncompressed little-endian data set.

    Args:
        dataset: of one slice.

    Returns:
        ``(rows, columns)``, a copy.
    """
    kind = "<i2" if dataset.PixelRepresentation else "<u2"
    return np.frombuffer(dataset.PixelData, dtype=kind).reshape(dataset.Rows, dataset.Columns).copy()


def write_series(folder: Path, series: Sequence[Dataset], *, syntax: str = ExplicitVRLittleEndian) -> None:
    """Write data sets as DICOM files ``IM0001.dcm`` … in the order given.

    Args:
        folder: made when it is not there.
        series: data sets.
        syntax: transfer syntax UID; compressed ones are encoded by pydicom's plugins.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(series, start=1):
        write_file(folder / f"IM{number:04d}.dcm", dataset, syntax=syntax)


def write_file(
    path: Path, dataset: Dataset, *, syntax: str = ExplicitVRLittleEndian, is_encoded: bool = False
) -> None:
    """Write one data set as a DICOM file.

    Args:
        path: of the new file.
        dataset: what to write; it may become compressed.
        syntax: transfer syntax UID.
        is_encoded: whether the pixel data are already encoded in this syntax.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CTImageStorage)
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", f"{_UID_ROOT}.9")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    with disable_value_validation():
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, dtype="<u2").astype(">u2").tobytes()
            meta.TransferSyntaxUID = UID(syntax)
            dataset.save_as(path, implicit_vr=False, little_endian=False, enforce_file_format=True)
            return
        if _is_compressed(syntax) and not is_encoded:
            dataset.compress(syntax, generate_instance_uid=False)
        meta.TransferSyntaxUID = UID(syntax)
        dataset.save_as(
            path,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=True,
            enforce_file_format=True,
        )


def enhanced_ct(slices: int = SLICES, *, order: Sequence[int] | None = None) -> Dataset:
    """Make the same volume as one Enhanced multi-frame CT.

    Args:
        slices: number of frames.
        order: the slices in stored order; from feet to head by default.

    Returns:
        The data set.
    """
    single = synthetic_series(slices)
    order = list(range(slices)) if order is None else list(order)
    dataset = Dataset()
    for keyword in (
        *("PatientName", "PatientID", "PatientAge", "PatientSex", "StudyInstanceUID", "SeriesInstanceUID"),
        *("FrameOfReferenceUID", "Modality", "SeriesNumber", "Manufacturer", "ImageType"),
        *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    ):
        setattr(dataset, keyword, single[0][keyword].value)
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedCTImageStorage, f"{_UID_ROOT}.8"
    dataset.InstanceNumber, dataset.NumberOfFrames = 1, slices
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=single[0].PixelSpacing, SliceThickness=SPACING_MM[2])]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=single[0].ImageOrientationPatient)]
    shared.PixelValueTransformationSequence = [
        _item(RescaleSlope=1, RescaleIntercept=INTERCEPT, RescaleType="HU")
    ]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = [_item(ImagePositionPatient=single[k].ImagePositionPatient)]
        frame.CTImageFrameTypeSequence = [_item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    set_pixels(dataset, np.stack([get_pixels(single[k]) for k in order]))
    return dataset


def _slice(k: int, hounsfield: npt.NDArray[np.int16]) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"{_UID_ROOT}.4.{k + 1}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY_UID, SERIES_UID
    dataset.FrameOfReferenceUID = FRAME_UID
    dataset.PatientName, dataset.PatientID = "Synthetic^Person", "SYNTHETIC-1"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "", "F", "061Y"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber, dataset.StudyID = "", "", "", ""
    dataset.ReferringPhysicianName, dataset.PatientPosition = "", "HFS"
    dataset.Modality, dataset.Manufacturer, dataset.BodyPartExamined = "CT", "Synthetic", "ABDOMEN"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 2, k + 1, 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.KVP, dataset.SliceThickness, dataset.ConvolutionKernel = "120", SPACING_MM[2], "B30f"
    dataset.ImagePositionPatient = [*ORIGIN_LPS_MM[:2], ORIGIN_LPS_MM[2] + SPACING_MM[2] * k]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [SPACING_MM[1], SPACING_MM[0]]  # between rows, between columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, INTERCEPT, "HU"
    set_pixels(dataset, (hounsfield - INTERCEPT).astype("<u2"))
    return dataset


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _is_compressed(syntax: str) -> bool:
    return syntax.startswith(("1.2.840.10008.1.2.4", "1.2.840.10008.1.2.5"))
