import numpy as np
import pytest
import torch
from skimage.color import rgb2yiq

from shared_nets.transforms.dermoscopy_batch import RandomDermoscopyBatch

NOTHING = {
    name: 0.0
    for name in ("max_turn_degrees", "max_scale", "max_shift", "brightness", "contrast", "saturation", "hue")
}


def batch(size: int = 16, height: int = 12, width: int = 12) -> torch.Tensor:
    return torch.rand(size, 3, height, width, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2


def only(**chosen: float) -> RandomDermoscopyBatch:
    return RandomDermoscopyBatch(**{**NOTHING, **chosen})


def test_with_nothing_else_allowed_an_image_is_one_of_its_eight_turns_and_mirrors_and_all_occur():
    images = batch(64)
    kinds = [(turn, mirrored) for turn in range(4) for mirrored in (False, True)]
    seen = set()
    for image, out in zip(images, only()(images), strict=True):
        forms = [torch.rot90(image.flip(-1) if mirrored else image, turn, (1, 2)) for turn, mirrored in kinds]
        distances = [float((form - out).abs().max()) for form in forms]
        assert min(distances) < 1e-4  # grid_sample rounds positions in float32
        seen.add(kinds[int(np.argmin(distances))])
    assert seen == set(kinds)


def test_a_turn_keeps_a_centred_disc_and_its_colours_on_a_wide_image():
    rows, columns = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(64) - 31.5, indexing="ij")
    disc = ((rows**2 + columns**2) < 12**2).float().expand(8, 3, -1, -1)
    near = rows**2 + columns**2 < 20**2  # farther out, the mirrored edge brings the disc in again
    change = (only(max_turn_degrees=180.0)(disc) - disc).abs()[..., near]
    assert float(change.mean()) < 0.02  # the rim of the disc is resampled


def test_scale_and_shift_stay_within_their_limits():
    square = torch.zeros(200, 3, 64, 64)
    square[:, :, 22:42, 22:42] = 1.0
    scaled = only(max_scale=0.2)(square)[:, 0].sum(dim=(1, 2)) / 400.0
    assert 1 / 1.2**2 - 0.02 <= float(scaled.min()) < 0.75
    assert 1.35 < float(scaled.max()) <= 1.2**2 + 0.02
    shifted = only(max_shift=0.1)(square)[:, 0]
    centre = (shifted.sum(dim=1) * (torch.arange(64) + 0.5)).sum(dim=1) / shifted.sum(dim=(1, 2)) - 32
    assert 5.0 < float(centre.abs().max()) <= 6.4 + 1e-3


@pytest.mark.parametrize("channel_value", [0.2, 0.5, 0.8])
def test_grey_stays_grey_whatever_happens_to_saturation_and_hue(channel_value):
    images = torch.full((8, 3, 5, 5), channel_value)
    torch.testing.assert_close(only(saturation=1.0, hue=0.5)(images), images, atol=1e-6, rtol=0)


def test_hue_turns_chroma_by_at_most_its_share_of_a_circle_and_keeps_luma():
    images = (0.5 + 0.1 * (batch(200, 1, 1) - 0.5)).clamp(0, 1)
    out = only(hue=0.1)(images)
    before, after = (rgb2yiq(colours[:, :, 0, 0].double().numpy()) for colours in (images, out))
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=1e-4)
    turn = np.angle((after[:, 1] + 1j * after[:, 2]) / (before[:, 1] + 1j * before[:, 2])) / (2 * np.pi)
    assert 0.09 < np.abs(turn).max() <= 0.1 + 1e-3


def test_brightness_multiplies_and_contrast_keeps_the_mean_grey():
    images = 0.4 * batch(100) + 0.2
    ratio = only(brightness=0.3)(images).mean(dim=(1, 2, 3)) / images.mean(dim=(1, 2, 3))
    assert 0.69 < float(ratio.min()) < 0.75
    assert 1.25 < float(ratio.max()) < 1.31
    out = only(contrast=0.3)(images)
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    grey_before, grey_after = ((luma * x).sum(dim=1).mean(dim=(1, 2)) for x in (images, out))
    torch.testing.assert_close(grey_after, grey_before, atol=1e-5, rtol=0)
    spread = out.std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3))
    assert float(spread.min()) < 0.8
    assert float(spread.max()) > 1.2


def test_cutout_paints_one_square_in_the_mean_colour():
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0] = torch.linspace(0, 1, 32)
    out = only(cutout=0.5)(image.expand(50, -1, -1, -1))
    painted = (out[:, 0] - 0.5).abs() < 1e-6  # no column of the ramp has its mean
    assert 0 < int(painted.sum(dim=(1, 2)).max()) <= 16 * 16
    assert float(painted.float().mean()) > 0.01


def test_the_same_seed_and_step_give_the_same_bits_and_others_do_not():
    images = batch()
    first, again, other = (RandomDermoscopyBatch(seed=seed) for seed in (3, 3, 4))
    run = [first(images) for _ in range(3)]
    again.step = 2
    assert torch.equal(again(images), run[2])
    assert not torch.equal(other(images), run[0])
    assert not torch.equal(run[0], run[1])


def test_a_resumed_training_draws_what_it_would_have_drawn():
    images = batch()
    straight = RandomDermoscopyBatch(seed=5)
    straight(images)
    state = straight.state_dict()
    resumed = RandomDermoscopyBatch(seed=0)
    resumed.load_state_dict(state)
    assert torch.equal(resumed(images), straight(images))


def test_range_type_and_shape_stay_and_the_input_is_left_alone():
    images = batch(4, 28, 28).double()
    before = images.clone()
    out = RandomDermoscopyBatch(brightness=1.0, contrast=1.0, saturation=1.0, cutout=0.4)(images)
    assert out.shape == images.shape
    assert out.dtype == torch.float64
    assert 0.0 <= float(out.min()) <= float(out.max()) <= 1.0
    assert torch.equal(images, before)
    assert RandomDermoscopyBatch()(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 1, 8, 8), torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)]
)
def test_other_shapes_and_types_are_refused(images):
    with pytest.raises(ValueError, match=r"images must be floating, \(B, 3, H, W\)"):
        RandomDermoscopyBatch()(images)


@pytest.mark.parametrize(("name", "value"), [("max_shift", -0.1), ("hue", 0.6), ("seed", -1), ("seed", 1.5)])
def test_arguments_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must"):
        RandomDermoscopyBatch(**{name: value})


def test_exact_images_are_mirrored_and_turned_by_quarters_only():
    images = torch.rand(16, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    change = RandomDermoscopyBatch(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, exact_share=1.0)
    for before, after in zip(images, change(images), strict=True):
        turned = [torch.rot90(x, k, (1, 2)) for x in (before, before.flip(2)) for k in range(4)]
        assert min(float((after - x).abs().max()) for x in turned) < 1e-5
