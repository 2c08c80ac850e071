"""Synthetic regression tables from which an in-context tabular network learns to predict.

Each task is a table drawn from its own random law: a linear rule, a random network, an ensemble of random
trees, or a causal network whose inner nodes are the columns. Columns look like a clinical table: continuous,
skewed, ordinal, binary (often rare), with values missing at random or by a rule.

Shape letters: B tasks, R rows, F features, H hidden nodes, T trees, L levels of a tree.

Reference:
    N. Hollmann et al., "Accurate predictions on small data with a tabular foundation model", Nature 2025,
    section "Synthetic data based on causal models" (the idea; this prior is simpler and our own).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_HIDDEN_WIDTH = 12
_NUM_TREES = 12
_TREE_DEPTH = 3
_LIMIT = 50.0


class SyntheticTasks(NamedTuple):
    """Tasks of one size: ``features`` ``(B, R, F)``, NaN where missing, ``targets`` ``(B, R)``; float32."""

    features: Tensor
    targets: Tensor


def sample_tasks(
    num_tasks: int, num_rows: int, num_features: int, *, generator: torch.Generator
) -> SyntheticTasks:
    """Draw regression tables, each with its own law, marginals, noise and gaps.

    Args:
        num_tasks: how many tables.
        num_rows: rows of every table, context and query together.
        num_features: columns of every table, missing indicators included.
        generator: source of all randomness; the same state gives the same bytes.

    Returns:
        Features and targets; neither is standardised.

    Raises:
        ValueError: a count is too small to make a table.
    """
    for name, value, least in (
        ("num_tasks", num_tasks, 1),
        ("num_rows", num_rows, 2),
        ("num_features", num_features, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
    tables = []
    for _ in range(num_tasks):
        law = _LAWS[int(torch.randint(len(_LAWS), (), generator=generator))]
        with_indicators = num_features >= 4 and _chance(0.25, generator)
        width = (num_features + 1) // 2 if with_indicators else num_features
        features, signal = law(num_rows, width, generator)
        targets = _noisy(signal, generator)
        features = _with_gaps(features, generator, always=with_indicators)
        if with_indicators:
            indicators = features.isnan().to(features.dtype)[:, : num_features - width]
            features = torch.cat([features, indicators], dim=1)
        order = torch.randperm(num_features, generator=generator)
        tables.append((features[:, order], targets))
    return SyntheticTasks(torch.stack([x for x, _ in tables]), torch.stack([y for _, y in tables]))


def _linear_law(num_rows: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    features = _columns(_correlated(num_rows, width, generator), generator)
    return features, _standardised(features) @ _sparse_weights((width,), generator)


def _network_law(num_rows: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    features = _columns(_correlated(num_rows, width, generator), generator)
    hidden = _standardised(features)
    for _ in range(int(torch.randint(1, 3, (), generator=generator))):
        weights = _sparse_weights((hidden.shape[1], _HIDDEN_WIDTH), generator)
        bias = torch.randn(_HIDDEN_WIDTH, generator=generator)
        hidden = _standardised(_activation(generator)(_standardised(hidden @ weights) + bias))  # (R, H)
    return features, hidden @ _sparse_weights((_HIDDEN_WIDTH,), generator)


def _tree_law(num_rows: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    features = _columns(_correlated(num_rows, width, generator), generator)
    relevant = 1 + int(torch.randint(min(width, 8), (), generator=generator))
    column = torch.randint(relevant, (_NUM_TREES, _TREE_DEPTH), generator=generator)  # (T, L)
    column = torch.randperm(width, generator=generator)[column]
    row = torch.randint(num_rows, (_NUM_TREES, _TREE_DEPTH), generator=generator)
    goes_right = features[:, column] >= features[row, column]  # (R, T, L)
    leaf = (goes_right * 2 ** torch.arange(_TREE_DEPTH)).sum(-1)  # (R, T)
    values = torch.randn(_NUM_TREES, 2**_TREE_DEPTH, generator=generator)
    return features, values[torch.arange(_NUM_TREES), leaf].sum(-1)


def _causal_law(num_rows: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    nodes = [_correlated(num_rows, max(3, width // 2), generator)]
    while sum(n.shape[1] for n in nodes) < width + 4:
        parents = nodes[-1]
        children = max(4, width // 2)
        weights = _sparse_weights((parents.shape[1], children), generator)
        noise = 0.5 * _uniform(generator) * torch.randn(num_rows, children, generator=generator)
        nodes.append(_standardised(_activation(generator)(_standardised(parents @ weights))) + noise)
    every = torch.cat(nodes, dim=1)
    order = torch.randperm(every.shape[1], generator=generator)
    return _columns(every[:, order[1 : width + 1]], generator), every[:, order[0]]


Law = Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]
_LAWS: tuple[Law, ...] = (_linear_law, _network_law, _tree_law, _causal_law)


def _correlated(num_rows: int, width: int, generator: torch.Generator) -> Tensor:
    own = torch.randn(num_rows, width, generator=generator)
    if _chance(0.3, generator):
        return own
    num_factors = 1 + int(torch.randint(3, (), generator=generator))
    factors = torch.randn(num_rows, num_factors, generator=generator)
    loading = torch.randn(num_factors, width, generator=generator) * _uniform(generator) * 1.5
    return _standardised(own + factors @ loading)


def _columns(latent: Tensor, generator: torch.Generator) -> Tensor:
    """Give each column a clinical look: bell, skewed, heavy-tailed, flat, ordinal or binary."""
    num_rows, width = latent.shape
    kind = torch.rand(width, generator=generator)
    if _chance(0.3, generator):
        kind = kind * 0.55  # a table of continuous columns only
    bell = latent
    skewed = torch.exp(latent * 0.8)
    heavy = latent + latent**3 * 0.2
    flat = torch.special.ndtr(latent)
    cut = torch.special.ndtri(0.5 + 0.48 * torch.rand(width, generator=generator) ** 0.7)
    binary = (latent > cut).to(latent.dtype)
    levels = torch.randint(2, 6, (width,), generator=generator)
    ordinal = (flat * levels).floor()
    columns = bell
    for low, high, look in (
        (0.30, 0.40, skewed),
        (0.40, 0.45, heavy),
        (0.45, 0.55, flat),
        (0.55, 0.65, ordinal),
        (0.65, 1.01, binary),
    ):
        columns = torch.where((kind >= low) & (kind < high), look, columns)
    sign = torch.randint(0, 2, (width,), generator=generator) * 2 - 1
    scale = torch.exp(torch.randn(width, generator=generator))
    offset = torch.randn(width, generator=generator)
    return (columns * sign * scale + offset).expand(num_rows, width)


def _noisy(signal: Tensor, generator: torch.Generator) -> Tensor:
    """Mix in noise so that the explained share is anything from hardly any to all, then maybe skew."""
    explained = 0.99 if _chance(0.15, generator) else 0.05 + 0.95 * _uniform(generator)
    noise = torch.randn(signal.shape, generator=generator)
    if _chance(0.25, generator):
        noise = noise / torch.rand(signal.shape, generator=generator).clamp(min=0.02).sqrt()
    targets = explained**0.5 * _standardised(signal) + (1 - explained) ** 0.5 * _standardised(noise)
    if _chance(0.2, generator):
        targets = torch.exp(targets * (0.3 + 0.5 * _uniform(generator)))
    return targets


def _with_gaps(features: Tensor, generator: torch.Generator, *, always: bool) -> Tensor:
    """Blank values: some columns, at a rate of their own, at random or when another column is high."""
    if not always and _chance(0.5, generator):
        return features
    num_rows, width = features.shape
    share_of_columns = _uniform(generator)
    has_gaps = torch.rand(width, generator=generator) < share_of_columns
    rate = 0.5 * torch.rand(width, generator=generator) * has_gaps
    other = torch.randint(width, (width,), generator=generator)
    driver = _standardised(features)[:, other] if _chance(0.3, generator) else torch.zeros(num_rows, width)
    chance = torch.sigmoid(torch.logit(rate.clamp(1e-6, 0.9)) + driver.clamp(-3, 3))
    gaps = (torch.rand(num_rows, width, generator=generator) < chance) & has_gaps
    return features.masked_fill(gaps, float("nan"))


def _sparse_weights(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Weights of which a random share is zero, never all, with a few large ones."""
    weights = torch.randn(shape, generator=generator)
    if _chance(0.5, generator):
        weights = weights * torch.exp(torch.randn(shape, generator=generator))
    inputs = shape[0]
    kept = torch.rand(shape, generator=generator) < max(_uniform(generator), 1.5 / inputs)
    chosen = torch.randint(inputs, (1, *shape[1:]), generator=generator)
    return weights * kept.scatter(0, chosen, True)


def _activation(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    choices = (torch.tanh, torch.relu, torch.sin, torch.abs, torch.square, _identity, _step)
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def _identity(x: Tensor) -> Tensor:
    return x


def _step(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


def _standardised(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=0)
    return (centred / centred.std(dim=0).clamp(min=1e-4)).clamp(-_LIMIT, _LIMIT)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _chance(probability: float, generator: torch.Generator) -> bool:
    return _uniform(generator) < probability
