"""VMamba: the names, shapes and numbers of public files, and that nothing about it is random or mixed up."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from shared_nets.nets.mambaderm import MambaDermVMamba, mambaderm_vmamba_tiny
from shared_nets.nets.vmamba import VMamba, vmamba_tiny, vmamba_tiny_s2l5
from shared_nets.transforms.lesion_schema import lesion_schema
from shared_nets.weights.conversion import expected_shapes
from tests.weights.vmamba_names import public_vmamba_shapes

SMALL = {"dims": (8, 16), "depths": (1, 2), "ssm_ratio": 2.0, "drop_path_rate": 0.3}
CLINIC = lesion_schema("dermoscopy_clinic")


def randomised(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def make(**overrides) -> VMamba:
    torch.manual_seed(0)
    return randomised(VMamba(**{**SMALL, "num_classes": 3, **overrides}))


def make_lesion_network(**overrides) -> MambaDermVMamba:
    torch.manual_seed(0)
    trunk = VMamba(**SMALL)
    return randomised(MambaDermVMamba(**{"trunk": trunk, "num_classes": 3, "embed_dim": 16, **overrides}))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("make_size", "layout", "published"),
    [
        pytest.param(vmamba_tiny, {"depths": (2, 2, 8, 2), "ssm_ratio": 1.0}, 30_249_064, id="s1l8"),
        pytest.param(vmamba_tiny_s2l5, {"depths": (2, 2, 5, 2), "ssm_ratio": 2.0}, 30_705_832, id="s2l5"),
    ],
)
def test_each_size_has_the_names_shapes_and_number_of_parameters_of_its_public_file(
    make_size, layout, published
):
    with torch.device("meta"):
        network, trunk = make_size(num_classes=1000), make_size()
    assert expected_shapes(network) == public_vmamba_shapes(**layout)
    assert count(network) == published
    assert count(trunk) == published - 769_000
    assert f"{published:,}" in make_size.__doc__


def test_the_lesion_network_on_it_has_31_million_parameters():
    with torch.device("meta"):
        image_only = mambaderm_vmamba_tiny(num_classes=7)
        with_metadata = mambaderm_vmamba_tiny(num_classes=7, metadata_schema=lesion_schema("isic2024"))
    assert (count(image_only), count(with_metadata)) == (29_906_503, 30_716_167)
    assert expected_shapes(image_only.trunk) == public_vmamba_shapes(
        depths=(2, 2, 8, 2), ssm_ratio=1.0, num_classes=None
    )
    for number in (count(image_only), count(with_metadata)):
        assert f"{number:,}" in mambaderm_vmamba_tiny.__doc__


@pytest.mark.parametrize("side", [32, 24, 33, 4])
def test_maps_shrink_by_a_quarter_and_then_by_halves_rounded_up(side):
    maps = make().forward_features(torch.randn(1, 3, side, side))
    expected = math.ceil(math.ceil(math.ceil(side / 2) / 2) / 2)
    assert maps.entering.shape == maps.leaving.shape == (1, expected, expected, 16)


def test_logits_are_the_head_on_the_mean_of_the_last_map(image):
    network = make()
    mean = network.forward_features(image).leaving.mean(dim=(1, 2))
    assert torch.equal(network(image), network.classifier["head"](mean))
    assert make(num_classes=None)(image).shape == (2, 16)


def test_every_parameter_gets_a_gradient(image):
    network = make()
    network(image).pow(2).sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_evaluation_is_deterministic_and_images_of_a_batch_do_not_influence_each_other(image):
    network = make()
    together = network(image)
    assert torch.equal(together, network(image))
    torch.testing.assert_close(together, torch.cat([network(image[:1]), network(image[1:])]))
    network.train()
    many = image[:1].expand(16, -1, -1, -1)
    assert not torch.equal(network(many), network(many))


def test_scans_keep_their_own_start():
    torch.manual_seed(0)
    network = VMamba(**SMALL)
    steps = torch.cat([nn.functional.softplus(block.op.dt_projs_bias).flatten()
                       for stage in network.layers for block in stage.blocks])  # fmt: skip
    assert 1e-4 <= steps.min() < steps.max() <= 0.1 + 1e-6
    assert network.layers[1].blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_stages_must_be_described_alike():
    with pytest.raises(ValueError, match="dims and depths must have one number a stage"):
        VMamba(dims=(8, 16), depths=(1,))


def test_an_image_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"image must have shape \(B, 3, H, W\), got \(1, 1, 8, 8\)"):
        make()(torch.randn(1, 1, 8, 8))


# the lesion network


def test_metadata_are_read_and_all_missing_is_exactly_none(image):
    network = make_lesion_network(metadata_schema=CLINIC)
    rows = torch.tensor([[50.0, 1.0, 3.0], [float("nan"), 2.0, 0.0]])
    assert network(image, rows).shape == (2, 3)
    assert network.forward_features(image, rows).shape == (2, network.num_features) == (2, 32)
    assert (network(image, rows) - network(image)).abs().max() > 1e-3
    nothing = torch.tensor([[float("nan"), 0.0, 0.0]]).expand(2, -1)
    assert torch.equal(network(image, nothing), network(image))


def test_every_parameter_of_the_lesion_network_gets_a_gradient(image):
    network = make_lesion_network(metadata_schema=CLINIC)
    rows = torch.tensor([[50.0, 1.0, 3.0], [float("nan"), 0.0, 0.0]])
    other = torch.tensor([[float("nan"), 2.0, 1.0]]).expand(2, -1)
    (network(image, rows).pow(2).sum() + network(image, other).pow(2).sum()).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_checkpointing_keeps_less_and_changes_no_gradient(image, kept_and_gradients):
    network = make_lesion_network()
    kept_without, gradients_without = kept_and_gradients(network, image)
    network.use_checkpoint = True
    kept_with, gradients_with = kept_and_gradients(network, image)
    assert kept_with < 0.6 * kept_without
    for first, second in zip(gradients_without, gradients_with, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
    network.use_checkpoint = False
    assert kept_and_gradients(network, image)[0] == kept_without


def test_bfloat16_autocast_is_close_to_float32(image):
    network = make_lesion_network()
    exact = network(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(image)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.1, atol=0.1)  # 8 bits, and several layers
