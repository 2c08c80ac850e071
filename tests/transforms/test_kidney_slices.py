"""Which slices are chosen, and which end of a kidney is missing."""

from __future__ import annotations

import numpy as np
import pytest

from shared_nets.refusals import InputRefused
from shared_nets.transforms.kidney_mask import canonical_labels
from shared_nets.transforms.kidney_slices import (
    field_of_view_findings,
    select_kidney_slices,
    spread_evenly,
    volume_axes,
)

PIXEL_MM2, LEFT_PIXELS, BOTH_PIXELS = 4 * 3, 80, 180


def kidneys_of(labels, affine):
    return canonical_labels(labels, affine, label_set="totalsegmentator")


@pytest.mark.parametrize(
    ("num_kept", "num_slices", "picks", "valid"),
    [
        pytest.param(8, 3, [0, 4, 7], [1, 1, 1], id="halves go up"),
        pytest.param(5, 5, [0, 1, 2, 3, 4], [1] * 5, id="as many"),
        pytest.param(3, 7, [0, 0, 1, 1, 1, 2, 2], [1, 0, 1, 0, 0, 1, 0], id="short kidneys repeat slices"),
        pytest.param(1, 3, [0, 0, 0], [1, 0, 0], id="one slice"),
        pytest.param(9, 1, [4], [1], id="one wanted"),
    ],
)
def test_slices_are_spread_evenly(num_kept, num_slices, picks, valid):
    found, is_valid = spread_evenly(num_kept, num_slices)
    assert found.tolist() == picks
    assert is_valid.tolist() == [bool(v) for v in valid]


def test_first_and_last_are_always_in_and_nothing_repeats_without_need():
    for num_kept in range(2, 60):
        for num_slices in range(2, 60):
            picks, is_valid = spread_evenly(num_kept, num_slices)
            assert (picks[0], picks[-1]) == (0, num_kept - 1)
            assert is_valid.sum() == min(num_kept, num_slices)


@pytest.mark.parametrize(("num_kept", "num_slices"), [(0, 3), (3, 0)])
def test_nothing_cannot_be_spread(num_kept, num_slices):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        spread_evenly(num_kept, num_slices)


def test_positions_and_areas_are_those_of_the_scan(make_kidneys):
    found = select_kidney_slices(kidneys_of(*make_kidneys(range(4, 14))), num_slices=4)
    assert found.indices.tolist() == [4, 7, 10, 13]
    assert found.positions_mm.tolist() == [120.0, 135.0, 150.0, 165.0]  # z starts at 100 mm, 5 mm a slice
    assert found.areas_mm2.tolist() == [BOTH_PIXELS * PIXEL_MM2] * 4
    assert found.num_kidney_slices == 10
    assert found.centre_mm == pytest.approx(142.5)


def test_slices_run_from_the_feet_to_the_head_in_every_orientation(make_kidneys, reorient, all_orientations):
    labels, affine = make_kidneys(range(4, 14))
    labels[:30, :, 10:] = 0  # the upper slices show the right kidney alone
    straight = select_kidney_slices(kidneys_of(labels, affine), num_slices=6)
    for orientation in all_orientations:
        turned, turned_affine = reorient(labels, affine, orientation)
        found = select_kidney_slices(kidneys_of(turned, turned_affine), num_slices=6)
        assert found.positions_mm.tolist() == straight.positions_mm.tolist()
        assert found.areas_mm2.tolist() == straight.areas_mm2.tolist()
        assert found.axis == volume_axes(turned_affine).superior
        assert (np.take(turned, found.indices, axis=found.axis) > 0).sum() == (
            (labels[:, :, straight.indices] > 0).sum()
        )


def test_positions_of_tilted_slices_lie_along_their_normal(make_kidneys):
    labels, affine = make_kidneys()
    angle = np.radians(12.0)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    tilted = affine.copy()
    tilted[:3] = turn @ affine[:3]
    found = select_kidney_slices(kidneys_of(labels, tilted), num_slices=10)
    assert np.diff(found.positions_mm) == pytest.approx(5.0)
    assert found.positions_mm[0] == pytest.approx(
        120.0
    )  # a turn about the origin keeps distances along the axis


def test_small_cross_sections_are_left_out(make_kidneys):
    labels, affine = make_kidneys(range(4, 14))
    labels[:, :, 4] = 0
    labels[10, 10, 4] = 3  # 12 mm² are left
    found = select_kidney_slices(kidneys_of(labels, affine), num_slices=2, min_area_mm2=12.1)
    assert found.indices.tolist() == [5, 13]
    assert found.num_kidney_slices == 10
    assert select_kidney_slices(kidneys_of(labels, affine), num_slices=2, min_area_mm2=12.0).indices[0] == 4


def test_too_little_kidney_is_refused(make_kidneys):
    with pytest.raises(InputRefused, match=r"MASK_TOO_SMALL: No slice shows 5000 mm².*is 2160\.0 mm²"):
        select_kidney_slices(kidneys_of(*make_kidneys()), num_slices=2, min_area_mm2=5000.0)


def test_whole_kidneys_are_not_cut_off(make_kidneys):
    assert field_of_view_findings(kidneys_of(*make_kidneys(range(1, 19)))) == ()


def test_a_missing_pole_is_named_with_its_side_in_every_orientation(make_kidneys, reorient, all_orientations):
    labels, affine = make_kidneys(range(0, 10))
    labels[:30, :, 0] = 0  # only the right kidney reaches the lowest slice
    labels[8:16, 39, 5] = 3  # and the left one, by a bridge, the front
    labels[10, 20:40, 5] = 3
    for orientation in all_orientations:
        findings = field_of_view_findings(kidneys_of(*reorient(labels, affine, orientation)))
        assert {finding.code for finding in findings} == {"KIDNEY_CUT_OFF"}
        assert [finding.message for finding in findings] == [
            "The right kidney reaches the lowest slice of the image; its inferior pole is cut off.",
            "The left kidney reaches the anterior border of the image and is cut off there.",
        ]


def test_both_ends_of_one_kidney_can_be_missing(make_kidneys):
    findings = field_of_view_findings(kidneys_of(*make_kidneys(range(20), left=False)))
    assert ["inferior" in f.message for f in findings] == [True, False]
    assert all("right kidney" in finding.message for finding in findings)


def test_oblique_slices_are_reported(make_kidneys):
    labels, affine = make_kidneys()
    angle = np.radians(30.0)
    affine[:3] = (
        np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        @ (affine[:3])
    )
    (finding,) = field_of_view_findings(kidneys_of(labels, affine))
    assert finding.message == "The slices are tilted 30° against the axial plane."
