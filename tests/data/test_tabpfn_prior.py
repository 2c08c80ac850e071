"""The synthetic tables that train the small TabPFN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from shared_nets.data.tabpfn_prior import sample_tasks


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("num_features", [1, 3, 4, 5, 40])
def test_tables_have_the_asked_shape_and_finite_targets(num_features):
    tasks = sample_tasks(20, 60, num_features, generator=_generator(num_features))
    assert tasks.features.shape == (20, 60, num_features)
    assert tasks.targets.shape == (20, 60)
    assert tasks.features.dtype == tasks.targets.dtype == torch.float32
    assert torch.isfinite(tasks.targets).all()
    assert not tasks.features.isinf().any()
    assert (tasks.targets.std(dim=1) > 0).all()


def test_one_seed_gives_the_same_bytes_and_another_does_not():
    first, again, other = (sample_tasks(4, 50, 8, generator=_generator(seed)) for seed in (1, 1, 2))
    assert first.features.numpy().tobytes() == again.features.numpy().tobytes()
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.targets, other.targets)


def test_tables_mix_binary_and_continuous_columns_and_gaps():
    features = sample_tasks(60, 100, 10, generator=_generator(5)).features
    columns = features.transpose(1, 2).reshape(-1, 100).numpy()
    num_values = np.array([len(np.unique(c[~np.isnan(c)])) for c in columns])
    assert 0.15 < (num_values == 2).mean() < 0.5
    assert 0.3 < (num_values > 30).mean() < 0.8
    gap_share = np.isnan(columns).mean()
    assert 0.01 < gap_share < 0.25


def test_targets_can_be_learned_from_the_columns_in_some_tables_and_hardly_in_others():
    tasks = sample_tasks(60, 220, 5, generator=_generator(8))
    scores = []
    for features, targets in zip(tasks.features.nan_to_num().numpy(), tasks.targets.numpy(), strict=True):
        model = LinearRegression().fit(features[:150], targets[:150])
        scores.append(model.score(features[150:], targets[150:]))
    assert max(scores) > 0.8
    assert min(scores) < 0.05


def test_a_count_that_makes_no_table_is_named():
    with pytest.raises(ValueError, match="num_rows must be at least 2, got 1"):
        sample_tasks(1, 1, 3, generator=_generator(0))
