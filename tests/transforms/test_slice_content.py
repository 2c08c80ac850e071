"""What a pixel of the network's picture holds, and where on the body it lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from shared_nets.transforms.kidney_slices import volume_axes
from shared_nets.transforms.slice_content import SliceContent, displayed, picture_grid, slice_pictures


def pictures(labels, hu=None, *, img_size, pixel_mm=(1.0, 1.0), box=None, what=None, **sampling):
    """Pictures of whole slices ``(S, R, C)``; the kidney box is the slice unless given."""
    box = box or (slice(0, labels.shape[1]), slice(0, labels.shape[2]))
    grid = picture_grid(
        img_size=img_size, slice_shape=labels.shape[1:], pixel_mm=pixel_mm, kidney_box=box, **sampling
    )
    return slice_pictures(
        labels[:, box[0], box[1]], hu, kidney_box=box, grid=grid, what=what or SliceContent(content="mask")
    )


def test_the_patients_right_is_on_the_left_and_the_front_on_top(reorient, all_orientations):
    volume = np.zeros((4, 5, 3), dtype=np.uint8)  # x to the right, y to the front, z to the head
    volume[3, 4, 2] = 7  # right, front, top
    for orientation in all_orientations:
        turned, affine = reorient(volume, np.eye(4), orientation)
        axes = volume_axes(affine)
        shown = displayed(turned, axes)
        assert shown.shape == (3, 5, 4)
        assert shown[2 if axes.superior_grows else 0, 0, 0] == 7


def test_the_whole_field_of_view_is_shown_by_default():
    labels = np.ones((1, 4, 4), dtype=np.uint8)
    assert torch.equal(pictures(labels, img_size=4), torch.ones(1, 4, 4))


def test_a_field_of_view_that_is_not_square_is_not_stretched():
    labels = np.ones((1, 2, 4), dtype=np.uint8)
    shown = pictures(labels, img_size=4)
    assert shown[0].tolist() == [[0.0] * 4, [1.0] * 4, [1.0] * 4, [0.0] * 4]


def test_pixels_that_are_not_square_keep_their_proportions():
    labels = np.ones((1, 4, 8), dtype=np.uint8)
    assert torch.equal(pictures(labels, img_size=4, pixel_mm=(2.0, 1.0)), torch.ones(1, 4, 4))


def test_a_smaller_picture_holds_the_mean_of_what_it_covers():
    hu = np.arange(16, dtype=np.int16).reshape(1, 4, 4)
    shown = pictures(
        np.ones((1, 4, 4), np.uint8), hu, img_size=2, what=SliceContent(content="ct", window_hu=(0, 100))
    )
    expected = [
        [(0 + 1 + 4 + 5) / 400, (2 + 3 + 6 + 7) / 400],
        [(8 + 9 + 12 + 13) / 400, (10 + 11 + 14 + 15) / 400],
    ]
    assert shown[0].numpy() == pytest.approx(np.array(expected))


def test_a_larger_picture_is_interpolated_linearly():
    hu = np.random.default_rng(0).integers(0, 100, (1, 6, 6)).astype(np.int16)
    shown = pictures(
        np.ones((1, 6, 6), np.uint8), hu, img_size=18, what=SliceContent(content="ct", window_hu=(0, 100))
    )
    expected = F.interpolate(torch.from_numpy(hu / 100.0)[None].float(), size=18, mode="bilinear")[0]
    assert torch.allclose(
        shown[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=1e-6
    )  # the rim fades to background


@pytest.mark.parametrize("pixel_size_mm", [0.5, 0.83, 1.5, 2.6])
def test_a_fixed_pixel_size_keeps_the_area_of_the_kidneys(pixel_size_mm):
    labels = np.zeros((1, 80, 100), dtype=np.uint8)
    box = (slice(20, 50), slice(10, 60))
    labels[0, 22:50, 10:58] = 1
    labels[0, 30:40, 20:30] = 0
    shown = pictures(labels, img_size=160, pixel_mm=(0.8, 0.7), box=box, pixel_size_mm=pixel_size_mm)
    # linear interpolation keeps areas to 0.1 %, area averaging exactly
    assert float(shown.sum()) * pixel_size_mm**2 == pytest.approx(labels.sum() * 0.8 * 0.7, rel=1e-3)


def test_a_fixed_pixel_size_is_centred_on_the_kidneys():
    labels = np.zeros((1, 40, 40), dtype=np.uint8)
    labels[0, 2:6, 30:34] = 1
    shown = pictures(labels, img_size=8, box=(slice(2, 6), slice(30, 34)), pixel_size_mm=1.0)
    assert shown[0].nonzero().min(dim=0).values.tolist() == [2, 2]
    assert shown[0].nonzero().max(dim=0).values.tolist() == [5, 5]


def test_a_crop_shows_the_kidneys_and_their_margin():
    labels = np.zeros((1, 40, 40), dtype=np.uint8)
    labels[0, 10:14, 10:18] = 1
    shown = pictures(labels, img_size=12, box=(slice(10, 14), slice(10, 18)), crop_margin_mm=2.0)
    # 8 mm wide and 2 mm around: 12 mm for 12 pixels
    assert shown[0].sum(dim=0).tolist() == [0, 0, 4, 4, 4, 4, 4, 4, 4, 4, 0, 0]
    assert shown[0].sum(dim=1).tolist() == [0, 0, 0, 0, 8, 8, 8, 8, 0, 0, 0, 0]


@pytest.mark.parametrize(("pixel_size_mm", "is_cut"), [(1.0, False), (0.9, True)])
def test_kidneys_larger_than_the_picture_are_noticed(pixel_size_mm, is_cut):
    grid = picture_grid(
        img_size=10,
        slice_shape=(40, 40),
        pixel_mm=(1.0, 1.0),
        kidney_box=(slice(0, 4), slice(0, 10)),
        pixel_size_mm=pixel_size_mm,
    )
    assert grid.cuts_kidneys is is_cut


def test_hounsfield_units_are_clipped_to_the_window_and_scaled():
    hu = np.array([[[-2000, -160], [40, 3000]]], dtype=np.int16)
    what = SliceContent(content="ct", window_hu=(-160, 240))
    shown = pictures(np.ones((1, 2, 2), np.uint8), hu, img_size=2, what=what)
    assert shown[0].tolist() == [[0.0, 0.0], [0.5, 1.0]]


def test_background_of_masked_ct_is_the_lower_end_of_the_window():
    hu = np.full((1, 2, 2), 40, dtype=np.int16)
    labels = np.array([[[1, 0], [2, 3]]], dtype=np.uint8)
    what = SliceContent(content="masked_ct", window_hu=(-160, 240))
    assert pictures(labels, hu, img_size=2, what=what)[0].tolist() == [[0.5, 0.0], [0.5, 0.5]]


def test_normalisation_comes_last():
    hu = np.full((1, 2, 2), 40, dtype=np.int16)
    what = SliceContent(content="ct", window_hu=(-160, 240), subtrahend=0.25, divisor=0.5)
    assert pictures(np.ones((1, 2, 2), np.uint8), hu, img_size=2, what=what)[0].tolist() == [[0.5, 0.5]] * 2


def test_labels_have_their_own_values_in_a_mask():
    labels = np.array([[[0, 1], [2, 3]]], dtype=np.uint8)
    what = SliceContent(content="mask", tumour_value=0.5, cyst_value=0.25)
    assert pictures(labels, img_size=2, what=what)[0].tolist() == [[0.0, 1.0], [0.5, 0.25]]


def test_outside_the_image_there_is_background():
    labels = np.ones((1, 4, 4), dtype=np.uint8)
    shown = pictures(labels, img_size=8, pixel_size_mm=1.0)
    assert float(shown.sum()) == 16.0
    assert float(shown[0, 2:6, 2:6].sum()) == 16.0


def test_kidneys_outside_the_picture_leave_it_empty():
    labels = np.zeros((1, 40, 40), dtype=np.uint8)
    labels[0, :4, :4] = labels[0, 36:, 36:] = 1
    assert float(pictures(labels, img_size=4, pixel_size_mm=1.0).sum()) == 0.0


def test_the_ct_is_not_changed():
    hu = np.full((1, 4, 4), 5000.0, dtype=np.float32)
    pictures(np.ones((1, 4, 4), np.uint8), hu, img_size=4, what=SliceContent())
    assert (hu == 5000.0).all()


def test_a_ct_is_needed_unless_the_mask_is_shown():
    with pytest.raises(ValueError, match="hu must be given for content 'ct', got None"):
        pictures(np.ones((1, 2, 2), np.uint8), img_size=2, what=SliceContent(content="ct"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"content": "pixels"}, "content must be one of"),
        ({"window_hu": (240, -160)}, "window_hu must be"),
        ({"divisor": 0.0}, "divisor must not be 0"),
    ],
)
def test_bad_content_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        SliceContent(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 0}, "img_size must be at least 1"),
        ({"img_size": 4, "pixel_size_mm": 0.0}, "pixel_size_mm must be positive"),
        ({"img_size": 4, "crop_margin_mm": -1.0}, "crop_margin_mm must be 0 or more"),
        ({"img_size": 4, "crop_margin_mm": 1.0, "pixel_size_mm": 1.0}, "must not both be given"),
    ],
)
def test_bad_sampling_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        pictures(np.ones((1, 4, 4), np.uint8), **options)
