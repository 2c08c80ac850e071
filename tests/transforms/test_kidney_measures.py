import numpy as np
import pytest

from shared_nets.transforms.kidney_measures import (
    SIDE_MEASURES,
    SLICE_MEASURES,
    left_side,
    side_measures,
    slice_measures,
)
from shared_nets.transforms.kidney_slice_augmentation import SliceAugmentation, augment_slice

STILL = SliceAugmentation(
    max_shift_mm=0.0,
    max_turn_degrees=0.0,
    max_log_scale=0.0,
    mirror_probability=0.0,
    thin_probability=0.0,
    drop_side_probability=0.0,
    plain_probability=0.0,
)


@pytest.fixture
def one_slice():
    """A 20 × 10 kidney with a 4 × 4 cyst on the left side of the person, a 12 × 12 tumour on the right."""
    labels, is_left = np.zeros((60, 80), np.uint8), np.zeros((60, 80), bool)
    labels[20:40, 55:65] = 1
    labels[28:32, 58:62] = 3
    labels[24:36, 10:22] = 2
    is_left[:, 40:] = labels[:, 40:] > 0
    return labels, is_left


def by_name(values, names):
    left, right = values.reshape(2, -1)
    return dict(zip(names, left, strict=True)), dict(zip(names, right, strict=True))


def test_areas_and_lengths_of_a_slice_are_those_drawn(one_slice):
    left, right = by_name(slice_measures(*one_slice, pixel_mm=2.0), SLICE_MEASURES)
    assert left["parenchyma_area_sqrt_cm"] ** 2 == pytest.approx((200 - 16) * 0.04)
    assert left["cyst_area_sqrt_cm"] ** 2 == pytest.approx(16 * 0.04)
    assert (left["width_mm"], left["height_mm"]) == (20.0, 40.0)
    assert left["solidity"] == pytest.approx(184 / 200)
    assert left["depth_max_mm"] == pytest.approx(8.0)  # four pixels from edge or cyst, wherever one stands
    assert right["tumour_area_sqrt_cm"] ** 2 == pytest.approx(144 * 0.04)
    assert right["parenchyma_area_sqrt_cm"] == 0.0


def test_measures_of_a_person_are_those_drawn():
    labels = np.zeros((30, 40, 90), np.uint8)
    labels[5:25, 10:30, 60:80] = 1  # columns run to the person's left
    labels[10:15, 15:20, 65:70] = 3
    is_left = left_side(labels, voxel_mm=2.0, midline_column=45.0)
    assert is_left[labels > 0].all()
    left, right = by_name(side_measures(labels, is_left, voxel_mm=2.0), SIDE_MEASURES)
    assert np.exp(left["parenchyma_log_ml"]) == pytest.approx((8000 - 125) * 0.008)
    assert np.expm1(left["cyst_log_ml"]) == pytest.approx(125 * 0.008)
    assert left["largest_area_cm2"] == pytest.approx(400 * 0.04)
    assert left["tumour_log_ml"] == 0.0
    assert all(np.isnan(value) for value in right.values())


def test_without_change_a_slice_is_only_put_in_the_middle(one_slice):
    labels, is_left = one_slice
    out, side = augment_slice(
        labels, is_left, canvas=100, pixel_mm=2.0, how=STILL, rng=np.random.default_rng(0)
    )
    assert np.array_equal(out[20:80, 10:90], labels)
    assert np.array_equal(side[20:80, 10:90], is_left)


def test_a_mirrored_slice_has_its_sides_exchanged(one_slice):
    labels, is_left = one_slice
    how = SliceAugmentation(**{**STILL.__dict__, "mirror_probability": 1.0})
    out, side = augment_slice(
        labels, is_left, canvas=100, pixel_mm=2.0, how=how, rng=np.random.default_rng(0)
    )
    before = slice_measures(labels, is_left, pixel_mm=2.0).reshape(2, -1)
    after = slice_measures(out, side, pixel_mm=2.0).reshape(2, -1)
    np.testing.assert_allclose(after, before[::-1], rtol=1e-6)


def test_random_changes_come_from_the_generator_alone(one_slice):
    how = SliceAugmentation()
    first, second = (
        augment_slice(*one_slice, canvas=100, pixel_mm=2.0, how=how, rng=np.random.default_rng(5))[0]
        for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert set(np.unique(first)) <= {0, 1, 2, 3}
