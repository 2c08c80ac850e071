"""A sampler for sets in which hardly anything is positive: every positive twice, and a share of negatives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler


class BalancedSampler(Sampler[int]):
    """Draw positives with replacement and negatives without, other ones every epoch.

    The draw of an epoch is a function of ``seed`` and the epoch alone, so that a resumed training, and every
    process of a distributed one, draws what it should; call :meth:`set_epoch` when an epoch starts
    (:class:`shared_nets.handlers.draw_anew.DrawAnew` does). It touches no global generator.

    Args:
        labels: whether each item is positive, ``(N,)`` (a class number above 0 counts as positive).
        positives_per_negative: positives drawn for one negative; 0.01 gives about one positive in a hundred
            and one. Where the negatives do not suffice, all of them are drawn.
        positive_draws: draws per positive of the set in one epoch.
        seed: of all draws.
        rank: number of this process.
        world_size: number of processes; each gets an equal part of the draw, whose last
            ``length % world_size`` items are left out.

    Raises:
        ValueError: there is no positive or no negative, or a number is out of range.
    """

    def __init__(
        self,
        labels: Sequence[int] | Sequence[bool] | npt.NDArray,
        *,
        positives_per_negative: float = 0.01,
        positive_draws: int = 2,
        seed: int = 42,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        is_positive = np.asarray(labels) > 0
        if is_positive.ndim != 1 or is_positive.all() or not is_positive.any():
            raise ValueError("labels must be a row with at least one positive and one negative.")
        if positives_per_negative <= 0:
            raise ValueError(f"positives_per_negative must be positive, got {positives_per_negative}.")
        if positive_draws < 1:
            raise ValueError(f"positive_draws must be at least 1, got {positive_draws}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be 0 to world_size - 1 ({world_size - 1}), got {rank}.")
        self.positives = np.flatnonzero(is_positive)
        self.negatives = np.flatnonzero(~is_positive)
        self.num_positives = positive_draws * self.positives.size
        self.num_negatives = min(round(self.num_positives / positives_per_negative), self.negatives.size)
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0
        if len(self) == 0:
            raise ValueError(f"world_size must be at most the length of the draw, got {world_size}.")

    def set_epoch(self, epoch: int) -> None:
        """Draw the items of this epoch from the next iteration on."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Items of one epoch for this process."""
        return (self.num_positives + self.num_negatives) // self.world_size

    def __iter__(self) -> Iterator[int]:
        """Give the indices of this process, in random order."""
        rng = np.random.default_rng([self.seed, self.epoch])
        positives = rng.choice(self.positives, self.num_positives, replace=True)
        negatives = rng.choice(self.negatives, self.num_negatives, replace=False)
        draw = rng.permutation(np.concatenate([positives, negatives]))
        return iter(draw[self.rank :: self.world_size][: len(self)].tolist())
