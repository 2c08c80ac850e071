"""ConvNeXt blocks against the paper's formula, and stems: sizes, strides, names."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shared_nets.blocks.convnext import ConvNeXtBlock, ConvNeXtStage, ConvNeXtStem


def test_a_block_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    block = ConvNeXtBlock(dim=6, kernel_size=3, mlp_ratio=2.0, layer_scale_init=0.7)
    x = torch.randn(2, 6, 5, 4)
    branch = F.conv2d(x, block.dwconv.weight, block.dwconv.bias, padding=1, groups=6)
    mean, var = branch.mean(1, keepdim=True), branch.var(1, unbiased=False, keepdim=True)
    branch = (branch - mean) / torch.sqrt(var + 1e-5)
    hidden = F.gelu(
        torch.einsum("bchw,dc->bdhw", branch, block.pwconv1.weight) + block.pwconv1.bias.view(-1, 1, 1)
    )
    branch = torch.einsum("bchw,dc->bdhw", hidden, block.pwconv2.weight) + block.pwconv2.bias.view(-1, 1, 1)
    torch.testing.assert_close(block(x), x + 0.7 * branch)


def test_a_block_starts_as_nearly_nothing():
    x = torch.randn(1, 4, 7, 7)
    assert (ConvNeXtBlock(dim=4)(x) - x).abs().max() < 1e-4


def test_drop_path_skips_whole_samples_in_training_only():
    block = ConvNeXtBlock(dim=4, layer_scale_init=1.0, drop_path_rate=0.5)
    x = torch.randn(1, 4, 7, 7).expand(40, -1, -1, -1)
    torch.manual_seed(0)
    is_skipped = (block.train()(x) == x).flatten(1).all(dim=1)
    assert 5 < is_skipped.sum() < 35
    assert not (block.eval()(x) == x).flatten(1).all(dim=1).any()


@pytest.mark.parametrize(
    ("stride", "kernel", "side", "shrunk"),
    [
        pytest.param(1, 3, 7, 7, id="1"),
        pytest.param(2, 3, 28, 14, id="2"),
        pytest.param(2, 3, 7, 4, id="2, odd"),
        pytest.param(4, 4, 28, 7, id="4"),
    ],
)
def test_a_stage_shrinks_by_its_stride(stride, kernel, side, shrunk):
    stage = ConvNeXtStage(in_channels=3, dim=4, stride=stride, drop_path_rates=(0.0,))
    assert stage.patch_conv.kernel_size == (kernel, kernel)
    assert stage(torch.randn(1, 3, side, side)).shape == (1, 4, shrunk, shrunk)
    assert stage.shrunk(side) == shrunk


def test_a_stem_says_its_grid_and_makes_it():
    stem = ConvNeXtStem(dims=(4, 6, 8), depths=(1, 0, 2), strides=(1, 2, 2), embed_dim=5)
    assert stem.grid_size(28, 30) == (7, 8)
    assert stem(torch.randn(2, 3, 28, 30)).shape == (2, 5, 7, 8)


def test_the_published_stem_is_one_setting():
    stem = ConvNeXtStem()
    assert sum(parameter.numel() for parameter in stem.parameters()) == 182_496
    assert not [name for name in stem.state_dict() if name.startswith("stages")]
    assert isinstance(stem.proj_norm, nn.GroupNorm)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"dims": (4, 6)}, "one number a stage", id="stages"),
        pytest.param({"dims": (), "depths": (), "strides": ()}, "one number a stage", id="no stage"),
        pytest.param({"strides": (0,)}, "stride must be 1 or more, got 0", id="stride"),
        pytest.param({"kernel_size": 4}, "kernel_size must be odd, got 4", id="kernel"),
        pytest.param({"drop_path_rates": (0.1,)}, "drop_path_rates must have 2 numbers, got 1", id="rates"),
    ],
)
def test_arguments_that_cannot_be_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvNeXtStem(**arguments)


def test_an_image_that_patches_do_not_fill_is_named():
    with pytest.raises(ValueError, match="image side must be a positive multiple of 4, got 30"):
        ConvNeXtStem()(torch.randn(1, 3, 28, 30))
