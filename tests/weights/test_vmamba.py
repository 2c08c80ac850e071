"""Public VMamba files: every name taken or accounted for, in each layout that they come in."""

from __future__ import annotations

import pytest
import torch

from shared_nets.nets.vmamba import VMamba
from shared_nets.weights.conversion import WeightsMismatch, expected_shapes
from shared_nets.weights.vmamba import from_vmamba
from tests.weights.vmamba_names import public_vmamba_shapes

SMALL = {"dims": (16, 24), "depths": (1, 2), "ssm_ratio": 2.0}


def public_weights(**options) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = public_vmamba_shapes(**{**SMALL, "num_classes": 5, **options})
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def network(num_classes: int | None = None) -> VMamba:
    return VMamba(**SMALL, num_classes=num_classes).eval()


def test_a_checkpoint_is_taken_whole_with_its_classifier():
    ours, weights = network(num_classes=5), public_weights()
    checkpoint = {"model": weights, "model_ema": weights, "optimizer": {}, "epoch": 264}
    conversion = from_vmamba(checkpoint, expected=expected_shapes(ours))
    ours.load_state_dict(conversion.state_dict)
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in weights.items())
    assert set(conversion.dropped) == {"model_ema", "optimizer", "epoch"}


def test_for_a_trunk_the_classifier_is_dropped_and_named():
    ours, weights = network(), public_weights()
    conversion = from_vmamba(weights, expected=expected_shapes(ours))
    ours.load_state_dict(conversion.state_dict)
    assert set(conversion.dropped) == {"classifier.head.weight", "classifier.head.bias"}
    assert set(conversion.state_dict) | set(conversion.dropped) == set(weights)


def test_linear_layers_stored_as_convolutions_are_read():
    weights = public_weights()
    linear = ("in_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")
    convolutions = {
        name: value[:, :, None, None] if name.endswith(linear) else value for name, value in weights.items()
    }
    plain = from_vmamba(weights, expected=expected_shapes(network())).state_dict
    converted = from_vmamba(convolutions, expected=expected_shapes(network())).state_dict
    assert all(torch.equal(converted[name], value) for name, value in plain.items())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        pytest.param({"ssm_ratio": 1.0}, r"shape: layers\.0\.blocks\.0\.op\.x_proj_weight", id="ratio"),
        pytest.param({"depths": (1, 1)}, r"missing: layers\.1\.blocks\.1\.norm\.weight", id="too few blocks"),
        pytest.param({"depths": (2, 2)}, r"unexpected: layers\.0\.blocks\.1\.norm\.weight", id="too many"),
    ],
)
def test_a_file_of_another_size_is_refused(options, problem):
    with pytest.raises(WeightsMismatch, match=problem):
        from_vmamba(public_weights(**options), expected=expected_shapes(network()))
