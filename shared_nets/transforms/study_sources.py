"""The CT and the mask of one study, whether they come as paths or were loaded before.

MONAI Label and MONAI Deploy hand over loaded volumes; the command line hands over paths. What follows does
not see the difference, except that from a path only the slices in use are decoded.

Shape letters: I, J, K voxels of a volume.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

from shared_nets.refusals import InputRefused
from shared_nets.transforms.kidney_mask import KIDNEY_CODES, LABEL_SETS, FloatArray
from shared_nets.types import Finding, SourceImage

_FACTS = ("source", "study_uid", "series_uid", "header")
_ORIGIN = ("files", "frame_numbers", "is_resampled")


class Noted(NamedTuple):
    """What a reader had to say about an image."""

    repairs: tuple[Finding, ...]
    warnings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """A CT that is decoded when slices are asked for; or nothing but a grid.

    Args:
        shape: voxels, I, J, K.
        affine: voxel index → RAS mm, ``(4, 4)``.
        facts: source, UIDs, header and geometry for the result; plain values.
        sop_uids: SOP instance UID of each slice along K, where there are any.
        origin: where the files lie, for writers.
        noted: what opening it brought up.
        volume: the voxels, where they are loaded.
        series: what the reader opened, where they are not.
        reader: the reader.
    """

    shape: tuple[int, int, int]
    affine: FloatArray
    facts: Mapping[str, Any] = field(default_factory=dict)
    sop_uids: tuple[str, ...] = ()
    origin: SourceImage | None = None
    noted: Noted = field(default_factory=lambda: Noted((), ()))
    volume: npt.NDArray[Any] | None = None
    series: Any = None
    reader: Any = None

    def decode(self, axis: int, indices: Sequence[int]) -> tuple[npt.NDArray[Any] | None, Noted]:
        """Decode slices.

        Args:
            axis: axis that the slices lie across.
            indices: which ones.

        Returns:
            The volume with only these slices along ``axis``, HU, or ``None`` without a CT; and what the
            reader had to say.
        """
        if self.series is None:
            return (None if self.volume is None else self.volume.take(indices, axis=axis)), self.noted
        if axis == 2:
            stack, meta = self.reader.get_data(self.series, slices=list(indices))
        else:  # the stored slices are not axial: axial ones are cut from all of them
            whole, meta = self.reader.get_data(self.series)
            stack = whole.take(indices, axis=axis)
        return stack, _noted(meta)

    def loaded(self) -> ImageSource:
        """Decode everything once; later slices come from memory."""
        if self.series is None:
            return self
        volume, meta = self.reader.get_data(self.series)
        return replace(self, volume=volume, series=None, reader=None, noted=_noted(meta))


@dataclass(frozen=True, kw_only=True)
class MaskSource:
    """A mask as it was drawn.

    Args:
        labels: numbers, ``(I, J, K)``; ``None`` once they were used.
        affine: voxel index → RAS mm, ``(4, 4)``.
        source: kind of file, or ``memory``.
        segment_codes: SNOMED code by number, from DICOM SEG.
        segment_regions: SNOMED code of the organ by number, likewise.
        has_empty_slices_omitted: whether the grid ends with the stored frames.
        repairs: what the reader put right.
    """

    labels: Any
    affine: FloatArray
    source: str
    segment_codes: Mapping[int, str]
    segment_regions: Mapping[int, str]
    has_empty_slices_omitted: bool
    repairs: tuple[Finding, ...]


def open_image(data: Mapping[Hashable, Any], key: str, reader: Any, *, is_needed: bool) -> ImageSource | None:
    """Open the CT of a study by its headers.

    Args:
        data: the study.
        key: where the CT is: a path, or a volume with an affine.
        reader: reader for a path, with ``read(path)`` and ``get_data(series, slices=…)``.
        is_needed: whether a study without a CT is refused.

    Returns:
        The CT, or ``None`` where there is none.

    Raises:
        ValueError: a path without a reader, or a volume without an affine.
        InputRefused: ``INPUT_NOT_FOUND`` without a CT, and what the reader refuses.
    """
    image = data.get(key)
    if is_absent(image):
        if is_needed:
            raise InputRefused(
                "INPUT_NOT_FOUND", "No CT was given.", f'Give "{key}": the CT that the mask is of.'
            )
        return None
    if isinstance(image, torch.Tensor | np.ndarray):
        volume, affine, meta = _in_memory(image, data, key)
        return ImageSource(
            shape=_three(volume.shape),
            affine=affine,
            facts=_facts(meta, affine, volume.shape),
            sop_uids=tuple(meta.get("sop_uids") or ()),
            origin=_origin(meta, volume.shape, affine),
            noted=_noted(meta),
            volume=volume,
        )
    if reader is None:
        raise ValueError(f"image_reader must be given to read {key} from a path, got None.")
    series = reader.read(image)
    shape = _three(series.shape)
    known = {
        name: getattr(series, name, None) for name in (*_FACTS, *_ORIGIN, "sop_uids", "repairs", "warnings")
    }
    affine = np.asarray(series.affine, dtype=np.float64)
    return ImageSource(
        shape=shape,
        affine=affine,
        facts=_facts(known, affine, shape),
        sop_uids=tuple(known["sop_uids"] or ()),
        origin=_origin(known, shape, affine),
        noted=_noted(known),
        series=series,
        reader=reader,
    )


def open_mask(data: Mapping[Hashable, Any], key: str, reader: Any) -> MaskSource:
    """Read the mask of a study.

    Args:
        data: the study.
        key: where the mask is: a path, or a volume with an affine.
        reader: reader for a path, with ``read(path)`` and ``get_data(mask)``.

    Returns:
        The mask.

    Raises:
        ValueError: a path without a reader, or a volume without an affine.
        InputRefused: ``MASK_MISSING``, and what the reader refuses.
    """
    mask = data.get(key)
    if is_absent(mask):
        raise InputRefused(
            "MASK_MISSING",
            "No kidney mask was given.",
            f'Give "{key}": the kidneys of this scan as NIfTI, NRRD, MetaImage or DICOM SEG, '
            "for example from TotalSegmentator, and the label set it was made with.",
        )
    if isinstance(mask, torch.Tensor | np.ndarray):
        labels, affine, meta = _in_memory(mask, data, key)
    elif reader is None:
        raise ValueError(f"mask_reader must be given to read {key} from a path, got None.")
    else:
        labels, meta = reader.get_data(reader.read(mask))
        affine = np.asarray(meta["affine"], dtype=np.float64)
    return MaskSource(
        labels=labels,
        affine=affine,
        source=str(meta.get("mask_source", "memory")),
        segment_codes=meta.get("segment_labels") or {},
        segment_regions=meta.get("segment_regions") or {},
        has_empty_slices_omitted=bool(meta.get("has_empty_slices_omitted", False)),
        repairs=_noted(meta).repairs,
    )


def choose_label_set(asked: str, mask: MaskSource) -> str:
    """Prefer the codes of a DICOM SEG that names a kidney: its numbers follow no numbering.

    Args:
        asked: label set that the user chose.
        mask: the mask.

    Returns:
        Name in :data:`LABEL_SETS`.

    Raises:
        InputRefused: ``MASK_LABELS_UNKNOWN`` when codes are asked for and there are none.
    """
    if {*mask.segment_codes.values(), *mask.segment_regions.values()} & set(KIDNEY_CODES):
        return "dicom_seg"
    if asked == "dicom_seg" and not mask.segment_codes:
        raise InputRefused(
            "MASK_LABELS_UNKNOWN",
            'The label set is "dicom_seg", and the mask carries no segment codes.',
            f"Choose the label set that the mask was made with: {', '.join(LABEL_SETS)}.",
        )
    return asked


def is_absent(value: Any) -> bool:
    """Say whether a study lacks something: it is not there, or its path is empty."""
    return value is None or (isinstance(value, str) and not value)


def _in_memory(
    value: torch.Tensor | npt.NDArray[Any], data: Mapping[Hashable, Any], key: str
) -> tuple[npt.NDArray[Any], FloatArray, Mapping[str, Any]]:
    """View a loaded volume as ``(I, J, K)``, with its affine and meta data."""
    meta = value.meta if isinstance(value, MetaTensor) else data.get(f"{key}_meta_dict") or {}
    if "affine" not in meta:
        raise ValueError(f"{key} must be a MetaTensor with an affine, got {type(value).__name__}.")
    array = (
        value.detach().cpu().as_subclass(torch.Tensor).numpy() if isinstance(value, torch.Tensor) else value
    )
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise InputRefused(
            "GEOMETRY_NOT_A_VOLUME",
            f"{key} has the shape {'×'.join(map(str, array.shape))}, which is not one volume.",
            "Give one three-dimensional volume.",
        )
    return array, np.asarray(meta["affine"], dtype=np.float64), meta


def _facts(known: Mapping[str, Any], affine: FloatArray, shape: Sequence[int]) -> dict[str, Any]:
    facts = {name: known[name] for name in _FACTS if known.get(name)}
    if "header" in facts:
        facts["header"] = dict(facts["header"])
    facts["shape"] = list(_three(shape))
    facts["spacing_mm"] = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    facts["affine"] = affine.tolist()
    return facts


def _origin(known: Mapping[str, Any], shape: Sequence[int], affine: FloatArray) -> SourceImage:
    return SourceImage(
        files=tuple(known.get("files") or ()),
        frame_numbers=tuple(known.get("frame_numbers") or ()),
        shape=_three(shape),
        affine=affine,
        is_resampled=bool(known.get("is_resampled")),
    )


def _noted(known: Mapping[str, Any]) -> Noted:
    """Repairs and warnings, which meta data hold as dictionaries."""
    repairs, warnings = (
        tuple(
            note if isinstance(note, Finding) else Finding(code=note["code"], message=note["message"])
            for note in known.get(name) or ()
        )
        for name in ("repairs", "warnings")
    )
    return Noted(repairs, warnings)


def _three(shape: Sequence[int]) -> tuple[int, int, int]:
    return int(shape[0]), int(shape[1]), int(shape[2])
