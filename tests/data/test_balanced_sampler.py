"""Draws out of sets in which hardly anything is positive."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset

from shared_nets.data.balanced_sampler import BalancedSampler

LABELS = np.zeros(5000, dtype=int)
LABELS[::500] = 1  # 10 positives among 4,990 negatives


def test_one_draw_in_a_hundred_and_one_is_positive():
    drawn = list(BalancedSampler(LABELS))
    assert len(drawn) == 20 + 2000 == len(BalancedSampler(LABELS))
    assert LABELS[drawn].sum() == 20


def test_negatives_are_drawn_once_and_positives_with_replacement():
    drawn = np.array(list(BalancedSampler(LABELS)))
    negatives = drawn[LABELS[drawn] == 0]
    assert len(set(negatives)) == len(negatives)
    assert len(set(drawn[LABELS[drawn] == 1])) < 20


def test_the_negatives_are_all_drawn_where_they_do_not_suffice():
    sampler = BalancedSampler(LABELS, positives_per_negative=0.001)  # would be 20,000
    assert sum(LABELS[i] == 0 for i in sampler) == 4990


def test_every_epoch_draws_other_items_and_the_same_ones_again():
    sampler = BalancedSampler(LABELS)
    draws = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        draws.append(list(sampler))
    assert draws[0] == draws[2] != draws[1]
    resumed = BalancedSampler(LABELS)
    resumed.set_epoch(1)
    assert list(resumed) == draws[1]
    assert set(draws[0]) != set(draws[1])


def test_the_global_generators_are_left_alone():
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    list(BalancedSampler(LABELS))
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])


def test_processes_share_one_draw_in_equal_parts():
    whole = list(BalancedSampler(LABELS))  # 2020 = 3 · 673 + 1
    shares = [list(BalancedSampler(LABELS, rank=rank, world_size=3)) for rank in range(3)]
    assert [len(share) for share in shares] == [673] * 3
    assert [index for triple in zip(*shares, strict=True) for index in triple] == whole[:2019]


def test_a_data_loader_takes_its_items():
    dataset = Dataset([{"label": int(label)} for label in LABELS])
    loader = DataLoader(dataset, batch_size=101, sampler=BalancedSampler(LABELS), num_workers=0)
    assert sum(int(batch["label"].sum()) for batch in loader) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, 0]}, "at least one positive and one negative"),
        ({"positives_per_negative": 0.0}, "positives_per_negative must be positive, got 0.0"),
        ({"positive_draws": 0}, "positive_draws must be at least 1, got 0"),
        ({"rank": 2, "world_size": 2}, r"rank must be 0 to world_size - 1 \(1\), got 2"),
        ({"labels": [0, 1], "world_size": 9}, "world_size must be at most the length of the draw, got 9"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BalancedSampler(**{"labels": LABELS, **arguments})
