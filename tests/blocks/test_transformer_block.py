"""One transformer block and its parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shared_nets.blocks.attention import SelfAttention
from shared_nets.blocks.layer_scale import LayerScale
from shared_nets.blocks.mlp import Mlp
from shared_nets.blocks.patch_embed import PatchEmbed
from shared_nets.blocks.transformer_block import TransformerBlock


def test_attention_agrees_with_torch_multi_head_attention():
    torch.manual_seed(0)
    ours = SelfAttention(embed_dim=24, num_heads=3)
    theirs = nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.proj.weight, "out_proj.bias": ours.proj.bias,
        }
    )  # fmt: skip
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0], rtol=0, atol=1e-6)


def test_attention_does_not_care_for_the_order_of_tokens():
    torch.manual_seed(0)
    attention = SelfAttention(embed_dim=8, num_heads=2).double()
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(attention(x)[:, order], attention(x[:, order]))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads must divide embed_dim 10, got 3"):
        SelfAttention(embed_dim=10, num_heads=3)


def test_layer_scale_starts_at_its_value_and_scales_channels():
    scale = LayerScale(embed_dim=3, init_value=0.5)
    assert scale(torch.tensor([[2.0, 4.0, 6.0]])).tolist() == [[1.0, 2.0, 3.0]]


def test_mlp_is_linear_gelu_linear():
    mlp = Mlp(embed_dim=1, hidden_dim=1)
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.fill_(1.0)
    # 1·0 + 1 = 1; gelu(1) = 0.8413447; 1·0.8413447 + 1
    assert mlp(torch.zeros(1, 1)).item() == pytest.approx(1.8413447, abs=1e-6)


def test_patches_are_read_row_by_row():
    embed = PatchEmbed(patch_size=2, in_channels=1, embed_dim=1)
    with torch.no_grad():
        embed.proj.weight.fill_(0.25)  # the mean of a patch
        embed.proj.bias.zero_()
    image = torch.kron(torch.arange(6.0).view(2, 3), torch.ones(2, 2))[
        None, None
    ]  # each patch holds its number
    assert embed(image).flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_a_block_with_closed_layer_scale_passes_tokens_on_unchanged():
    torch.manual_seed(0)
    block = TransformerBlock(embed_dim=8, num_heads=2, layer_scale_init=0.0)
    x = torch.randn(2, 3, 8)
    assert torch.equal(block(x), x)


def test_a_sample_whose_path_is_dropped_skips_the_branch_and_the_others_are_scaled_up():
    torch.manual_seed(0)
    block = TransformerBlock(embed_dim=8, num_heads=2, drop_path_rate=0.5).train()
    with torch.no_grad():
        block.mlp.fc2.weight.zero_()
        block.mlp.fc2.bias.zero_()  # only the attention branch is left
    x = torch.randn(1, 3, 8).expand(64, -1, -1)
    added = block(x) - x
    block.eval()
    branch = (block(x) - x)[0]
    skipped = added.flatten(1).abs().amax(1) == 0
    assert 16 < int(skipped.sum()) < 48  # 32 expected; 4 standard deviations
    torch.testing.assert_close(added[~skipped], 2 * branch.expand(int((~skipped).sum()), -1, -1))


def test_the_normalisation_is_made_by_the_given_function():
    block = TransformerBlock(embed_dim=8, num_heads=2, norm_layer=nn.RMSNorm)
    assert isinstance(block.norm1, nn.RMSNorm)
    assert TransformerBlock(embed_dim=8, num_heads=2).norm2.eps == 1e-6
