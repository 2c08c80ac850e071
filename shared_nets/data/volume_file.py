"""CT volumes in one file that is not DICOM: NIfTI through nibabel, NRRD and MetaImage through SimpleITK."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from shared_nets.data.ct_series import (
    MIN_SLICES,
    CTOptions,
    CTSeries,
    Pixels,
    axial_warning,
    check_hounsfield_range,
    check_size,
)
from shared_nets.refusals import InputRefused

FloatArray = npt.NDArray[np.float64]

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_DIRECTION_TOLERANCE = 1e-3
_CONVERT_AGAIN = "Convert the original DICOM series again, or give the DICOM series itself."
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_INT16 = np.iinfo(np.int16)


def open_volume_file(path: str, options: CTOptions) -> CTSeries:
    """Open a volume by its header and check what the header can tell.

    Args:
        path: a file with one of :data:`VOLUME_SUFFIXES`.
        options: what is accepted; those about DICOM tags do not apply.

    Returns:
        The volume; nothing is decoded.

    Raises:
        InputRefused: see :data:`shared_nets.refusals.CODES`.
    """
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise InputRefused(
            "INPUT_NO_PERMISSION",
            f"{Path(path).name} cannot be read: {error.strerror}.",
            "Give this user the right to read the file.",
        ) from error
    is_nifti = path.lower().endswith((".nii", ".nii.gz"))
    return _open_nifti(path, options) if is_nifti else _open_with_simpleitk(path, options)


def _open_nifti(path: str, options: CTOptions) -> CTSeries:
    name = Path(path).name
    try:
        image: Any = nib.load(path)
        header = image.header
        dtype = header.get_data_dtype()
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)  # the header forgets them
        offset = int(image.dataobj.offset)
        units = header.get_xyzt_units()[0]
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, KeyError, zlib.error) as error:
        raise InputRefused(
            "INPUT_UNREADABLE",
            f"{name} is no readable NIfTI: {str(error).replace(path, name)}.",  # nibabel names the path
            _CONVERT_AGAIN,
        ) from error
    shape = _three_dimensions(image.shape, name)
    if dtype.kind not in "iuf":
        raise InputRefused(
            "PIXEL_FORMAT_UNSUPPORTED", f"{name} holds values of type {dtype}.", _CONVERT_AGAIN
        )
    if units in ("meter", "micron"):
        raise InputRefused("GEOMETRY_BAD_SPACING", f"{name} counts in {units}, not in mm.", _CONVERT_AGAIN)
    if not np.isfinite(slope) or not np.isfinite(intercept) or slope == 0:
        raise InputRefused(
            "PIXEL_RESCALE_INVALID",
            f"{name} has the scale {slope:g} and offset {intercept:g}.",
            _CONVERT_AGAIN,
        )
    affine = _nifti_affine(image, shape, name)
    size = offset + dtype.itemsize * int(np.prod(shape))
    if path.lower().endswith(".nii") and Path(path).stat().st_size < size:
        raise InputRefused(
            "PIXEL_TRUNCATED", f"{name} is shorter than its header says.", "Copy the file again."
        )
    pixels = _NiftiPixels(
        path=path,
        shape=shape,
        dtype=dtype,
        offset=offset,
        slope=slope,
        intercept=intercept,
        values=options.values,
    )
    return _series(affine, shape, "nifti", options, pixels, name)


def _nifti_affine(image: Any, shape: tuple[int, int, int], name: str) -> FloatArray:
    """Take the one affine that the header gives; refuse none, and two that differ."""
    sform, qform = (image.header.get_sform(coded=True), image.header.get_qform(coded=True))
    if not sform[1] and not qform[1]:
        raise InputRefused(
            "GEOMETRY_NO_POSITION",
            f"{name} has neither an sform nor a qform: its place is unknown.",
            _CONVERT_AGAIN,
        )
    if sform[1] and qform[1]:
        corners = np.array(
            [(i, j, k, 1) for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])]
        )
        apart_mm = float(np.linalg.norm(corners @ (sform[0] - qform[0]).T, axis=1).max())
        if not apart_mm <= 0.5 * float(np.linalg.norm(sform[0][:3, :3], axis=0).min()):
            raise InputRefused(
                "GEOMETRY_CONFLICT",
                f"sform and qform of {name} put its corners {apart_mm:.1f} mm apart.",
                _CONVERT_AGAIN,
            )
    return np.asarray(sform[0] if sform[1] else qform[0], dtype=np.float64)


def _open_with_simpleitk(path: str, options: CTOptions) -> CTSeries:
    name = Path(path).name
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputRefused("INPUT_UNREADABLE", f"{name} is no readable volume.", _CONVERT_AGAIN) from error
    is_nrrd = path.lower().endswith((".nrrd", ".nhdr"))
    if is_nrrd and not reader.HasMetaDataKey("NRRD_space"):
        raise InputRefused(
            "GEOMETRY_NO_POSITION", f"{name} does not say in which space it lies.", _CONVERT_AGAIN
        )
    shape = _three_dimensions(reader.GetSize(), name)
    if reader.GetNumberOfComponents() != 1:
        raise InputRefused(
            "PIXEL_FORMAT_UNSUPPORTED",
            f"{name} holds {reader.GetNumberOfComponents()} values per voxel.",
            _CONVERT_AGAIN,
        )
    affine = np.eye(4)
    dimension = reader.GetDimension()
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine[:3, :3] = direction * np.array(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    pixels = _SimpleITKPixels(path=path, values=options.values)
    source = "nrrd" if is_nrrd else "metaimage"
    return _series(_LPS_TO_RAS @ affine, shape, source, options, pixels, name)


def _three_dimensions(shape: Sequence[int], name: str) -> tuple[int, int, int]:
    sizes = [int(size) for size in shape]
    if len(sizes) < 3 or any(size != 1 for size in sizes[3:]) or min(sizes[:3]) < 1:
        raise InputRefused(
            "GEOMETRY_NOT_A_VOLUME",
            f"{name} has the shape {'×'.join(map(str, sizes))}, which is not one volume.",
            "Give a file with one three-dimensional volume.",
        )
    if sizes[2] < MIN_SLICES:
        raise InputRefused(
            "GEOMETRY_TOO_FEW_SLICES",
            f"{name} has {sizes[2]} slice, and a volume needs at least {MIN_SLICES}.",
            "Give the whole volume.",
        )
    check_size(sizes, name)
    return sizes[0], sizes[1], sizes[2]


def _series(
    affine: FloatArray, shape: tuple[int, int, int], source: str, options: CTOptions, pixels: Any, name: str
) -> CTSeries:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)  # (3,)
    if not np.isfinite(affine).all() or (spacing <= 0).any():
        raise InputRefused(
            "GEOMETRY_BAD_SPACING", f"The affine of {name} is singular or not finite.", _CONVERT_AGAIN
        )
    axes = affine[:3, :3] / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > _DIRECTION_TOLERANCE:
        raise InputRefused(
            "GEOMETRY_BAD_ORIENTATION", f"The axes of {name} are not perpendicular.", _CONVERT_AGAIN
        )
    start = float(affine[:3, 3] @ axes[:, 2])
    return CTSeries(
        shape=shape,
        affine=affine,
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        slice_positions_mm=tuple(start + float(spacing[2]) * k for k in range(shape[2])),
        modality=options.modality or "",
        source=source,
        warnings=axial_warning(affine),
        pixels=pixels,
    )


@dataclass(frozen=True, kw_only=True)
class _NiftiPixels:
    path: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    values: str

    def read(self, slices: Sequence[int]) -> Pixels:
        columns, rows, depth = self.shape
        whole = self.slope.is_integer() and self.intercept.is_integer()
        keeps_int16 = whole and self.dtype.kind in "iu" and self.dtype.itemsize <= 2
        volume = np.empty((len(slices), rows, columns), dtype=np.int16 if keeps_int16 else np.float32)
        name = Path(self.path).name
        stored = np.empty((rows, columns), dtype=self.dtype)
        low, high = np.inf, -np.inf
        places: dict[int, list[int]] = {}
        for place, k in enumerate(slices):
            places.setdefault(k, []).append(place)
        try:
            with _open_binary(self.path) as file:
                for k in sorted(places):  # a compressed file can only be read forwards
                    file.seek(self.offset + k * stored.nbytes)
                    _fill(file, memoryview(stored).cast("B"))  # type: ignore[arg-type]
                    ends = _range(stored, self.slope, self.intercept, name)
                    low, high = min(low, ends[0]), max(high, ends[1])
                    if keeps_int16 and not (_INT16.min <= ends[0] and ends[1] <= _INT16.max):
                        check_hounsfield_range(*ends, whole_volume=False, policy="refuse", name=name)
                    for place in places[k]:
                        np.multiply(
                            stored, volume.dtype.type(self.slope), out=volume[place], casting="unsafe"
                        )
                        volume[place] += volume.dtype.type(self.intercept)
        except EOFError as error:
            raise InputRefused("PIXEL_TRUNCATED", f"{name} is cut short.", "Copy the file again.") from error
        except (OSError, zlib.error) as error:
            raise InputRefused(
                "PIXEL_UNDECODABLE", f"{name} cannot be decompressed: {error}.", "Copy the file again."
            ) from error
        return _checked(volume, low, high, len(places) == depth, self.values, name)


@dataclass(frozen=True, kw_only=True)
class _SimpleITKPixels:
    path: str
    values: str

    def read(self, slices: Sequence[int]) -> Pixels:
        name = Path(self.path).name
        try:
            image = sitk.ReadImage(self.path)
        except RuntimeError as error:
            raise InputRefused(
                "PIXEL_UNDECODABLE", f"The voxels of {name} cannot be read.", "Copy the file again."
            ) from error
        view = sitk.GetArrayViewFromImage(image)
        view = view.reshape(view.shape[-3:])  # (K, J, I)
        small = view.dtype in (np.int16, np.int8, np.uint8)
        volume = np.empty((len(slices), *view.shape[1:]), dtype=np.int16 if small else np.float32)
        low, high = np.inf, -np.inf
        for place, k in enumerate(slices):
            ends = _range(view[k], 1.0, 0.0, name)
            low, high = min(low, ends[0]), max(high, ends[1])
            volume[place] = view[k]
        return _checked(volume, low, high, len(set(slices)) == len(view), self.values, name)


def _open_binary(path: str) -> BinaryIO:
    return gzip.open(path, "rb") if path.lower().endswith(".gz") else Path(path).open("rb")  # type: ignore[return-value]


def _fill(file: BinaryIO, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        done += count


def _range(stored: npt.NDArray[Any], slope: float, intercept: float, name: str) -> tuple[float, float]:
    low, high = sorted((float(stored.min()) * slope + intercept, float(stored.max()) * slope + intercept))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputRefused(
            "PIXEL_NOT_FINITE", f"{name} holds NaN or infinite values.", "Replace them, or convert again."
        )
    return low, high


def _checked(
    volume: npt.NDArray[Any], low: float, high: float, whole_volume: bool, policy: str, name: str
) -> Pixels:
    warnings = (
        check_hounsfield_range(low, high, whole_volume=whole_volume, policy=policy, name=name)
        if len(volume)
        else ()
    )
    return Pixels(array=volume.transpose(2, 1, 0), warnings=warnings)
