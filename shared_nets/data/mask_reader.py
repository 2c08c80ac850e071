"""Label maps for ``LoadImaged``: NIfTI, NRRD, MetaImage and DICOM SEG become whole numbers on a RAS grid."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk
from monai.data import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from pydicom.errors import InvalidDicomError

from shared_nets.data.ct_series import check_size
from shared_nets.refusals import InputRefused

PathLike = str | os.PathLike[str]
LabelArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
FloatArray = npt.NDArray[np.float64]

#: SNOMED codes: where DICOM segments overlap, kidneys lie over other organs, and lesions over kidneys.
KIDNEY_CODES = ("64033007", "9846003", "18639004", "T-71000", "T-71010", "T-71020")
TUMOUR_CODES = ("108369006", "86049000", "372087000", "14799000", "4147007", "M-8FFFF", "M-80003", "M-03000")
CYST_CODES = ("367643001", "M-3340A")

_SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # segmentation, label map
_VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SLAB = 16  # slices looked at together
_MAX_LABEL = 65535
_GIVE_LABELS = "Give a label map of whole numbers, as NIfTI, NRRD, MetaImage or DICOM SEG."


@dataclass(frozen=True, kw_only=True)
class MaskFile:
    """A mask that is not read yet."""

    path: Path


class MaskReader(ImageReader):
    """Read a label map for ``LoadImaged(keys="mask", reader=MaskReader())``, or refuse it with a code.

    Numbers become ``uint8`` (``uint16`` above 255) whatever the file stores; a probability map is refused.
    For DICOM SEG ``meta["segment_labels"]`` gives the SNOMED code of each number, ``meta["segment_regions"]``
    the code of the organ it lies in, and the grid ends with the stored frames.
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Accept any name: DICOM files often have no suffix, and contents decide."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> MaskFile:
        """Take note of the path; ``LoadImage`` would hide a refusal raised here behind other readers.

        Args:
            data: one path: a file, or a folder with one DICOM SEG.
            kwargs: ignored; part of MONAI's interface.

        Returns:
            The mask, unread.

        Raises:
            ValueError: more than one path.
        """
        paths = [data] if isinstance(data, str | os.PathLike) else list(data)
        if len(paths) != 1:
            raise ValueError(f"data must be one path, got {len(paths)}.")
        return MaskFile(path=Path(paths[0]))

    def get_data(self, img: MaskFile) -> tuple[LabelArray, dict[str, Any]]:
        """Read the labels.

        Args:
            img: what :meth:`read` returned.

        Returns:
            Labels ``(I, J, K)``, and MONAI's meta data with a RAS ``affine``, ``mask_source``,
            ``segment_labels``, ``segment_regions``, ``has_empty_slices_omitted`` and ``repairs``.

        Raises:
            InputRefused: the file cannot be found or read, holds no label map, or says no position.
        """
        path = img.path
        if not path.exists():
            raise InputRefused("INPUT_NOT_FOUND", f"There is no {path.name}.", "Check the path of the mask.")
        meta: dict[str, Any] = {
            "segment_labels": {},
            "segment_regions": {},
            "has_empty_slices_omitted": False,
            "repairs": [],
        }
        try:
            name = path.name.lower()
            if path.is_file() and name.endswith((".nii", ".nii.gz")):
                labels, affine = _read_nifti(path)
                source = "nifti"
            elif path.is_file() and name.endswith(_VOLUME_SUFFIXES):
                labels, affine = _read_with_simpleitk(path)
                source = "nrrd" if name.endswith((".nrrd", ".nhdr")) else "metaimage"
            else:
                labels, affine = _read_dicom_seg(path, meta)
                source = "dicom_seg"
        except PermissionError as error:
            raise InputRefused(
                "INPUT_NO_PERMISSION",
                f"{path.name} cannot be read: {error.strerror}.",
                "Give this user the right to read it.",
            ) from error
        _check_grid(affine, path.name)
        meta |= {
            str(MetaKeys.AFFINE): affine,
            str(MetaKeys.ORIGINAL_AFFINE): affine.copy(),
            str(MetaKeys.SPATIAL_SHAPE): np.array(labels.shape),
            str(MetaKeys.ORIGINAL_CHANNEL_DIM): "no_channel",
            str(MetaKeys.SPACE): str(SpaceKeys.RAS),
            "mask_source": source,
        }
        return labels, meta


def _read_nifti(path: Path) -> tuple[LabelArray, FloatArray]:
    try:
        image: Any = nib.load(path, keep_file_open=True)  # slabs are read one after the other
        sform, qform = image.header.get_sform(coded=True)[0], image.header.get_qform(coded=True)[0]
        shape = _one_volume(image.shape, path.name)
        flat = (0,) * (len(image.shape) - 3)  # of axes that are one long
        starts = range(0, shape[2], _SLAB)
        slabs = (image.dataobj[(slice(None), slice(None), slice(k, k + _SLAB), *flat)] for k in starts)
        labels = _narrowed(slabs, shape, path.name)
    except PermissionError:
        raise
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise InputRefused(
            "INPUT_UNREADABLE",
            f"{path.name} is no readable NIfTI: {str(error).replace(str(path), path.name)}.",
            "Write the mask again.",
        ) from error
    if sform is None and qform is None:
        raise InputRefused(
            "GEOMETRY_NO_POSITION",
            f"{path.name} has neither an sform nor a qform: its place is unknown.",
            "Write the mask with the affine of the image it was drawn on.",
        )
    return labels, np.asarray(qform if sform is None else sform, dtype=np.float64)


def _read_with_simpleitk(path: Path) -> tuple[LabelArray, FloatArray]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        check_size(reader.GetSize(), path.name)
        image = reader.Execute()
    except RuntimeError as error:
        raise InputRefused(
            "INPUT_UNREADABLE", f"{path.name} is no readable volume.", "Write the mask again."
        ) from error
    if path.suffix.lower() in (".nrrd", ".nhdr") and not image.HasMetaDataKey("NRRD_space"):
        raise InputRefused(
            "GEOMETRY_NO_POSITION",
            f"{path.name} does not say in which space it lies.",
            "Write the mask with the geometry of the image it was drawn on.",
        )
    size, dimension = image.GetSize(), image.GetDimension()
    shape = _one_volume((*size, *([image.GetNumberOfComponentsPerPixel()] * (dimension == 3))), path.name)
    stored = sitk.GetArrayViewFromImage(image).reshape(shape[::-1])  # (K, J, I)
    slabs = (stored[k : k + _SLAB].transpose(2, 1, 0) for k in range(0, shape[2], _SLAB))
    labels = _narrowed(slabs, shape, path.name)
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine[:3, :3] = direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return labels, _LPS_TO_RAS @ affine


def _read_dicom_seg(path: Path, meta: dict[str, Any]) -> tuple[LabelArray, FloatArray]:
    try:
        from highdicom.seg import segread
    except ImportError as error:
        raise ImportError("DICOM SEG masks need highdicom: pip install highdicom.") from error
    file = _the_one_seg(path)
    try:
        seg = segread(file)
        numbers = [int(number) for number in seg.segment_numbers]
        for item in seg.SegmentSequence:
            number = int(item.SegmentNumber)
            meta["segment_labels"][number] = _code(item, "SegmentedPropertyTypeCodeSequence")
            meta["segment_regions"][number] = _code(item, "AnatomicRegionSequence")
        volume = _combined(seg, numbers, meta)
    except (RuntimeError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise InputRefused(
            "INPUT_UNREADABLE",
            f"{file.name} is no DICOM SEG that describes one label map: {error}",
            "Export the segmentation again, as non-overlapping binary segments of one CT series.",
        ) from error
    meta["has_empty_slices_omitted"] = True
    labels = volume.array.transpose(2, 1, 0)  # columns, rows, frames
    affine = (_LPS_TO_RAS @ np.asarray(volume.affine, dtype=np.float64))[:, [2, 1, 0, 3]]
    if np.linalg.det(affine[:3, :3]) < 0:  # highdicom counts frames downwards, CT readers upwards
        affine[:3, 3] += affine[:3, 2] * (labels.shape[2] - 1)
        affine[:3, 2] *= -1.0
        labels = labels[:, :, ::-1]
    return labels, affine


def _combined(seg: Any, numbers: list[int], meta: dict[str, Any]) -> Any:
    """One label map of all segments; where they overlap lesions win over kidneys, kidneys over the rest."""
    dtype = np.uint8 if max(numbers) < 256 else np.uint16
    try:
        return seg.get_volume(combine_segments=True, dtype=dtype)
    except (RuntimeError, ValueError) as error:
        if "overlap" not in str(error):
            raise
    sizes = {}
    for number in numbers:
        volume = seg.get_volume(segment_numbers=[number], combine_segments=True, dtype=dtype)
        sizes[number] = np.count_nonzero(volume.array)
    combined = None
    layers = {n: _layer(meta["segment_labels"][n], meta["segment_regions"][n]) for n in numbers}
    for number in sorted(numbers, key=lambda n: (layers[n], -sizes[n])):
        volume = seg.get_volume(segment_numbers=[number], combine_segments=True, dtype=dtype)
        if combined is None:
            combined = volume
        else:
            np.copyto(combined.array, volume.array, where=volume.array != 0)
    message = "Segments of the mask overlap; kidneys were laid over other organs, lesions over kidneys."
    meta["repairs"].append({"code": "MASK_OVERLAP_RESOLVED", "message": message})
    return combined


def _layer(code: str, region: str) -> int:
    """What lies on top of what; within a layer the smaller segment lies on the larger one."""
    return 2 if code in TUMOUR_CODES + CYST_CODES else int(code in KIDNEY_CODES or region in KIDNEY_CODES)


def _the_one_seg(path: Path) -> Path:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    found, kinds = [], set()
    for file in files:
        try:
            header = pydicom.dcmread(file, specific_tags=["SOPClassUID"], stop_before_pixels=True)
        except (InvalidDicomError, EOFError):
            continue
        uid = header.get("SOPClassUID")
        kinds.add(uid.name if uid else "DICOM without a class")
        if uid in _SEG_CLASSES:
            found.append(file)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputRefused(
            "SERIES_AMBIGUOUS",
            f"{path.name} holds {len(found)} DICOM SEG files.",
            "Give one of them as the mask.",
        )
    what = f"holds {', '.join(sorted(kinds))}" if kinds else "holds no DICOM"
    raise InputRefused("INPUT_UNREADABLE", f"{path.name} {what}, not a label map.", _GIVE_LABELS)


def _code(item: pydicom.Dataset, sequence: str) -> str:
    entries = item.get(sequence)
    return str(entries[0].get("CodeValue", "")) if entries else ""


def _narrowed(slabs: Iterable[npt.NDArray[Any]], shape: tuple[int, int, int], name: str) -> LabelArray:
    """Copy slabs along the last axis into the smallest unsigned type; refuse what is no whole number."""
    labels: LabelArray = np.empty(shape, dtype=np.uint8, order="F")
    start = 0
    for slab in slabs:
        part = labels[..., start : start + slab.shape[2]]
        start += slab.shape[2]
        if slab.dtype == np.uint8:
            part[...] = slab
            continue
        low, high = slab.min(), slab.max()
        if not (np.isfinite(low) and np.isfinite(high) and low >= 0 and high <= _MAX_LABEL):
            raise _not_labels(name)
        if high > 255 and labels.dtype == np.uint8:
            labels = labels.astype(np.uint16, order="F")
            part = labels[..., start - slab.shape[2] : start]
        part[...] = slab.astype(labels.dtype)
        if slab.dtype.kind == "f" and not np.array_equal(part, slab):
            raise _not_labels(name)
    return labels


def _not_labels(name: str) -> InputRefused:
    return InputRefused(
        "MASK_LABELS_UNKNOWN",
        f"{name} holds values that are not whole numbers from 0 to {_MAX_LABEL}; it may hold probabilities.",
        _GIVE_LABELS,
    )


def _one_volume(shape: Sequence[int], name: str) -> tuple[int, int, int]:
    sizes = [int(size) for size in shape]
    if len(sizes) < 3 or any(size != 1 for size in sizes[3:]) or min(sizes) < 1:
        raise InputRefused(
            "GEOMETRY_NOT_A_VOLUME",
            f"{name} has the shape {'×'.join(map(str, sizes))}, which is not one label map.",
            "Give one three-dimensional label map; export overlapping segments as one label map first.",
        )
    check_size(sizes, name)
    return sizes[0], sizes[1], sizes[2]


def _check_grid(affine: FloatArray, name: str) -> None:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputRefused(
            "GEOMETRY_BAD_SPACING",
            f"The voxel size or the directions of {name} are missing, zero or not numbers.",
            "Write the mask with the geometry of the image it was drawn on.",
        )
