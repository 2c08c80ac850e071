"""A picture as DICOM Secondary Capture, for viewers that show nothing else."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from shared_nets.writers.dicom_object import DicomObjects


def secondary_capture(png: bytes, description: str, objects: DicomObjects, *, laterality: str) -> bytes:
    """Write a picture as Secondary Capture Image.

    Args:
        png: the picture; it shows numbers and the study's name, so BurnedInAnnotation says yes.
        description: of the series.
        objects: the objects of the result.
        laterality: DICOM's letter for the side of what it shows.

    Returns:
        The file.
    """
    try:
        from highdicom.sc import SCImage
    except ImportError as error:
        raise ImportError("DICOM objects need highdicom: pip install highdicom.") from error
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGB"))  # (H, W, 3)
    capture = SCImage.from_ref_dataset(
        ref_dataset=objects.source.images[0],
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **objects.identity("SC", description),
    )
    capture.PatientOrientation = []  # several panels and a table have none
    capture.ImageLaterality = laterality
    capture.ConversionType = "WSD"  # drawn on a workstation
    capture.BurnedInAnnotation = "YES"
    return objects.finish(capture)
