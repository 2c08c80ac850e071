"""The Mamba block against transformers', its initialisation, and the bidirectional layer."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import Tensor, nn

from shared_nets.blocks.mamba import Mamba, causal_conv, parameter_groups
from shared_nets.blocks.vision_mamba import BidirectionalMamba, VisionMambaLayer


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def transformers_mixer(block: Mamba, d_model: int) -> nn.Module:
    """Make transformers' mixer with the weights of ours; its names are the same."""
    from transformers import MambaConfig, MambaModel

    config = MambaConfig(hidden_size=d_model, state_size=block.d_state, num_hidden_layers=1, vocab_size=2)
    mixer = MambaModel(config).layers[0].mixer
    mixer.load_state_dict(block.state_dict())
    return mixer


@pytest.mark.parametrize("length", [1, 3, 40])
def test_block_gives_the_numbers_and_gradients_of_transformers(length):
    torch.manual_seed(0)
    block = Mamba(32)
    theirs = transformers_mixer(block, 32)
    x = tokens(2, length, 32).requires_grad_()
    weight = tokens(2, length, 32, seed=1)
    ours, expected = block(x), theirs(x)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    (grad,) = torch.autograd.grad((ours * weight).sum(), x, retain_graph=True)
    (expected_grad,) = torch.autograd.grad((expected * weight).sum(), x, retain_graph=True)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-6)
    (ours * weight).sum().backward()
    (expected * weight).sum().backward()
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(
            parameter.grad, theirs.get_parameter(name).grad, rtol=1e-4, atol=1e-5, msg=name
        )


def test_rank_of_the_step_size_is_a_sixteenth_of_the_width_rounded_up():
    assert Mamba(192).dt_proj.weight.shape == (384, 12)
    assert Mamba(17).x_proj.weight.shape == (2 + 2 * 16, 34)


def test_step_sizes_start_log_uniform_between_their_limits():
    torch.manual_seed(0)
    step = nn.functional.softplus(Mamba(1024).dt_proj.bias).detach()
    assert step.min() * 1.0001 >= 0.001
    assert step.max() <= 0.1 * 1.0001
    # the mean of a log-uniform variable's logarithm is the middle of the logarithms
    assert step.log().mean() == pytest.approx((math.log(0.001) + math.log(0.1)) / 2, abs=0.1)


def test_decay_rates_start_at_minus_one_to_minus_n_in_every_channel():
    decay = -torch.exp(Mamba(8, d_state=3).A_log)
    torch.testing.assert_close(decay, torch.tensor([[-1.0, -2.0, -3.0]]).expand(16, 3))


def test_block_survives_its_state_dict_and_a_step_of_the_optimiser():
    torch.manual_seed(0)
    block, copy = Mamba(16), Mamba(16)
    file = io.BytesIO()
    torch.save(block.state_dict(), file)
    file.seek(0)
    copy.load_state_dict(torch.load(file, weights_only=True))
    x = tokens(1, 5, 16)
    assert torch.equal(block(x), copy(x))
    assert block.A_log.is_contiguous()
    optimiser = torch.optim.AdamW(parameter_groups(block, 0.1), lr=0.01)
    block(x).square().mean().backward()
    before = {name: parameter.detach().clone() for name, parameter in block.named_parameters()}
    optimiser.step()
    assert all(not torch.equal(before[name], parameter) for name, parameter in block.named_parameters())


def test_biases_norms_decay_rates_and_skips_do_not_decay():
    layer = VisionMambaLayer(d_model=16)
    decayed, kept = parameter_groups(layer, 0.05)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    kept_ids = {id(parameter) for parameter in kept["params"]}
    names = {name for name, parameter in layer.named_parameters() if id(parameter) in kept_ids}
    expected = {
        name for name, _ in layer.named_parameters() if name.endswith((".bias", "A_log", ".D", "norm.weight"))
    }
    assert names == expected
    assert len(names) + len(decayed["params"]) == len(list(layer.parameters()))


def test_frozen_parameters_are_in_no_group():
    block = Mamba(16).requires_grad_(False)
    assert parameter_groups(block, 0.1) == []


def test_step_size_bias_is_marked_to_keep_its_start():
    assert Mamba(16).dt_proj.bias._no_reinit


def test_token_does_not_see_those_after_it():
    block = Mamba(16)
    x = tokens(1, 10, 16)
    changed = x.clone()
    changed[:, 6:] += 1
    torch.testing.assert_close(block(x)[:, :6], block(changed)[:, :6])
    assert not torch.allclose(block(x)[:, 6:], block(changed)[:, 6:])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"d_state": 0}, "d_state must be at least 1, got 0"),
        ({"dt_init": "zero"}, "dt_init must be 'random' or 'constant', got 'zero'"),
    ],
)
def test_argument_that_makes_no_block_is_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        Mamba(16, **argument)


def test_tokens_read_backwards_give_the_result_backwards_when_the_directions_swap_weights():
    torch.manual_seed(0)
    block, swapped = BidirectionalMamba(d_model=16), BidirectionalMamba(d_model=16)
    state = block.state_dict()
    other = {"ssm_forward": "ssm_backward", "ssm_backward": "ssm_forward"}
    renamed = {
        ".".join([other.get(name.split(".")[0], name.split(".")[0]), *name.split(".")[1:]]): value
        for name, value in state.items()
    }
    renamed["fusion.weight"] = state["fusion.weight"].roll(16, dims=1)
    swapped.load_state_dict(renamed)
    x = tokens(2, 9, 16)
    torch.testing.assert_close(swapped(x.flip(1)), block(x).flip(1), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(block(x.flip(1)), block(x).flip(1), atol=1e-3)


@pytest.mark.parametrize("length", [0, 1, 2, 9])
@pytest.mark.parametrize("size", [1, 4])
def test_causal_convolution_is_that_of_torch(length, size):
    x = tokens(2, length, 6)
    conv = nn.Conv1d(6, 6, size, padding=size - 1, groups=6)
    padded = nn.functional.pad(x.transpose(1, 2), (size - 1, 0))
    expected = nn.functional.conv1d(padded, conv.weight, conv.bias, groups=6) if length else x.transpose(1, 2)
    torch.testing.assert_close(
        causal_conv(x, conv.weight, conv.bias), expected.transpose(1, 2), rtol=1e-5, atol=1e-6
    )


def test_block_without_tokens_gives_none():
    assert Mamba(16)(tokens(2, 0, 16)).shape == (2, 0, 16)


def test_vision_layer_has_the_parameters_of_the_published_checkpoint():
    layer = VisionMambaLayer(d_model=192)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 856_704 + 8_448 * 2  # rank 12, not 1
    stems = {name.rsplit(".", 1)[0] for name, _ in layer.named_parameters()}
    assert {"mlp_norm", "mlp.0", "mlp.3", "ssm_block.norm", "ssm_block.fusion"} <= stems
    assert {"ssm_block.ssm_forward.dt_proj", "ssm_block.ssm_backward.out_proj"} <= stems


def test_batch_of_the_vision_layer_is_as_each_sample_alone():
    layer = VisionMambaLayer(d_model=16).eval()
    x = tokens(3, 12, 16)
    apart = torch.cat([layer(sample[None]) for sample in x])
    torch.testing.assert_close(layer(x), apart, rtol=1e-5, atol=1e-6)
