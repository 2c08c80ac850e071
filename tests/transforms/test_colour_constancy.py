import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from shared_nets.transforms.colour_constancy import (
    ShadesOfGrayd,
    shades_of_gray,
    shades_of_gray_illuminant,
)


def grey_world(light=(1.0, 1.0, 1.0), size=40):
    """The same levels in every channel, each at other places, under a light."""
    rng = np.random.default_rng(0)
    levels = rng.permuted(np.tile(np.linspace(40, 180, size * size), (3, 1)), axis=1).reshape(3, size, size)
    return torch.from_numpy((levels * np.array(light)[:, None, None]).round().astype(np.uint8))


@pytest.mark.parametrize("power", [1.0, 6.0])
def test_the_colour_of_the_light_is_found_where_the_levels_of_all_channels_are_alike(power):
    light = np.array([1.3, 1.0, 0.7])
    expected = light / np.linalg.norm(light) * np.sqrt(3)
    found = shades_of_gray_illuminant(grey_world(light), power=power)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0.01)


def test_the_estimate_is_the_minkowski_mean_of_equation_7():
    photo = torch.tensor([[[100, 200]], [[50, 50]], [[30, 60]]], dtype=torch.uint8)
    means = [((100**6 + 200**6) / 2) ** (1 / 6), 50.0, ((30**6 + 60**6) / 2) ** (1 / 6)]
    expected = np.array(means) / np.linalg.norm(means) * np.sqrt(3)
    np.testing.assert_allclose(shades_of_gray_illuminant(photo).numpy(), expected, rtol=1e-5)


def test_the_light_is_taken_out():
    plain, lit = grey_world(), grey_world((1.2, 1.0, 0.8))
    mean = shades_of_gray(lit).float().mean(dim=(1, 2))
    assert float(mean.max() / mean.min()) < 1.01
    assert int((shades_of_gray(plain).int() - plain.int()).abs().max()) <= 1


def test_neither_the_black_surround_nor_clipped_pixels_change_the_estimate():
    photo = grey_world((1.2, 1.0, 0.8))
    spoiled = photo.clone()
    spoiled[:, :3], spoiled[:, -3:] = 5, 255
    expected = shades_of_gray_illuminant(photo[:, 3:-3])
    torch.testing.assert_close(shades_of_gray_illuminant(spoiled), expected)


@pytest.mark.parametrize("level", [0, 255])
def test_an_image_that_tells_nothing_of_the_light_stays_as_it_is(level):
    photo = torch.full((3, 10, 10), level, dtype=torch.uint8)
    assert torch.equal(shades_of_gray(photo), photo)


def test_a_channel_without_any_light_gives_no_numbers_that_are_not_finite():
    photo = grey_world()
    photo[2] = 0
    assert torch.isfinite(shades_of_gray_illuminant(photo)).all()
    assert int(shades_of_gray(photo)[2].max()) == 0


def test_the_original_and_its_meta_data_are_kept():
    photo = MetaTensor(grey_world((1.3, 1.0, 0.7)), meta={"source": "photograph"})
    out = ShadesOfGrayd()({"image": photo})
    assert out["photo"] is photo
    assert out["image"].meta["source"] == "photograph"
    assert out["image"].dtype == torch.uint8
    assert not torch.equal(out["image"].as_tensor(), photo.as_tensor())
    assert "photo" not in ShadesOfGrayd(photo_key=None)({"image": photo})


def test_other_shapes_and_powers_are_refused():
    with pytest.raises(ValueError, match=r"photo must be \(3, H, W\) uint8"):
        shades_of_gray(torch.zeros(1, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="power must be at least 1"):
        ShadesOfGrayd(power=0.5)
