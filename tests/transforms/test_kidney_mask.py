"""What a mask's numbers mean, and which kidney is which."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from shared_nets.data import mask_reader
from shared_nets.refusals import InputRefused
from shared_nets.transforms.kidney_mask import (
    CYST_CODES,
    KIDNEY_CODES,
    LABEL_SETS,
    TUMOUR_CODES,
    canonical_labels,
    kidney_sides,
)

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def row(*numbers: int, dtype: type = np.uint8) -> np.ndarray:
    """A mask with these numbers one after another along x, in the middle of nothing."""
    mask = np.zeros((len(numbers) + 2, 3, 3), dtype=dtype)
    mask[1:-1, 1, 1] = numbers
    return mask


@pytest.mark.parametrize(
    ("label_set", "numbers", "canonical"),
    [
        pytest.param("any", (1, 2, 255), [1, 1, 1], id="any number is kidney"),
        pytest.param("kidney", (255, 0, 255), [1, 0, 1], id="one number, whichever, is kidney"),
        pytest.param("kits", (1, 2, 3), [1, 2, 3], id="kits"),
        pytest.param("right_left", (1, 2, 1), [1, 1, 1], id="both sides are kidney"),
        pytest.param("totalsegmentator", (2, 5, 3), [1, 0, 1], id="other organs are background"),
        pytest.param("totalsegmentator", (3, 117, 2), [1, 0, 1], id="the 117-label map"),
    ],
)
def test_numbers_become_canonical_labels(label_set, numbers, canonical):
    assert canonical_labels(row(*numbers), AFFINE, label_set=label_set).labels[:, 0, 0].tolist() == canonical


def test_a_patient_with_labels_1_and_2_keeps_both_kidneys(make_kidneys):
    labels, affine = make_kidneys()
    labels[labels == 3] = 1
    kidneys = canonical_labels(labels, affine, label_set="right_left")
    assert kidneys.labels.sum() == 10 * (8 * 10 + 10 * 10)  # every voxel counts once, whatever its number
    assert set(kidney_sides(kidneys.labels, kidneys.affine).masks) == {"right", "left"}


def test_several_numbers_are_not_taken_for_kidney_unless_the_user_says_so():
    with pytest.raises(InputRefused, match=r"MASK_LABELS_UNKNOWN: .*labels 1, 2, and .* has only one"):
        canonical_labels(row(1, 2, 0), AFFINE, label_set="kidney")


def test_labels_that_the_set_does_not_name_are_refused_with_their_numbers():
    with pytest.raises(InputRefused, match=r"MASK_LABELS_UNKNOWN: .*labels 4, 7, which.*kits") as caught:
        canonical_labels(row(1, 4, 7), AFFINE, label_set="kits")
    assert caught.value.code == "MASK_LABELS_UNKNOWN"


@pytest.mark.parametrize("numbers", [pytest.param((0,), id="nothing"), pytest.param((5, 6), id="no kidney")])
def test_a_mask_without_kidney_is_refused(numbers):
    with pytest.raises(InputRefused, match="MASK_EMPTY"):
        canonical_labels(row(*numbers), AFFINE, label_set="totalsegmentator")


def test_whole_numbers_are_labels_whatever_their_type():
    expected = canonical_labels(row(2, 5, 3), AFFINE, label_set="totalsegmentator").labels
    for dtype in (np.int16, np.int64, np.float32, np.float64):
        found = canonical_labels(row(2, 5, 3, dtype=dtype), AFFINE, label_set="totalsegmentator").labels
        assert np.array_equal(found, expected)
        assert found.dtype == np.uint8


@pytest.mark.parametrize("value", [0.5, np.nan, -1.0, 70000.0])
def test_values_that_are_no_labels_are_refused(value):
    mask = row(1, 1, dtype=np.float32)
    mask[1, 1, 1] = value
    with pytest.raises(InputRefused, match=r"MASK_LABELS_UNKNOWN: .*not whole numbers"):
        canonical_labels(mask, AFFINE, label_set="kidney")


def test_the_box_lies_where_the_mask_had_it(make_kidneys):
    labels, affine = make_kidneys()
    kidneys = canonical_labels(labels, affine, label_set="totalsegmentator")
    assert kidneys.offset == (8, 10, 4)
    assert kidneys.labels.shape == (42, 12, 10)
    assert kidneys.affine[:3, 3].tolist() == [-118 + 8 * 4, -60 + 10 * 3, 100 + 4 * 5]


def test_no_copy_of_the_mask_is_made():
    mask = np.zeros((200, 200, 100), dtype=np.uint8, order="F")
    mask[90:110, 90:110, 40:60] = 1
    tracemalloc.start()
    canonical_labels(mask, AFFINE, label_set="kidney")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < mask.nbytes / 2


def test_segments_are_known_by_their_codes():
    codes = {1: "10200004", 2: "64033007", 3: "108369006", 4: "108369006", 5: "85756007"}
    regions = {3: "64033007", 4: "10200004", 5: "18639004"}  # 10200004 is the liver
    found = canonical_labels(
        row(1, 2, 3, 4, 5), AFFINE, label_set="dicom_seg", segment_codes=codes, segment_regions=regions
    )
    # kidney, tumour of the kidney; the tumour of the liver is none; "tissue" of the left kidney is kidney
    assert found.labels[:, 0, 0].tolist() == [1, 2, 0, 1]


def test_reader_and_label_set_know_the_same_codes():
    assert mask_reader.KIDNEY_CODES == KIDNEY_CODES
    assert mask_reader.TUMOUR_CODES == TUMOUR_CODES
    assert mask_reader.CYST_CODES == CYST_CODES
    assert set(KIDNEY_CODES) <= set(LABEL_SETS["dicom_seg"].canonical)


def test_swapped_sides_are_reported(make_kidneys):
    labels, affine = make_kidneys()
    assert canonical_labels(labels, affine, label_set="totalsegmentator").findings == ()
    mirrored = canonical_labels(labels[::-1], affine, label_set="totalsegmentator")
    assert [finding.code for finding in mirrored.findings] == ["MASK_SIDES_SWAPPED"]


def test_an_unknown_label_set_is_an_error():
    with pytest.raises(ValueError, match="label_set must be one of"):
        canonical_labels(row(1), AFFINE, label_set="lungs")


def test_sides_follow_the_body_in_every_orientation(make_kidneys, reorient, all_orientations):
    labels, affine = make_kidneys()
    for orientation in all_orientations:
        turned, turned_affine = reorient(labels, affine, orientation)
        sides = kidney_sides(turned, turned_affine)
        assert sides.arrangement == "two"
        assert np.array_equal(sides.masks["right"], turned == 2)
        assert np.array_equal(sides.masks["left"], turned == 3)


def test_the_midline_lies_halfway_between_the_kidneys(make_kidneys):
    sides = kidney_sides(*make_kidneys())
    left_mm, right_mm = -118 + 11.5 * 4, -118 + 44.5 * 4
    assert sides.midline_x_mm == pytest.approx((left_mm + right_mm) / 2)


@pytest.mark.parametrize(("midline_x_mm", "name"), [(0.0, "right"), (100.0, "left"), (None, "kidney")])
def test_one_kidney_takes_its_side_from_the_midline(make_kidneys, midline_x_mm, name):
    sides = kidney_sides(*make_kidneys(left=False), midline_x_mm=midline_x_mm)
    assert sides.arrangement == "single"
    assert set(sides.masks) == {name}


def test_pieces_of_one_kidney_stay_together(make_kidneys):
    labels, affine = make_kidneys()
    labels[40:50, 12:22, 8] = 0  # the right kidney falls in two
    labels[20, 15, 8] = 3  # and a stray voxel lies left of the midline
    sides = kidney_sides(labels, affine)
    assert np.array_equal(sides.masks["right"], labels == 2)
    assert np.array_equal(sides.masks["left"], labels == 3)


def test_a_horseshoe_kidney_is_divided_in_the_middle(make_kidneys):
    labels, affine = make_kidneys()
    labels[16:40, 14, 5] = 2  # the isthmus; the whole reaches from voxel 8 to 49, 168 mm
    sides = kidney_sides(labels, affine)
    assert sides.arrangement == "fused"
    assert sides.midline_x_mm == pytest.approx(-118 + 28.5 * 4)
    assert (sides.masks["right"] ^ sides.masks["left"])[labels > 0].all()
    assert sides.masks["left"][:29].sum() == (labels[:29] > 0).sum()


def test_sides_of_nothing_are_refused():
    with pytest.raises(InputRefused, match="MASK_EMPTY"):
        kidney_sides(np.zeros((3, 3, 3)), AFFINE)
