"""A CT in any orientation reaches the coarse grid and comes back where it was."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from shared_nets.refusals import InputRefused
from shared_nets.transforms.network_grid import (
    ToNetworkGridd,
    from_network_grid,
    network_grid,
    to_network_grid,
)

RAS = np.diag([3.0, 3.0, 3.0, 1.0])
#: Every order and direction of three axes.
ORIENTATIONS = [
    np.array(list(zip(order, signs, strict=True)), dtype=float)
    for order in itertools.permutations(range(3))
    for signs in itertools.product([1, -1], repeat=3)
]


def turned(volume: np.ndarray, affine: np.ndarray, orientation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same body with other axes."""
    shape = volume.shape
    return nib.orientations.apply_orientation(volume, orientation), affine @ nib.orientations.inv_ornt_aff(
        orientation, shape
    )


def ramp(shape=(12, 10, 8)) -> np.ndarray:
    """Every voxel holds its RAS position: 10000·x + 100·y + z."""
    x, y, z = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return (10000 * x + 100 * y + z).astype(np.int32)


@pytest.mark.parametrize(
    "orientation", ORIENTATIONS, ids=lambda o: "".join(f"{int(w)}{'+-'[int(d < 0)]}" for w, d in o)
)
def test_all_48_orientations_give_one_coarse_volume_and_get_their_mask_back(orientation):
    volume, affine = turned(ramp(), RAS, orientation)
    grid = network_grid(volume.shape, affine, spacing_mm=3.0)
    assert np.allclose(grid.affine, RAS)
    coarse = to_network_grid(volume, grid)
    assert torch.equal(coarse, torch.from_numpy(ramp()).float())

    wanted = np.zeros((12, 10, 8), dtype=bool)
    wanted[2:5, 6:9, 1:7] = True
    box, offset = from_network_grid(torch.from_numpy(wanted).float(), grid, threshold=0.5)
    whole = np.zeros(volume.shape, dtype=bool)
    whole[tuple(slice(o, o + n) for o, n in zip(offset, box.shape, strict=True))] = box
    assert np.array_equal(whole, turned(wanted, RAS, orientation)[0])


def test_a_finer_ct_is_averaged_and_nothing_is_skipped():
    volume = np.zeros((8, 8, 8), dtype=np.int16)
    volume[1, 0, 1] = 800  # one of the 64 voxels under the first coarse one
    grid = network_grid(volume.shape, np.diag([0.75, 0.75, 0.75, 1.0]), spacing_mm=3.0)
    assert grid.shape == (2, 2, 2)
    coarse = to_network_grid(volume, grid)
    assert coarse[0, 0, 0] == pytest.approx(800 / 64)
    assert coarse.sum() == pytest.approx(800 / 64)


def test_thick_slices_are_interpolated_between_their_centres():
    volume = np.broadcast_to(np.array([0.0, 60.0]), (4, 4, 2))  # 6 mm slices
    grid = network_grid(volume.shape, np.diag([3.0, 3.0, 6.0, 1.0]), spacing_mm=3.0)
    # centres of the 3 mm voxels lie at 1.5, 4.5, 7.5, 10.5 mm, of the slices at 3 and 9 mm
    assert to_network_grid(volume, grid)[0, 0].tolist() == pytest.approx([0.0, 15.0, 45.0, 60.0])


def test_the_coarse_affine_keeps_the_edges_of_the_field_of_view():
    affine = np.diag([0.7, 0.7, 2.5, 1.0])
    affine[:3, 3] = [-100.0, 20.0, 5.0]
    grid = network_grid((301, 200, 50), affine, spacing_mm=3.0)
    for corner in itertools.product([0, 1], repeat=3):
        fine = np.array([n * c - 0.5 for n, c in zip((301, 200, 50), corner, strict=True)])
        coarse = np.array([n * c - 0.5 for n, c in zip(grid.shape, corner, strict=True)])
        assert np.allclose(affine @ [*fine, 1.0], grid.affine @ [*coarse, 1.0])


def test_a_ball_keeps_its_volume_and_place_on_the_way_there_and_back():
    spacing = np.array([0.8, 0.8, 2.0])
    centre_mm, radius_mm = np.array([40.0, 36.0, 50.0]), 25.0
    places = np.stack(np.meshgrid(*[np.arange(n) for n in (100, 90, 50)], indexing="ij"), -1) * spacing
    ball = np.square(places - centre_mm).sum(-1) <= radius_mm**2
    grid = network_grid(ball.shape, np.diag([*spacing, 1.0]), spacing_mm=3.0)
    box, offset = from_network_grid(to_network_grid(ball.astype(np.uint8), grid), grid, threshold=0.5)
    back = np.zeros_like(ball)
    back[tuple(slice(o, o + n) for o, n in zip(offset, box.shape, strict=True))] = box
    dice = 2 * (ball & back).sum() / (ball.sum() + back.sum())
    assert dice > 0.97
    assert np.allclose(places[back].mean(axis=0), centre_mm, atol=0.2)


def test_nothing_above_the_threshold_gives_an_empty_box():
    grid = network_grid((4, 4, 4), RAS, spacing_mm=3.0)
    box, _ = from_network_grid(torch.zeros(4, 4, 4), grid, threshold=0.5)
    assert box.size == 0


def test_the_transform_windows_the_network_input_and_keeps_the_ct():
    ct = MetaTensor(torch.full((1, 4, 4, 4), 100, dtype=torch.int16), affine=torch.from_numpy(RAS))
    data = ToNetworkGridd("image", spacing_mm=3.0, window_hu=(-200.0, 400.0))({"image": ct})
    assert data["image"].shape == (1, 4, 4, 4)
    assert torch.allclose(data["image"], torch.tensor(0.5))
    assert data["coarse_hu"].unique().tolist() == [100.0]
    assert data["ct"] is ct


def test_a_field_of_view_of_many_metres_is_refused():
    with pytest.raises(InputRefused, match="no part of a body") as caught:
        network_grid((512, 512, 600), np.diag([10.0, 10.0, 10.0, 1.0]), spacing_mm=3.0)
    assert caught.value.code == "GEOMETRY_NOT_A_VOLUME"
