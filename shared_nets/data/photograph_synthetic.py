"""A small synthetic photograph in which every pixel tells its place, and the same as DICOM."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from shared_nets.data.dicom_synthetic import write_file

ROWS, COLUMNS = 48, 64
VL_PHOTOGRAPH = "1.2.840.10008.5.1.4.1.1.77.1.4"
DERMOSCOPY = "1.2.840.10008.5.1.4.1.1.77.1.7"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
TRUE_COLOUR_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.4"
_UID_ROOT = "1.2.826.0.1.3680043.8.498.9"  # pydicom's root for examples


def synthetic_photograph(rows: int = ROWS, columns: int = COLUMNS) -> npt.NDArray[np.uint8]:
    """Make a picture whose red tells the row, and whose green tells the column.

    Args:
        rows: at most 62.
        columns: at most 84.

    Returns:
        ``(H, W, 3)`` uint8: ``4 row + 5``, ``3 column + 2``, 90.
    """
    row, column = np.mgrid[:rows, :columns]
    return np.stack([4 * row + 5, 3 * column + 2, np.full_like(row, 90)], axis=-1).astype(np.uint8)


def dicom_photograph(pixels: npt.NDArray[np.uint8] | None = None, *, sop_class: str = DERMOSCOPY) -> Dataset:
    """Make a DICOM photograph in RGB.

    Args:
        pixels: ``(H, W, 3)`` uint8; :func:`synthetic_photograph` by default.
        sop_class: UID of its kind.

    Returns:
        A data set that :func:`shared_nets.data.dicom_synthetic.write_file` writes.
    """
    pixels = synthetic_photograph() if pixels is None else pixels
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, f"{_UID_ROOT}.4.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{_UID_ROOT}.1", f"{_UID_ROOT}.2"
    dataset.PatientName, dataset.PatientID = "Synthetic^Person", "SYNTHETIC-1"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "", "F", "061Y"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber, dataset.StudyID = "", "", "", ""
    dataset.ReferringPhysicianName, dataset.Manufacturer = "", "Synthetic"
    dataset.Modality = {DERMOSCOPY: "DMS", VL_PHOTOGRAPH: "XC"}.get(sop_class, "OT")
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.BodyPartExamined = 1, 1, "SKIN"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    return dataset


def write_dicom_photograph(
    path: Path, dataset: Dataset | None = None, *, syntax: str = ExplicitVRLittleEndian
) -> None:
    """Write a DICOM photograph.

    Args:
        path: of the new file; its folder is made.
        dataset: what to write; :func:`dicom_photograph` by default.
        syntax: transfer syntax; ``JPEGBaseline8Bit`` is encoded by Pillow, others by pydicom's plugins.
    """
    dataset = dicom_photograph() if dataset is None else dataset
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax == JPEGBaseline8Bit:
        shape = (dataset.Rows, dataset.Columns, 3)
        picture = Image.fromarray(np.frombuffer(dataset.PixelData, np.uint8).reshape(shape))
        encoded = io.BytesIO()
        picture.save(encoded, format="JPEG", quality=95, subsampling="4:2:2")
        dataset.PhotometricInterpretation, dataset.LossyImageCompression = "YBR_FULL_422", "01"
        dataset.PixelData = encapsulate([encoded.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    write_file(path, dataset, syntax=syntax, is_encoded=syntax == JPEGBaseline8Bit)
