"""A synthetic abdominal CT whose kidneys have stated volumes: for tests, and where no real scan can be had.

Nothing here is a patient. The body is an elliptical cylinder with a rim of fat, the spine a column, liver and
both kidneys are ellipsoids, all of constant density plus noise. Because the kidneys are ellipsoids, their
volumes, lengths and cross-sections have closed forms that a test can work out by hand.

Shape letters: X towards the patient's left, Y towards the back, Z towards the head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

#: Labels of the map; the numbers are those of TotalSegmentator.
LABELS: dict[str, int] = {"kidney_right": 2, "kidney_left": 3, "liver": 5}

_HU = {"air": -1000, "fat": -100, "soft": 40, "spine": 300, "liver": 110, "cortex": 190, "medulla": 130}
_KIDNEY_SHAPE = np.array([1.0, 0.9, 2.0])  # semi-axes along X, Y, Z, relative to the first
_KIDNEY_CENTRES_MM = {"kidney_right": (-62.0, 45.0, -8.0), "kidney_left": (62.0, 45.0, 8.0)}  # LPS
_RIGID_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class PhantomCT:
    """A synthetic volume with its labels.

    Args:
        hu: density, ``(X, Y, Z)`` int16, HU.
        labels: numbers of :data:`LABELS`, 0 elsewhere, ``(X, Y, Z)`` uint8.
        affine: voxel index to RAS+ millimetres, ``(4, 4)`` float64. Voxel axes run to the left, to the
            back and to the head, as in a scanner's axial series.
    """

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]


def kidney_semi_axes_mm(volume_ml: float) -> NDArray[np.float64]:
    """Size the ellipsoid that holds a volume.

    Args:
        volume_ml: volume of one kidney, mL.

    Returns:
        Semi-axes along X, Y and Z, mm, ``(3,)``; the kidney is twice the last one long.
    """
    return _KIDNEY_SHAPE * np.cbrt(1000.0 * volume_ml * 3.0 / (4.0 * np.pi * _KIDNEY_SHAPE.prod()))


def make_phantom(
    *,
    right_ml: float = 160.0,
    left_ml: float = 150.0,
    shape: tuple[int, int, int] = (128, 128, 56),
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
    cut_lower_mm: float = 0.0,
    noise_hu: float = 8.0,
    seed: int = 0,
) -> PhantomCT:
    """Build a synthetic abdomen with kidneys of the wanted size.

    Args:
        right_ml: volume of the right kidney, mL; 0 leaves it out.
        left_ml: volume of the left kidney, mL; 0 leaves it out.
        shape: voxels along X, Y and Z.
        spacing_mm: distance of voxel centres along X, Y and Z, mm.
        cut_lower_mm: how much of the lower pole of the lower kidney lies below the first slice, mm. At 0 the
            volume is centred on the kidneys, and whether they fit depends on ``shape`` alone.
        noise_hu: standard deviation of the noise, HU.
        seed: of the noise; the same arguments give the same bytes.

    Returns:
        Density, labels and affine.

    Raises:
        ValueError: a volume, the cut or the noise is negative, or the grid is not positive.
    """
    for name, value in {
        "right_ml": right_ml,
        "left_ml": left_ml,
        "cut_lower_mm": cut_lower_mm,
        "noise_hu": noise_hu,
    }.items():
        if not value >= 0.0:
            raise ValueError(f"{name} must be 0 or more, got {value}.")
    if min(shape) < 1 or min(spacing_mm) <= 0.0:
        raise ValueError(f"shape and spacing_mm must be positive, got {shape} and {spacing_mm}.")
    kidneys = {
        name: (np.array(_KIDNEY_CENTRES_MM[name]), kidney_semi_axes_mm(volume_ml))
        for name, volume_ml in (("kidney_right", right_ml), ("kidney_left", left_ml))
        if volume_ml > 0.0
    }
    spacing = np.array(spacing_mm)
    first_mm = -(np.array(shape) - 1) / 2.0 * spacing  # LPS position of voxel (0, 0, 0)
    if cut_lower_mm > 0.0 and kidneys:
        first_mm[2] = min(centre[2] - axes[2] for centre, axes in kidneys.values()) + cut_lower_mm

    grid = np.meshgrid(
        *(first + step * np.arange(n) for first, step, n in zip(first_mm, spacing, shape, strict=True)),
        indexing="ij",
        sparse=True,
    )
    hu = np.full(shape, _HU["air"], dtype=np.float32)  # (X, Y, Z)
    labels = np.zeros(shape, dtype=np.uint8)  # (X, Y, Z)
    everywhere = np.inf
    hu[_inside(grid, (0, 0, 0), (175, 125, everywhere))] = _HU["fat"]
    hu[_inside(grid, (0, 0, 0), (155, 105, everywhere))] = _HU["soft"]
    hu[_inside(grid, (0, 62, 0), (20, 24, everywhere))] = _HU["spine"]
    liver = _inside(grid, (-75, -25, 75), (75, 65, 60))
    hu[liver], labels[liver] = _HU["liver"], LABELS["liver"]
    for name, (centre, axes) in kidneys.items():
        kidney = _inside(grid, centre, axes)
        hu[kidney], labels[kidney] = _HU["cortex"], LABELS[name]
        hu[_inside(grid, centre, 0.6 * axes)] = _HU["medulla"]
    hu += np.random.default_rng(seed).normal(0.0, noise_hu, shape).astype(np.float32)

    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing * [-1.0, -1.0, 1.0])
    affine[:3, 3] = first_mm * [-1.0, -1.0, 1.0]
    return PhantomCT(hu=np.clip(np.rint(hu), -1024, 3071).astype(np.int16), labels=labels, affine=affine)


def write_nifti(volume: NDArray[Any], affine: NDArray[np.float64], path: Path) -> Path:
    """Write a volume as NIfTI.

    Args:
        volume: density or labels, ``(X, Y, Z)``; its type is kept.
        affine: voxel index to RAS+ millimetres, ``(4, 4)``.
        path: file that ends in ``.nii`` or ``.nii.gz``.

    Returns:
        ``path``.
    """
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    nib.save(image, path)
    return path


def write_dicom_series(
    hu: NDArray[np.int16],
    affine: NDArray[np.float64],
    folder: Path,
    *,
    rescale_intercept: int = -1024,
    patient_sex: str = "O",
    patient_age_years: int = 60,
) -> list[Path]:
    """Write a volume as an axial CT series, one file a slice, with the same UIDs for the same voxels.

    Args:
        hu: density, ``(X, Y, Z)`` int16, HU; X runs along the rows of the images, Z from slice to slice.
        affine: voxel index to RAS+ millimetres, ``(4, 4)``; its axes are perpendicular.
        folder: where the files go; made if it is not there.
        rescale_intercept: HU of the stored value 0.
        patient_sex: ``F``, ``M`` or ``O``.
        patient_age_years: age, years.

    Returns:
        The files, in the order of Z.

    Raises:
        ValueError: ``hu`` is not a volume, the axes of ``affine`` are not perpendicular, or a stored value
            would not fit 16 bits.
    """
    if hu.ndim != 3:
        raise ValueError(f"hu must have three axes, got shape {hu.shape}.")
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=np.float64)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / spacing
    if not np.allclose(axes.T @ axes, np.eye(3), atol=_RIGID_TOLERANCE):
        raise ValueError("affine must have perpendicular axes: a CT series cannot hold a sheared volume.")
    stored = hu.astype(np.int32) - rescale_intercept
    if stored.min() < 0 or stored.max() > np.iinfo(np.uint16).max:
        raise ValueError(
            f"rescale_intercept must leave 0 to 65535 to store, got {stored.min()} to {stored.max()}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    series = _series_header(hu, affine, spacing, axes)
    series.update({"PatientSex": patient_sex, "PatientAge": f"{patient_age_years:03d}Y"})
    paths = []
    for k in range(hu.shape[2]):
        path = folder / f"slice_{k + 1:04d}.dcm"
        position = (lps @ [0.0, 0.0, k, 1.0])[:3]
        frame = np.ascontiguousarray(stored[:, :, k].T, dtype="<u2")  # (Y, X): rows, columns
        _slice_file(path, series, frame, position, number=k + 1, intercept=rescale_intercept)
        paths.append(path)
    return paths


def _inside(
    grid: Sequence[NDArray[np.float64]], centre: Iterable[float], semi_axes: Iterable[float]
) -> NDArray[np.bool_]:
    """Mark the voxels of an ellipsoid, ``(X, Y, Z)``; an infinite semi-axis makes it a cylinder."""
    squares = [((x - c) / a) ** 2 for x, c, a in zip(grid, centre, semi_axes, strict=True)]
    return np.asarray(squares[0] + squares[1] + squares[2] <= 1.0)


def _series_header(
    hu: NDArray[np.int16],
    affine: NDArray[np.float64],
    spacing: NDArray[np.float64],
    axes: NDArray[np.float64],
) -> dict[str, Any]:
    """Attributes that all slices share, by DICOM keyword."""
    digest = hashlib.sha256(hu.tobytes() + np.asarray(affine, dtype="<f8").tobytes()).hexdigest()
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        "StudyDate": "20200101",
        "StudyTime": "120000",
        "AccessionNumber": "",
        "Modality": "CT",
        "Manufacturer": "shared_nets synthetic phantom",
        "ReferringPhysicianName": "",
        "StudyDescription": "SYNTHETIC PHANTOM, NOT A PATIENT",
        "SeriesDescription": "SYNTHETIC PHANTOM, NOT A PATIENT",
        "PatientName": "PHANTOM^SYNTHETIC",
        "PatientID": f"PHANTOM-{digest[:12]}",
        "PatientBirthDate": "",
        "BodyPartExamined": "ABDOMEN",
        "SliceThickness": _decimal(spacing[2]),
        "KVP": "120",
        "PatientPosition": "HFS",
        "StudyInstanceUID": generate_uid(entropy_srcs=[digest, "study"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=[digest, "series"]),
        "FrameOfReferenceUID": generate_uid(entropy_srcs=[digest, "frame of reference"]),
        "StudyID": "1",
        "SeriesNumber": "1",
        "AcquisitionNumber": "1",
        "PositionReferenceIndicator": "",
        "ImageOrientationPatient": [_decimal(x) for x in (*axes[:, 0], *axes[:, 1])],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelSpacing": [_decimal(spacing[1]), _decimal(spacing[0])],  # between rows, between columns
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "WindowCenter": "40",
        "WindowWidth": "400",
    }


def _slice_file(
    path: Path,
    series: dict[str, Any],
    frame: NDArray[np.uint16],
    position: NDArray[np.float64],
    *,
    number: int,
    intercept: int,
) -> None:
    """Write one slice; ``frame`` is ``(Y, X)``, ``position`` the centre of its first voxel, LPS mm."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series["SeriesInstanceUID"], str(number)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword, value in series.items():
        setattr(dataset, keyword, value)
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.InstanceNumber = str(number)
    dataset.ImagePositionPatient = [_decimal(x) for x in position]
    dataset.Rows, dataset.Columns = frame.shape
    dataset.RescaleIntercept = str(intercept)
    dataset.PixelData = frame.tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def _decimal(value: float) -> str:
    """Write a number as a DICOM decimal string: at most 16 characters."""
    return pydicom.valuerep.format_number_as_ds(float(value))
