import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from shared_nets.blocks.slice_geometry import PAIR, SIDE, SliceGeometry, distance_to_outside

MM = 2.5
AREA, VOLUME, CYST = (SIDE.index(n) for n in ("largest_area_log_cm2", "parenchyma_log_ml", "cyst_log_ml"))


def two_kidneys(radius_left=24.0, radius_right=18.0, cyst_radius=0.0):
    """Balls of the given radii in mm on 40 slices; the left kidney is on the right of the picture."""
    positions = torch.arange(40) * MM
    z, y, x = torch.meshgrid(
        positions - 50, torch.arange(64) * MM - 80, torch.arange(64) * MM - 80, indexing="ij"
    )
    left = (x - 45).square() + y.square() + z.square() <= radius_left**2
    right = (x + 45).square() + y.square() + z.square() <= radius_right**2
    pictures = (left | right).float()
    pictures[(x - 45).square() + y.square() + z.square() <= cyst_radius**2] = -1.0
    return pictures[None], torch.ones(1, 40, dtype=torch.bool), positions[None]


def test_distance_agrees_with_scipy_on_uneven_slices():
    rng = np.random.default_rng(0)
    inside = ndimage.binary_dilation(rng.random((6, 20, 24)) < 0.1, iterations=2)
    inside[:, 0], inside[:, -1], inside[..., 0], inside[..., -1] = False, False, False, False
    inside[0], inside[-1] = False, False
    ours = distance_to_outside(torch.from_numpy(inside), torch.arange(6) * 6.0, 2.5)
    theirs = ndimage.distance_transform_edt(inside, sampling=(6.0, 2.5, 2.5))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


def test_balls_have_the_volume_and_area_of_balls():
    measures = SliceGeometry().measures(*two_kidneys())[:, : 2 * len(SIDE)].reshape(2, -1)
    for side, radius_cm in enumerate((2.4, 1.8)):  # left first
        # counting voxels of 2.5 mm: within 5 % of the formula
        assert math.exp(measures[side, VOLUME]) == pytest.approx(4 / 3 * math.pi * radius_cm**3, rel=0.05)
        assert math.exp(measures[side, AREA]) == pytest.approx(math.pi * radius_cm**2, rel=0.05)
        # the mean depth in a ball is a quarter of its radius; the surface is known to half a voxel
        assert measures[side, 0] == pytest.approx(10 * radius_cm / 4, abs=MM / 2)


def test_a_mirrored_picture_exchanges_the_sides():
    pictures, valid, positions = two_kidneys()
    geometry = SliceGeometry()
    left, right = geometry.measures(pictures, valid, positions)[:, : 2 * len(SIDE)].reshape(2, -1)
    mirrored = geometry.measures(pictures.flip(-1), valid, positions)[:, : 2 * len(SIDE)].reshape(2, -1)
    torch.testing.assert_close(mirrored, torch.stack([right, left]), atol=1e-4, rtol=1e-4)


def test_a_cyst_is_no_parenchyma():
    plain = SliceGeometry().measures(*two_kidneys())[:, : 2 * len(SIDE)].reshape(2, -1)
    cystic = SliceGeometry().measures(*two_kidneys(cyst_radius=12.0))[:, : 2 * len(SIDE)].reshape(2, -1)
    cyst_ml = math.expm1(cystic[0, CYST])
    assert cyst_ml == pytest.approx(4 / 3 * math.pi * 1.2**3, rel=0.1)
    assert math.exp(plain[0, VOLUME]) - math.exp(cystic[0, VOLUME]) == pytest.approx(cyst_ml, rel=1e-2)
    assert cystic[0, 0] < plain[0, 0]
    torch.testing.assert_close(plain[1], cystic[1])


def test_the_pair_holds_the_smaller_side_and_the_total():
    measures = SliceGeometry().measures(*two_kidneys(cyst_radius=12.0))[0]
    left, right, pair = measures[:5], measures[5:10], dict(zip(PAIR, measures[10:], strict=True))
    assert pair["smaller_depth_mean_mm"] == min(left[0], right[0])
    assert pair["smaller_parenchyma_log_ml"] == right[2]
    assert pair["mean_depth_mean_mm"] == pytest.approx((left[0] + right[0]).item() / 2)
    assert pair["total_parenchyma_log_ml"].exp() == pytest.approx((left[2].exp() + right[2].exp()).item())
    assert pair["total_cyst_log_ml"] == pytest.approx(left[4].item())  # the right kidney has none


def test_a_missing_kidney_has_the_lowest_ranks():
    geometry = SliceGeometry()
    measures = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    geometry.set_knots(measures)
    pictures, valid, positions = two_kidneys(radius_right=0.0)
    ranks = geometry(pictures, valid, positions)[:, : 2 * len(SIDE)].reshape(2, -1)
    assert (ranks[0] > -0.9).any()
    assert (ranks[1] == -0.9).all()


def test_ranks_run_from_lowest_to_highest_known_person():
    geometry = SliceGeometry()
    people = torch.linspace(0.0, 10.0, 50)[:, None].expand(-1, 16)
    geometry.set_knots(people)
    ranks = geometry.ranks(torch.tensor([0.0, 5.0, 10.0, 99.0])[:, None].expand(-1, 16))[:, 0]
    torch.testing.assert_close(ranks, torch.tensor([-0.9, 0.0, 0.9, 0.9]), atol=1e-5, rtol=0)


def test_many_people_at_zero_share_the_middle_rank():
    geometry = SliceGeometry()
    geometry.set_knots(torch.cat([torch.zeros(50, 16), torch.linspace(0.1, 1, 50)[:, None].expand(-1, 16)]))
    assert -0.6 < geometry.ranks(torch.zeros(1, 16))[0, 0] < -0.3


def test_values_that_do_not_tell_tissues_apart_are_refused():
    with pytest.raises(ValueError, match=r"cyst_value must lie below 0 .* got 0.25 and 0.5"):
        SliceGeometry(cyst_value=0.25)
