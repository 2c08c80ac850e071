import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from skimage.data import astronaut

from shared_nets.transforms.network_image import ToNetworkImaged, network_image


def tensor_of(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.parametrize("size", [28, 224])
def test_a_photograph_becomes_what_pillow_makes_of_it_to_within_one_grey_level(size):
    photo = Image.fromarray(astronaut()).resize((600, 450), Image.Resampling.BICUBIC)
    ours = network_image(tensor_of(photo), img_size=size, mean=(0, 0, 0), std=(1, 1, 1))
    pillow = tensor_of(photo.resize((size, size), Image.Resampling.BICUBIC)).float() / 255.0
    difference = (ours - pillow).abs() * 255.0
    assert float(difference.max()) <= 1.0 + 1e-4
    assert float((difference > 0.5).float().mean()) < 0.02


def test_an_image_of_the_network_s_own_size_is_only_scaled_and_normalised():
    photo = torch.arange(3 * 28 * 28).remainder(256).to(torch.uint8).view(3, 28, 28)
    out = network_image(photo, img_size=28, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.1))
    assert float(out[1, 0, 3]) == pytest.approx((float(photo[1, 0, 3]) / 255.0 - 0.4) / 0.25, abs=1e-6)
    restored = (
        out * torch.tensor([0.5, 0.25, 0.1])[:, None, None] + torch.tensor([0.5, 0.4, 0.3])[:, None, None]
    )
    torch.testing.assert_close(restored * 255.0, photo.float(), atol=1e-3, rtol=0)


def test_rows_and_columns_stay_where_they_are_and_the_whole_frame_is_seen():
    photo = torch.zeros(3, 200, 400, dtype=torch.uint8)
    photo[0, 150:, 300:] = 255  # the last quarter of rows and of columns
    out = network_image(photo, img_size=8, mean=(0, 0, 0), std=(1, 1, 1))
    assert float(out[0, 7, 7]) == 1.0
    assert float(out[0, :5].max()) < 0.1
    assert float(out[0, :, :5].max()) < 0.1
    assert float(out[1:].abs().max()) == 0.0


def test_the_photograph_is_kept_with_its_meta_data_and_the_input_is_left_alone():
    photo = MetaTensor(torch.zeros(3, 40, 60, dtype=torch.uint8), meta={"kind": "photograph"})
    data = {"image": photo, "study_id": "a"}
    out = ToNetworkImaged(img_size=16)(data)
    assert out["photo"].shape == (3, 40, 60)
    assert out["photo"].meta["kind"] == "photograph"
    assert out["image"].shape == (3, 16, 16)
    assert out["image"].dtype == torch.float32
    assert type(out["image"]) is torch.Tensor
    assert data["image"] is photo
    assert "photo" not in data


def test_a_photograph_that_was_kept_before_a_change_of_colours_is_not_overwritten():
    before = torch.full((3, 8, 8), 7, dtype=torch.uint8)
    out = ToNetworkImaged(img_size=4)({"image": torch.zeros(3, 8, 8, dtype=torch.uint8), "photo": before})
    assert out["photo"] is before


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8), (3, 0, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"photo must be \(3, H, W\) uint8"):
        network_image(torch.zeros(shape, dtype=torch.uint8), img_size=4)


@pytest.mark.parametrize("change", [{"img_size": 0}, {"std": (1, 1, 0)}, {"mean": (0.5,)}])
def test_arguments_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match="must be"):
        ToNetworkImaged(**{"img_size": 28, **change})
