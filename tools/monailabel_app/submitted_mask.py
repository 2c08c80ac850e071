"""A kidney mask that a person corrected and submitted, on the grid of its CT."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from shared_nets.data.ct_reader import CTReader
from shared_nets.data.mask_reader import MaskReader
from shared_nets.refusals import InputRefused
from shared_nets.transforms.kidney_mask import canonical_labels
from shared_nets.transforms.mask_geometry import match_mask_to_image
from shared_nets.transforms.sided_mask import sided_mask
from shared_nets.transforms.study_sources import ImageSource, choose_label_set, open_image, open_mask
from shared_nets.types import KidneyMask

#: 1 right kidney, 2 left kidney: the numbers that the app itself returns.
LABEL_SET = "right_left"


class SubmittedMask(NamedTuple):
    """A CT and the kidneys that a person outlined in it."""

    image: ImageSource
    kidneys: KidneyMask


def read_submitted_mask(image: str | Path, mask: str | Path) -> SubmittedMask:
    """Read a submitted mask.

    Args:
        image: CT series or volume.
        mask: label map with the numbers of :data:`LABEL_SET`, or DICOM SEG.

    Returns:
        Both, the kidneys on the grid of the CT and numbered by where they lie.

    Raises:
        InputRefused: what the readers refuse; ``MASK_EMPTY``, ``MASK_LABELS_UNKNOWN``,
            ``MASK_GEOMETRY_MISMATCH``.
    """
    source = open_image({"image": str(image)}, "image", CTReader(), is_needed=True)
    if source is None:
        raise InputRefused("INPUT_NOT_FOUND", "The mask has no CT.", "Submit it for an image of the server.")
    drawn = open_mask({"mask": str(mask)}, "mask", MaskReader())
    kidneys = canonical_labels(
        drawn.labels,
        drawn.affine,
        label_set=choose_label_set(LABEL_SET, drawn),
        segment_codes=drawn.segment_codes,
        segment_regions=drawn.segment_regions,
    )
    placed, _ = match_mask_to_image(
        kidneys,
        image_shape=source.shape,
        image_affine=source.affine,
        has_empty_slices_omitted=drawn.has_empty_slices_omitted,
    )
    return SubmittedMask(
        source, sided_mask(placed, made_by="supplied", algorithm_name="a person, in MONAI Label")
    )
