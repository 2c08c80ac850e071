"""Saliency shows the place that decides, on the photograph's grid; the embedding is the network's own."""

import math

import pytest
import torch
from torch import Tensor, nn

from shared_nets.transforms.lesion_saliency import LesionEmbeddingd, LesionSaliencyd, skin_colour

SIDE = 32


class CornerNetwork(nn.Module):
    """Class 1 is as probable as the upper left quarter is bright; metadata decide class 2 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(8.0))
        self.saw: list[Tensor | None] = []

    def forward_features(self, image: Tensor, metadata: Tensor | None = None) -> Tensor:
        assert not self.training
        self.saw.append(metadata)
        corner = image[:, :, : SIDE // 2, : SIDE // 2].mean(dim=(1, 2, 3))  # (B,)
        extra = torch.zeros_like(corner) if metadata is None else metadata[:, 0]
        return torch.stack([torch.zeros_like(corner), self.weight * corner, extra], dim=1)  # (B, 3)

    def forward(self, image: Tensor, metadata: Tensor | None = None) -> Tensor:
        return self.forward_features(image, metadata)


@pytest.fixture
def item():
    """A bright spot in the upper left quarter; the photograph is twice as wide and three times as high."""
    image = torch.zeros(3, SIDE, SIDE)
    image[:, 5:13, 5:13] = 1.0
    photo = torch.zeros(3, 3 * SIDE, 2 * SIDE, dtype=torch.uint8)
    return {"image": image, "photo": photo, "pred": torch.tensor([0.0, 2.0, -9.0])}


def test_the_place_that_decides_is_the_one_that_is_shown(item):
    saliency = LesionSaliencyd(network=CornerNetwork())(item)["saliency"]
    assert saliency.shape == (3 * SIDE, 2 * SIDE)
    assert saliency.dtype == torch.float32
    assert saliency.min() >= 0.0
    assert 0.05 < saliency.max() <= 1.0
    inside = saliency[15:39, 10:26]  # rows 5–13 times three, columns 5–13 times two
    assert inside.max() == saliency.max()
    assert inside.mean() > 5 * (saliency.sum() - inside.sum()) / (saliency.numel() - inside.numel())
    assert saliency[3 * 21 :].max() < 1e-6  # below row 13 + 8 no place that is covered reaches the spot


def test_the_map_is_the_fall_of_the_probability_itself(item):
    """A cover of the left half hides all that is bright, one of the right half nothing."""
    item["image"] = torch.zeros(3, SIDE, SIDE)
    item["image"][:, 4:12, 4:12] = 1.0  # a quarter of the corner: the logits are 0, 2 and 0
    bright = math.exp(2.0) / (math.exp(2.0) + 2.0)
    saliency = LesionSaliencyd(network=CornerNetwork(), mask_share=0.5, overlap=0.0)(item)["saliency"]
    assert float(saliency[4 * 3, 4 * 2]) == pytest.approx(bright - 1 / 3, abs=1e-6)  # covered, all are 0
    assert float(saliency[-1, -1]) == 0.0


def test_what_speaks_against_the_class_counts_as_nothing(item):
    item["pred"] = torch.tensor([3.0, 0.0, -9.0])  # class 0 gains where the bright corner is covered
    assert LesionSaliencyd(network=CornerNetwork())(item)["saliency"].max() < 1e-6


def test_equal_items_give_equal_bytes_and_the_network_is_left_as_it_was(item):
    network = CornerNetwork().train()
    first, second = (LesionSaliencyd(network=network)(dict(item))["saliency"] for _ in range(2))
    assert torch.equal(first, second)
    assert network.training
    assert not first.requires_grad


@pytest.mark.parametrize("is_training", [True, False])
def test_the_network_stays_in_the_mode_it_was_in(item, is_training):
    network = CornerNetwork().train(is_training)
    LesionSaliencyd(network=network)(item)
    assert network.training is is_training


def test_metadata_go_along_with_every_covered_image(item):
    network = CornerNetwork()
    LesionSaliencyd(network=network, batch_size=4)({**item, "metadata": torch.tensor([0.5, 1.0])})
    assert all(seen is not None and seen.shape[1] == 2 for seen in network.saw)
    assert {tuple(row) for seen in network.saw for row in seen.tolist()} == {(0.5, 1.0)}


def test_a_temperature_makes_the_falls_smaller(item):
    cold, hot = (
        LesionSaliencyd(network=CornerNetwork(), temperature=t)(dict(item))["saliency"].max()
        for t in (1.0, 4.0)
    )
    assert hot < cold


class OneLogit(CornerNetwork):
    def forward(self, image: Tensor, metadata: Tensor | None = None) -> Tensor:
        return self.forward_features(image, metadata)[:, 1:2]


def test_one_logit_is_that_of_the_second_of_two_classes(item):
    item["pred"] = torch.tensor([1.0])
    saliency = LesionSaliencyd(network=OneLogit())(item)["saliency"]
    assert saliency[15:39, 10:26].max() == saliency.max() > 0.1


def test_the_cover_has_the_colour_of_the_border_whatever_is_in_the_middle():
    image = torch.zeros(1, 3, 16, 16)
    image[0] = torch.tensor([0.9, 0.6, 0.5])[:, None, None]
    image[0, :, 2:14, 2:14] = -1.0  # more than half of the frame
    image[0, :, :2, :2] = -5.0  # a dark corner
    assert skin_colour(image)[0, :, 0, 0].tolist() == pytest.approx([0.9, 0.6, 0.5])


def test_the_embedding_is_that_of_the_network_in_eval_mode(item):
    network = CornerNetwork().train()
    embedding = LesionEmbeddingd(network=network)({**item, "metadata": torch.tensor([0.5])})["embedding"]
    bright = 8 * 8 / (SIDE // 2) ** 2
    assert embedding.tolist() == pytest.approx([0.0, 8.0 * bright, 0.5])
    assert not embedding.requires_grad
    assert LesionEmbeddingd(network=network)(item)["embedding"][2] == 0.0  # without metadata
    assert network.training


def test_a_cover_of_the_whole_image_is_an_error():
    with pytest.raises(ValueError, match="mask_share must lie between 0 and 1"):
        LesionSaliencyd(network=CornerNetwork(), mask_share=1.0)
