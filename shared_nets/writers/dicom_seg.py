"""Kidneys as a DICOM Segmentation: one binary segment a kidney, on the grid of the source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shared_nets.types import KIDNEY_SIDES, KidneyMask, SourceImage
from shared_nets.writers.dicom_codes import ANATOMICAL_STRUCTURE, KIDNEYS
from shared_nets.writers.dicom_object import DicomObjects, long_string
from shared_nets.writers.dicom_source import image_spacing_mm, slice_position_mm

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

#: Recommended colours of the segments: safe for colour blindness.
COLOURS = {1: "#ffb000", 2: "#dc267f", 3: "#648fff"}
_UNKNOWN_VERSION = "unknown"


def kidney_segmentation(
    mask: KidneyMask, source: SourceImage, objects: DicomObjects
) -> tuple[Segmentation, bytes] | None:
    """Write the kidneys as DICOM Segmentation.

    Slices without kidney are left out. Where the grid of the source is not that of its files (a
    tilted gantry was straightened), frames have the grid's place and size, and still refer to the images.

    Args:
        mask: the kidneys.
        source: the image on whose grid they lie.
        objects: the objects of the result.

    Returns:
        The object, for others to refer to, and its file; ``None`` where the mask shows no kidney.

    Raises:
        ValueError: the mask is not on the grid of the source.
    """
    try:
        from highdicom import PixelMeasuresSequence, PlanePositionSequence
        from highdicom.seg import Segmentation
    except ImportError as error:
        raise ImportError("DICOM objects need highdicom: pip install highdicom.") from error
    if mask.shape != source.shape or not np.allclose(mask.affine, source.affine, atol=1e-3):
        raise ValueError(f"mask must lie on the grid of the source, {source.shape}, got {mask.shape}.")
    present = [label for label in KIDNEYS if (mask.labels == label).any()]
    if not present:
        return None
    numbers = np.zeros(max(KIDNEYS) + 1, dtype=np.uint8)
    numbers[present] = np.arange(1, len(present) + 1)
    (i, j, k), (ni, nj, nk) = mask.offset, mask.labels.shape
    frames = np.zeros((nk, source.shape[1], source.shape[0]), dtype=np.uint8)  # slices, rows, columns
    frames[:, j : j + nj, i : i + ni] = numbers[mask.labels].transpose(2, 1, 0)
    between_columns, between_rows, between_slices = image_spacing_mm(source.affine)
    images = objects.source.images
    if not objects.source.is_multi_frame:
        images = images[k : k + nk]  # highdicom compares every frame with every image
    who = "AI segmentation" if mask.made_by == "automatic" else "supplied mask"
    seg = Segmentation(
        source_images=images,
        pixel_array=frames,
        segmentation_type="BINARY",
        segment_descriptions=[
            _description(number, label, mask, objects) for number, label in enumerate(present, start=1)
        ],
        pixel_measures=PixelMeasuresSequence((between_rows, between_columns), between_slices, between_slices),
        plane_positions=[
            PlanePositionSequence("PATIENT", slice_position_mm(source.affine, n)) for n in range(k, k + nk)
        ],
        content_label="KIDNEYS",
        content_description="Kidneys. Research use only, not for diagnosis.",
        **objects.identity("SEG", f"Kidneys, {who} (research only)"),
    )
    _fix_dimension_uid(seg, objects.uid("SEG", "dimensions"))
    if mask.made_by == "supplied":  # nobody knows of which family its algorithm is
        for segment in seg.SegmentSequence:
            del segment.SegmentationAlgorithmIdentificationSequence
    return seg, objects.finish(seg)


def _description(number: int, label: int, mask: KidneyMask, objects: DicomObjects) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    is_ours = mask.made_by == "automatic"
    name = KIDNEY_SIDES[label].capitalize()
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=ANATOMICAL_STRUCTURE,
        segmented_property_type=KIDNEYS[label],
        algorithm_type="AUTOMATIC" if is_ours else "SEMIAUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=long_string(
                mask.algorithm_name if is_ours else f"came with the study: {mask.algorithm_name}"
            ),
            family=codes.cid7162.ArtificialIntelligence,
            version=long_string(mask.algorithm_version or _UNKNOWN_VERSION),
        ),
        tracking_uid=tracking_uid(label, objects),
        tracking_id=name,
        display_color=CIELabColor.from_string(COLOURS[label]),
    )


def tracking_uid(label: int, objects: DicomObjects) -> str:
    """Give the UID by which segment and report name the same kidney.

    Args:
        label: number of :class:`KidneyMask`.
        objects: the objects of the result.

    Returns:
        The UID.
    """
    return objects.uid("tracking", KIDNEY_SIDES[label])


def _fix_dimension_uid(seg: Segmentation, uid: str) -> None:
    """Replace the random UID that highdicom gives to the frames' order."""
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
