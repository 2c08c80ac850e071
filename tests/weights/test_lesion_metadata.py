"""From photographs alone to metadata: the start says what the image network said, and learns from there."""

import pytest
import torch

from shared_nets.nets.mambaderm import MambaDerm
from shared_nets.transforms.lesion_schema import lesion_schema
from shared_nets.weights.conversion import WeightsMismatch
from shared_nets.weights.lesion_metadata import start_from_image_weights

CLINIC = lesion_schema("dermoscopy_clinic")
ROWS = torch.tensor([[70.0, 1.0, 1.0], [float("nan"), 2.0, 0.0]])


def make(seed=0, **overrides):
    torch.manual_seed(seed)
    size = {
        "num_classes": 3, "img_size": 16, "stem_dims": (8,), "stem_depths": (1,), "stem_strides": (4,),
        "embed_dim": 16, "depth": 1, "d_state": 4,
    }  # fmt: skip
    return MambaDerm(**{**size, **overrides}).eval()


@pytest.fixture
def image():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num_heads", [pytest.param(8, id="attention"), pytest.param(None, id="none")])
def test_start_says_what_the_image_network_said_whatever_the_metadata(image, num_heads):
    trained, network = make(seed=1), make(metadata_schema=CLINIC, num_heads=num_heads)
    start_from_image_weights(network, trained.state_dict())
    for metadata in (ROWS, None):
        torch.testing.assert_close(network(image, metadata), trained(image))


def test_what_metadata_add_is_learned_from_the_start(image):
    network = make(metadata_schema=CLINIC)
    start_from_image_weights(network, make(seed=1).state_dict())
    network(image, ROWS).square().sum().backward()
    assert network.classifier[0].weight.grad[:, 16:].abs().max() > 0
    assert network.fusion.cross_attn.out_proj.weight.grad.abs().max() > 0
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 0.1 * parameter.grad if parameter.grad is not None else 0.0
    assert (network(image, ROWS) - network(image)).abs().max() > 1e-4


def test_other_classes_start_at_random_and_the_embedding_stays(image):
    trained, network = make(seed=1), make(num_classes=1, metadata_schema=CLINIC)
    fresh = start_from_image_weights(network, trained.state_dict())
    assert {"classifier.8.weight", "classifier.8.bias"} < set(fresh)
    assert "classifier.0.weight" not in fresh
    features = network.forward_features(image, ROWS)
    torch.testing.assert_close(features[:, :16], trained.forward_features(image))


def test_an_image_network_may_start_from_another_one(image):
    trained, network = make(seed=1), make()
    assert start_from_image_weights(network, trained.state_dict()) == ()
    assert torch.equal(network(image), trained(image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda w: w.pop("norm.weight"), "missing: norm.weight", id="missing"),
        pytest.param(lambda w: w.update(other=torch.zeros(1)), "unexpected: other", id="unexpected"),
        pytest.param(
            lambda w: w.update({"norm.bias": torch.zeros(8)}), r"norm.bias is \(8,\) in the file", id="shape"
        ),
        pytest.param(
            lambda w: w.update({"classifier.8.weight": torch.zeros(3, 5)}), "shape: classifier.8", id="last"
        ),
    ],
)
def test_weights_of_another_network_are_refused_and_change_nothing(change, message):
    weights, network = dict(make(seed=1).state_dict()), make(metadata_schema=CLINIC)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    change(weights)
    with pytest.raises(WeightsMismatch, match=message):
        start_from_image_weights(network, weights)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_weights_that_already_read_metadata_are_refused():
    network = make(metadata_schema=CLINIC)
    with pytest.raises(WeightsMismatch, match="of metadata, which an image network has not"):
        start_from_image_weights(network, network.state_dict())
