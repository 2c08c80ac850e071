"""Attention from image to table, and the gate between local and global tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shared_nets.blocks.cross_modal_attention import CrossModalAttention
from shared_nets.blocks.local_global_gate import LocalGlobalGate


def make(**overrides) -> CrossModalAttention:
    torch.manual_seed(0)
    return CrossModalAttention(**{"embed_dim": 16, "num_heads": 4, **overrides}).eval()


@pytest.fixture
def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 9, 16, generator=generator), torch.randn(2, 5, 16, generator=generator)


def test_it_is_torch_s_own_multi_head_attention_on_normalised_tokens(tokens):
    ours, image, table = make(), *tokens
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    projections = (ours.q_proj, ours.k_proj, ours.v_proj)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([projection.weight for projection in projections]))
        theirs.in_proj_bias.copy_(torch.cat([projection.bias for projection in projections]))
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    keys = ours.norm_tab(table)
    read, weights = theirs(ours.norm_img(image), keys, keys, average_attn_weights=False)
    torch.testing.assert_close(ours(image, table), image + read)
    torch.testing.assert_close(ours.attention(image, table), weights)


def test_image_tokens_look_at_different_values(tokens):
    weights = make().attention(*tokens)  # (B, A, L, T)
    assert torch.allclose(weights.sum(-1), torch.ones(()))
    assert weights.std(dim=-1).min() > 1e-3
    assert weights.std(dim=2).max() > 1e-3


def test_what_is_read_differs_from_place_to_place(tokens):
    image, table = tokens
    assert (make()(image, table) - image).std(dim=1).max() > 1e-3


def test_attention_weights_drop_in_training_only(tokens):
    attention = make(dropout_rate=0.5)
    assert torch.equal(attention(*tokens), attention(*tokens))
    attention.train()
    assert not torch.equal(attention(*tokens), attention(*tokens))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads must divide embed_dim 16, got 3"):
        make(num_heads=3)


def test_the_gate_stays_between_local_and_global():
    torch.manual_seed(0)
    gate = LocalGlobalGate(embed_dim=8)
    local, global_ = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    mixed = gate(local, global_)
    assert (mixed >= torch.minimum(local, global_) - 1e-6).all()
    assert (mixed <= torch.maximum(local, global_) + 1e-6).all()
    share = torch.sigmoid(gate.gate_proj(torch.cat([local, global_], dim=-1)))
    torch.testing.assert_close(mixed, global_ + share * (local - global_))
