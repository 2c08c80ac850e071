"""Resizing of position embeddings; the sampling positions are tested with the network that uses them."""

from __future__ import annotations

import pytest
import torch

from shared_nets.blocks.position_embedding import resize_position_embedding


def test_class_position_is_kept_and_a_grid_may_be_oblong():
    pos_embed = torch.randn(1, 1 + 6, 4, generator=torch.Generator().manual_seed(0))
    resized = resize_position_embedding(pos_embed, (4, 5), native_grid_size=(2, 3))
    assert resized.shape == (1, 1 + 20, 4)
    assert torch.equal(resized[:, 0], pos_embed[:, 0])


def test_a_constant_stays_constant_whatever_the_rule():
    pos_embed = torch.full((1, 1 + 64, 2), 3.0)
    for offset, antialias in ((0.0, False), (0.0, True), (0.1, False)):
        resized = resize_position_embedding(
            pos_embed, (3, 11), native_grid_size=(8, 8), interpolate_offset=offset, antialias=antialias
        )
        torch.testing.assert_close(resized, torch.full((1, 1 + 33, 2), 3.0), rtol=0, atol=1e-5)


def test_antialias_smooths_when_the_grid_shrinks():
    stripes = (torch.arange(64) // 8 % 2).float()  # every other row is 1
    pos_embed = torch.cat([torch.zeros(1), stripes]).view(1, 65, 1)
    kept, smoothed = (
        resize_position_embedding(pos_embed, (3, 3), native_grid_size=(8, 8), antialias=antialias)[0, 1:]
        for antialias in (False, True)
    )
    assert (smoothed - 0.5).abs().max() < 0.15
    assert (kept - 0.5).abs().max() > 0.3


def test_half_precision_is_resampled_in_float32():
    pos_embed = torch.randn(1, 17, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    resized = resize_position_embedding(pos_embed, (6, 6), native_grid_size=(4, 4))
    reference = resize_position_embedding(pos_embed.float(), (6, 6), native_grid_size=(4, 4))
    assert resized.dtype == torch.bfloat16
    assert torch.equal(resized, reference.bfloat16())


def test_a_grid_that_does_not_account_for_all_positions_is_refused():
    with pytest.raises(ValueError, match="pos_embed must have 13 positions for a 3 × 4 grid, got 17"):
        resize_position_embedding(torch.zeros(1, 17, 8), (6, 6), native_grid_size=(3, 4))
