"""From paths of a CT and a kidney mask to network input, decoding only the slices that are used.

Shape letters: I, J, K voxels of the CT; S slices; P side of the network's picture; R, C sides of a slice.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from shared_nets.refusals import InputRefused
from shared_nets.transforms.kidney_mask import LABEL_SETS, KidneyLabels, canonical_labels
from shared_nets.transforms.kidney_slices import (
    SliceSelection,
    VolumeAxes,
    field_of_view_findings,
    select_kidney_slices,
    spread_evenly,
    volume_axes,
)
from shared_nets.transforms.mask_geometry import TOLERANCE_MM, match_mask_to_image
from shared_nets.transforms.sided_mask import sided_mask
from shared_nets.transforms.slice_content import (
    WINDOW_AMOS_HU,
    Box,
    SliceContent,
    displayed,
    picture_grid,
    slice_pictures,
)
from shared_nets.transforms.study_sources import (
    ImageSource,
    choose_label_set,
    is_absent,
    open_image,
    open_mask,
)
from shared_nets.types import Finding, KidneyMask

MAX_PICTURE_SLICES = 4
#: Where the median density of kidneys lies, with or without contrast medium, HU.
USUAL_KIDNEY_HU = (-20.0, 400.0)


class _Drawn(NamedTuple):
    """The kidneys on the grid of the CT, however they came about."""

    labels: KidneyLabels
    mask: KidneyMask
    findings: tuple[Finding, ...]
    repairs: tuple[Finding, ...]
    facts: Mapping[str, Any]


class LoadKidneySlicesd(Transform):
    """Read a CT and its kidney mask, choose slices, and make the network's pictures.

    Needs ``mask`` and, unless ``content`` is ``mask``, ``image``: paths for the readers, or volumes that were
    loaded before (MetaTensor ``(1, I, J, K)`` or ``(I, J, K)``; MONAI Label and MONAI Deploy load by
    themselves).

    Writes ``image`` (``(S, P, P)`` float32), ``slice_positions_mm`` (``(S,)`` float32, along the slice normal
    from the kidneys' centre, ascending), ``slice_valid`` (``(S,)`` bool), ``kidney_labels`` (canonical labels
    on the CT's grid, MetaTensor ``(1, …)`` uint8, cut to the kidneys except from left to right),
    ``kidney_is_cut_off``, ``kidney_mask`` (which kidney is which, :class:`shared_nets.types.KidneyMask`),
    ``source_image`` (where its files lie; ``None`` without a CT), ``slice_selection`` (which slices,
    findings, and facts of the image for the result) and ``picture_slices`` (up to four slices at full
    resolution for people).

    Args:
        image_key: key of the CT.
        mask_key: key of the mask.
        image_reader: reader with ``read(path)`` and ``get_data(series, slices=…)``, as
            :class:`shared_nets.data.ct_reader.CTReader`; only needed for paths.
        mask_reader: reader of label maps, as :class:`shared_nets.data.mask_reader.MaskReader`; likewise.
        label_set: name in :data:`LABEL_SETS`; ``data["label_set"]`` goes before it, and so do the codes of a
            DICOM SEG that names a kidney.
        num_slices: slices of the network, S.
        min_area_mm2: smallest kidney cross-section of a slice.
        content: ``masked_ct``, ``ct`` or ``mask``; see :class:`SliceContent`, also for the next five.
        window_hu: lower and upper end of the window, HU.
        tumour_value: value of tumour in ``mask``.
        cyst_value: value of cyst in ``mask``.
        subtrahend: subtracted from values between 0 and 1.
        divisor: then divided by.
        img_size: side of the picture, P.
        pixel_size_mm: pixel size of a picture centred on the kidneys; or
        crop_margin_mm: margin of a picture that holds the kidneys. With neither: the whole field of view.
        tolerance_mm: how far mask and CT may lie apart and still share a grid.
        segmenter: draws the mask where a study has none, from a CT (MetaTensor ``(1, I, J, K)`` HU), as
            :class:`shared_nets.runtime.kidney_segmenter.KidneySegmenter`; without one the study is refused.

    Raises:
        ValueError: an argument is out of range.
        InputRefused: ``MASK_MISSING``, and what readers, masks and geometry are refused for.
    """

    def __init__(
        self,
        *,
        image_key: str = "image",
        mask_key: str = "mask",
        image_reader: Any = None,
        mask_reader: Any = None,
        label_set: str = "kidney",
        num_slices: int = 32,
        min_area_mm2: float = 50.0,
        content: str = "masked_ct",
        window_hu: tuple[float, float] = WINDOW_AMOS_HU,
        tumour_value: float = 1.0,
        cyst_value: float = 1.0,
        subtrahend: float = 0.0,
        divisor: float = 1.0,
        img_size: int = 224,
        pixel_size_mm: float | None = None,
        crop_margin_mm: float | None = None,
        tolerance_mm: float = TOLERANCE_MM,
        segmenter: Any = None,
    ) -> None:
        if label_set not in LABEL_SETS:
            raise ValueError(f"label_set must be one of {sorted(LABEL_SETS)}, got {label_set!r}.")
        self.image_key, self.mask_key = image_key, mask_key
        self.image_reader, self.mask_reader = image_reader, mask_reader
        self.label_set, self.num_slices, self.min_area_mm2 = label_set, num_slices, min_area_mm2
        self.what = SliceContent(
            content=content,
            window_hu=(float(window_hu[0]), float(window_hu[1])),
            tumour_value=tumour_value,
            cyst_value=cyst_value,
            subtrahend=subtrahend,
            divisor=divisor,
        )
        self.sampling: dict[str, Any] = {
            "img_size": img_size,
            "pixel_size_mm": pixel_size_mm,
            "crop_margin_mm": crop_margin_mm,
        }
        self.tolerance_mm = tolerance_mm
        self.segmenter = segmenter

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the keys to a copy of ``data``."""
        d = dict(data)
        segments = self.segmenter is not None and is_absent(d.get(self.mask_key))
        image = open_image(
            d, self.image_key, self.image_reader, is_needed=self.what.needs_ct or segments
        )  # headers only
        if segments and image is not None:
            image = image.loaded()
            drawn = self._drawn(image)
        else:
            drawn = self._given(d, image)
        kidneys = drawn.labels
        if image is None:
            image = ImageSource(shape=kidneys.grid_shape, affine=kidneys.grid_affine)
        selection = select_kidney_slices(kidneys, num_slices=self.num_slices, min_area_mm2=self.min_area_mm2)
        axes = volume_axes(kidneys.grid_affine)
        used = np.unique(selection.indices[selection.is_valid])  # ascending in the volume
        shown = _to_show(selection)
        wanted = used if self.what.needs_ct else np.unique(shown)
        stack, noted = image.decode(selection.axis, wanted.tolist())
        hu = None if stack is None else displayed(stack, axes)  # (slices, R, C)

        box, labels, slice_shape = _displayed_labels(kidneys, axes)
        pixel_mm = (float(kidneys.spacing_mm[axes.anterior]), float(kidneys.spacing_mm[axes.right]))
        grid = picture_grid(slice_shape=slice_shape, pixel_mm=pixel_mm, kidney_box=box, **self.sampling)
        first = kidneys.offset[selection.axis]
        pictures = slice_pictures(
            labels[used - first],
            hu if self.what.needs_ct else None,
            kidney_box=box,
            grid=grid,
            what=self.what,
        )  # (used, P, P)
        _check_finite(pictures)

        for_people = [
            {
                "hu": None if hu is None else np.ascontiguousarray(hu[np.searchsorted(wanted, index)]),
                "labels": _whole_slice(labels[index - first], box, slice_shape),
                "pixel_spacing_mm": pixel_mm,
                "position_mm": float(selection.positions_mm[selection.indices == index][0]),
            }
            for index in shown
        ]
        findings = [*drawn.findings, *_density_findings(for_people)]
        if grid.cuts_kidneys:
            message = "The kidneys are larger than the network's picture, which leaves their edge out."
            findings.append(Finding(code="KIDNEY_OUTSIDE_PICTURE", message=message))
        facts = {**image.facts, "sop_uids": _used_uids(image, selection)}
        facts["repairs"] = (*noted.repairs, *drawn.repairs)
        facts["warnings"] = noted.warnings

        d[self.image_key] = pictures[torch.from_numpy(np.searchsorted(used, selection.indices))]  # (S, P, P)
        d["slice_positions_mm"] = torch.from_numpy(selection.positions_mm - selection.centre_mm).float()
        d["slice_valid"] = torch.from_numpy(selection.is_valid)
        d["kidney_labels"] = _label_volume(kidneys, axes)
        d["kidney_mask"] = drawn.mask
        d["source_image"] = image.origin
        d["kidney_is_cut_off"] = any(finding.code == "KIDNEY_CUT_OFF" for finding in findings)
        d["picture_slices"] = for_people
        d["slice_selection"] = {
            "indices": selection.indices.tolist(),
            "positions_mm": selection.positions_mm.tolist(),
            "is_valid": selection.is_valid.tolist(),
            "areas_mm2": selection.areas_mm2.tolist(),
            "num_kidney_slices": selection.num_kidney_slices,
            "findings": findings,
            "mask": dict(drawn.facts),
            "image": facts,
        }
        return d

    def _given(self, d: Mapping[Hashable, Any], image: ImageSource | None) -> _Drawn:
        """Read the mask that came with the study, and bring it to the grid of the CT."""
        mask = open_mask(d, self.mask_key, self.mask_reader)
        label_set = choose_label_set(str(d.get("label_set", self.label_set)), mask)
        kidneys = canonical_labels(
            mask.labels,
            mask.affine,
            label_set=label_set,
            segment_codes=mask.segment_codes,
            segment_regions=mask.segment_regions,
        )
        mask = replace(mask, labels=None)  # large, and not needed any more
        kidneys, repairs = match_mask_to_image(
            kidneys,
            image_shape=kidneys.grid_shape if image is None else image.shape,
            image_affine=kidneys.grid_affine if image is None else image.affine,
            tolerance_mm=self.tolerance_mm,
            has_empty_slices_omitted=mask.has_empty_slices_omitted,
        )
        name = f"supplied mask, label set {label_set}"
        return _Drawn(
            kidneys,
            sided_mask(kidneys, made_by="supplied", algorithm_name=name),
            (*kidneys.findings, *field_of_view_findings(kidneys)),
            (*mask.repairs, *repairs),
            {"source": mask.source, "label_set": label_set},
        )

    def _drawn(self, image: ImageSource) -> _Drawn:
        """Let the segmenter draw the mask."""
        volume = torch.from_numpy(image.volume)[None]  # (1, I, J, K)
        found = self.segmenter(MetaTensor(volume, affine=torch.from_numpy(image.affine)))
        who = f"{found.mask.algorithm_name} {found.mask.algorithm_version}".strip()
        message = f"No mask was given; {who} drew it. Look at the outlines before you use the numbers."
        drawn = Finding(code="MASK_DRAWN_AUTOMATICALLY", message=message)
        return _Drawn(found.labels, found.mask, (drawn, *found.findings), (), found.facts)


def _used_uids(image: ImageSource, selection: SliceSelection) -> list[str]:
    """SOP instance UIDs of the slices used; of all, where axial slices had to be cut anew."""
    uids = list(image.sop_uids)
    if len(uids) == image.shape[2] and selection.axis == 2:
        return [uids[index] for index in selection.indices]
    return uids


def _to_show(selection: SliceSelection) -> list[int]:
    """Up to four of the slices, evenly spread and away from the poles, from the feet to the head."""
    valid = selection.indices[selection.is_valid]
    if valid.size <= MAX_PICTURE_SLICES:
        return valid.tolist()
    inner = valid[1:-1] if valid.size >= MAX_PICTURE_SLICES + 2 else valid
    picks, _ = spread_evenly(inner.size, MAX_PICTURE_SLICES)
    return inner[picks].tolist()


def _displayed_labels(
    kidneys: KidneyLabels, axes: VolumeAxes
) -> tuple[Box, npt.NDArray[np.uint8], tuple[int, int]]:
    """Labels of the box as displayed slices, where the box lies on a slice, and how large a slice is."""
    box = []
    for axis, grows in ((axes.anterior, axes.anterior_grows), (axes.right, axes.right_grows)):
        start, size, whole = kidneys.offset[axis], kidneys.labels.shape[axis], kidneys.grid_shape[axis]
        start = whole - start - size if grows else start
        box.append(slice(start, start + size))
    slice_shape = (kidneys.grid_shape[axes.anterior], kidneys.grid_shape[axes.right])
    return (box[0], box[1]), displayed(kidneys.labels, axes), slice_shape


def _whole_slice(
    labels: npt.NDArray[np.uint8], box: Box, slice_shape: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    whole = np.zeros(slice_shape, dtype=np.uint8)  # (R, C)
    whole[box] = labels
    return whole


def _label_volume(kidneys: KidneyLabels, axes: VolumeAxes) -> MetaTensor:
    """The labels with a voxel around them, and the whole width: that tells the side of one kidney."""
    first, last = [], []
    for axis, (start, size, whole) in enumerate(
        zip(kidneys.offset, kidneys.labels.shape, kidneys.grid_shape, strict=True)
    ):
        is_width = axis == axes.right
        first.append(0 if is_width else max(0, start - 1))
        last.append(whole if is_width else min(whole, start + size + 1))
    labels = np.zeros([b - a for a, b in zip(first, last, strict=True)], dtype=np.uint8)
    inside = tuple(
        slice(o - a, o - a + n) for o, a, n in zip(kidneys.offset, first, kidneys.labels.shape, strict=True)
    )
    labels[inside] = kidneys.labels
    affine = kidneys.grid_affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(first)
    return MetaTensor(torch.from_numpy(labels)[None], affine=torch.from_numpy(affine))


def _density_findings(for_people: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Warn when what the mask calls kidney does not look like kidney."""
    values = [shown["hu"][shown["labels"] != 0] for shown in for_people if shown["hu"] is not None]
    if not values:
        return []
    median = float(np.median(np.concatenate(values)))
    low, high = USUAL_KIDNEY_HU
    if low <= median <= high:
        return []
    message = (
        f"The median density inside the mask is {median:.0f} HU, and kidney has {low:.0f} to {high:.0f} HU; "
        "the mask may be of another scan."
    )
    return [Finding(code="KIDNEY_DENSITY_UNUSUAL", message=message)]


def _check_finite(pictures: torch.Tensor) -> None:
    if not bool(torch.isfinite(pictures.sum(dtype=torch.float64))):
        raise InputRefused(
            "PIXEL_NOT_FINITE",
            "The CT holds values that are not numbers.",
            "Replace them, or convert the scan again.",
        )
