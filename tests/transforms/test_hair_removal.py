import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from shared_nets.transforms.dermoscopy_artefacts import draw_hairs
from shared_nets.transforms.hair_removal import RemoveHaird, hair_mask, remove_hair


def skin(height=384, width=512, seed=0):
    """Skin with a round brown lesion and some texture, ``(3, H, W)`` 0 … 1."""
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows - height / 2) ** 2 + (columns - width / 2) ** 2) < (height / 4) ** 2
    shape = ndimage.gaussian_filter(inside.astype(float), height / 100)
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, (height, width)), 3) * 0.08
    light, brown = np.array([0.88, 0.70, 0.62]), np.array([0.45, 0.28, 0.2])
    image = light + shape[..., None] * (brown - light) + texture[..., None]
    return torch.from_numpy(image.clip(0, 1)).permute(2, 0, 1).float()


def to_bytes(image):
    return (image * 255).round().to(torch.uint8)


@pytest.mark.parametrize("scale", [1, 3])
def test_drawn_hairs_are_found_and_removed_at_the_size_of_a_camera_too(scale):
    clean = skin(384 * scale, 512 * scale)
    hairy = draw_hairs(clean, num_hairs=8, width=0.007, rng=np.random.RandomState(3))
    truth = (hairy - clean).abs().amax(dim=0) > 0.15
    mask = hair_mask(to_bytes(hairy))
    assert float((mask & truth).sum() / truth.sum()) > 0.9
    assert float((mask & ~ndimage_grown(truth, 4 * scale)).float().mean()) < 0.002
    restored = remove_hair(to_bytes(hairy)).float() / 255
    before, after = (float((x - clean).abs().mean()) for x in (hairy, restored))
    assert after < 0.25 * before


def ndimage_grown(mask, pixels):
    return torch.from_numpy(ndimage.binary_dilation(mask.numpy(), iterations=pixels))


def test_a_lesion_without_hairs_stays_as_it_is():
    photo = to_bytes(skin())
    assert not bool(hair_mask(photo).any())
    assert torch.equal(remove_hair(photo), photo)


def test_dots_are_no_hairs():
    image = skin()
    for row in range(30, 360, 40):
        for column in range(30, 500, 40):
            image[:, row : row + 5, column : column + 5] = 0.15
    assert not bool(hair_mask(to_bytes(image)).any())


def test_pixels_outside_the_mask_are_the_very_same():
    photo = to_bytes(draw_hairs(skin(), num_hairs=6, width=0.01, rng=np.random.RandomState(1)))
    mask = hair_mask(photo)
    out = remove_hair(photo, mask)
    assert torch.equal(out[:, ~mask], photo[:, ~mask])
    assert not torch.equal(out[:, mask], photo[:, mask])


def test_a_hole_is_filled_with_the_colour_around_it():
    photo = torch.tensor([200, 150, 120], dtype=torch.uint8)[:, None, None].repeat(1, 80, 100)
    mask = torch.zeros(80, 100, dtype=torch.bool)
    mask[20:60, 40:46] = True
    spoiled = torch.where(mask, torch.zeros(1, dtype=torch.uint8), photo)
    assert int((remove_hair(spoiled, mask).int() - photo.int()).abs().max()) <= 1


def test_in_a_tiny_image_nothing_is_taken_for_hair():
    photo = to_bytes(skin(28, 28))
    photo[:, :, 14] = 0
    assert not bool(hair_mask(photo).any())


def test_the_transform_keeps_the_original_and_says_how_much_was_hair():
    photo = MetaTensor(
        to_bytes(draw_hairs(skin(), num_hairs=6, width=0.01, rng=np.random.RandomState(1))),
        meta={"source": "dicom"},
    )
    out = RemoveHaird()({"image": photo})
    assert out["photo"] is photo
    assert out["image"].meta["source"] == "dicom"
    assert out["hair_share"] == pytest.approx(float(hair_mask(photo.as_tensor()).float().mean()))
    assert 0.005 < out["hair_share"] < 0.1
    assert torch.equal(out["image"].as_tensor(), remove_hair(photo.as_tensor()))


def test_where_hair_covers_too_much_nothing_is_removed():
    photo = to_bytes(draw_hairs(skin(), num_hairs=6, width=0.01, rng=np.random.RandomState(1)))
    out = RemoveHaird(max_share=0.001)({"image": photo})
    assert torch.equal(out["image"], photo)


def test_other_shapes_and_arguments_are_refused():
    with pytest.raises(ValueError, match=r"photo must be \(3, H, W\) uint8"):
        hair_mask(torch.zeros(3, 80, 80))
    with pytest.raises(ValueError, match=r"mask must be \(H, W\) bool"):
        remove_hair(torch.zeros(3, 80, 80, dtype=torch.uint8), torch.zeros(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="max_share must lie within"):
        RemoveHaird(max_share=0)
