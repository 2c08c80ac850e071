"""Two plausible kidneys are kept, named by the spine, measured, and doubted where there is reason to."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch

from shared_nets.transforms.find_kidneys import find_kidneys, kidney_volume_ml, measure_kidneys
from shared_nets.transforms.network_grid import network_grid

SPACING = 3.0
SHAPE = (120, 90, 80)
RAS = np.diag([SPACING, SPACING, SPACING, 1.0])
RIGHT, LEFT = (85, 35, 40), (40, 35, 42)  # right is +x in RAS
RADII = (10, 9, 15)  # voxels; 5655 of 0.027 mL: 152.7 mL


def ellipsoid(centre, radii=RADII, shape=SHAPE) -> np.ndarray:
    places = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    return np.square((places - np.array(centre)) / np.array(radii)).sum(-1) <= 1.0


def body(*kidneys: np.ndarray, spine_x: int = 62) -> tuple[torch.Tensor, torch.Tensor]:
    """Probability and density of a body with a spine; everything in ``kidneys`` is taken for kidney."""
    hu = np.full(SHAPE, -1000.0, dtype=np.float32)
    hu[10:112, 10:80] = 40.0
    hu[spine_x - 6 : spine_x + 7, 18:34] = 400.0
    kidney = np.any(kidneys, axis=0) if kidneys else np.zeros(SHAPE, dtype=bool)
    hu[kidney] = 150.0
    return torch.from_numpy(kidney.astype(np.float32)), torch.from_numpy(hu)


def found_in(*kidneys: np.ndarray, affine=RAS, **options):
    probability, hu = body(*kidneys, **options)
    return find_kidneys(probability, hu, network_grid(SHAPE, affine, spacing_mm=SPACING))


def test_both_kidneys_are_found_and_named_by_their_side():
    found = found_in(ellipsoid(RIGHT), ellipsoid(LEFT))
    whole = found.mask.whole()
    assert (whole[RIGHT], whole[LEFT]) == (1, 2)
    assert np.array_equal(whole > 0, ellipsoid(RIGHT) | ellipsoid(LEFT))
    assert found.findings == ()
    assert found.midline_x_mm == pytest.approx(62 * SPACING, abs=1.0)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_sides_stay_the_same_in_every_axis_order_and_direction(order):
    probability, hu = body(ellipsoid(RIGHT), ellipsoid(LEFT))
    for signs in itertools.product([1, -1], repeat=3):
        orientation = np.array(list(zip(order, signs, strict=True)), dtype=float)
        shape = nib.orientations.apply_orientation(np.empty(SHAPE, dtype=bool), orientation).shape
        affine = RAS @ nib.orientations.inv_ornt_aff(orientation, SHAPE)
        found = find_kidneys(probability, hu, network_grid(shape, affine, spacing_mm=SPACING))
        back = nib.orientations.apply_orientation(found.mask.whole(), nib.io_orientation(affine))
        assert (back[RIGHT], back[LEFT]) == (1, 2)
        assert np.array_equal(back > 0, ellipsoid(RIGHT) | ellipsoid(LEFT))


def test_a_single_kidney_is_named_by_the_spine_not_by_the_field_of_view():
    off_centre = (65, 44, 40)  # right of the middle of the image, and left of this spine
    found = found_in(ellipsoid(off_centre), spine_x=80)
    assert set(np.unique(found.mask.whole())) == {0, 2}
    kidneys, further = measure_kidneys(found.mask, None, found.findings)
    assert list(kidneys) == ["left"]
    assert [finding.code for finding in further] == ["KIDNEY_ABSENT"]
    assert "right" in further[0].message


def test_specks_and_distant_pieces_are_left_out():
    speck = ellipsoid((90, 70, 70), (2, 2, 2))  # under 8 mL
    distant = ellipsoid((40, 60, 10), (4, 4, 4))  # 7 mL, far from the kidney
    found = found_in(ellipsoid(RIGHT), ellipsoid(LEFT), speck, distant)
    assert np.array_equal(found.mask.whole() > 0, ellipsoid(RIGHT) | ellipsoid(LEFT))


def test_a_piece_beside_its_kidney_is_kept():
    near = ellipsoid((85, 35, 60), (5, 5, 3))  # two voxels above the right kidney's pole
    found = found_in(ellipsoid(RIGHT), ellipsoid(LEFT), near)
    assert found.mask.whole()[85, 35, 60] == 1


def test_a_second_organ_that_looks_like_kidney_is_doubted():
    rival = ellipsoid((90, 65, 40), (9, 9, 12))  # 110 mL: a bowel loop, or a transplant
    found = found_in(ellipsoid(RIGHT), ellipsoid(LEFT), rival)
    assert [finding.code for finding in found.findings] == ["KIDNEY_CANDIDATES_SEVERAL"]
    assert found.mask.whole()[90, 65, 40] == 0


def test_a_kidney_at_the_last_slice_is_cut_off_and_its_volume_is_not_judged():
    found = found_in(ellipsoid((85, 35, 2)), ellipsoid(LEFT))
    assert [finding.code for finding in found.findings] == ["KIDNEY_CUT_OFF"]
    kidneys, further = measure_kidneys(found.mask, None, found.findings)
    assert kidneys["right"].is_cut_off
    assert not kidneys["left"].is_cut_off
    assert further == ()


def test_volume_length_and_density_are_those_of_the_ellipsoid():
    probability, hu = body(ellipsoid(RIGHT), ellipsoid(LEFT))
    found = find_kidneys(probability, hu, network_grid(SHAPE, RAS, spacing_mm=SPACING))
    kidneys, further = measure_kidneys(found.mask, hu.numpy(), found.findings)
    assert further == ()
    # 4/3 π · 30 · 27 · 45 mm³ = 152.7 mL; the voxels count 1 % less
    assert kidneys["right"].volume_ml == pytest.approx(152.7, rel=0.02)
    assert kidneys["right"].length_mm == pytest.approx(90.0, abs=3.0)
    assert kidneys["right"].mean_hu == 150.0


def test_a_small_kidney_is_called_unusual():
    found = found_in(ellipsoid(RIGHT, (6, 6, 8)), ellipsoid(LEFT))  # 32 mL
    _, further = measure_kidneys(found.mask, None, found.findings)
    assert [finding.code for finding in further] == ["KIDNEY_VOLUME_UNUSUAL"]
    assert "right kidney" in further[0].message


def test_nothing_of_the_size_of_a_kidney_is_nothing():
    assert found_in(ellipsoid(RIGHT, (3, 3, 4))) is None
    assert found_in() is None


def test_all_that_was_taken_for_kidney_counts():
    probability, _ = body(ellipsoid(RIGHT))
    grid = network_grid(SHAPE, RAS, spacing_mm=SPACING)
    assert kidney_volume_ml(probability, grid) == pytest.approx(ellipsoid(RIGHT).sum() * 0.027)
