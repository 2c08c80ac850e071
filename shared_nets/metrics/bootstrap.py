"""Confidence intervals by drawing people again: of one model, and of the difference between two.

Shape letters: N people, R repeats of cross-validation, B draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

FloatArray = npt.NDArray[np.float64]
Figure = Callable[[FloatArray, FloatArray], float]
WeightedFigure = Callable[[FloatArray], float]

#: Largest share of draws that may leave a figure undefined before its interval is.
MAX_UNDEFINED = 0.05


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with the ends of its confidence interval."""

    value: float
    low: float
    high: float
    level: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0.0 or self.high < 0.0


def bootstrap_interval(
    figure: Figure,
    observed: npt.ArrayLike,
    predicted: npt.ArrayLike,
    *,
    level: float = 0.95,
    num_draws: int = 2000,
    method: str = "bca",
    seed: int = 0,
) -> Interval:
    """Give a figure and its confidence interval over people.

    Args:
        figure: function of observed and predicted values, ``(N,)`` each.
        observed: ``(N,)``.
        predicted: ``(N,)``, or ``(R, N)`` for several predictions a person (repeated cross-validation): the
            figure is the mean over the repeats, and a person is drawn with all of them.
        level: share of draws inside the interval.
        num_draws: B.
        method: ``bca`` (bias-corrected and accelerated) or ``percentile``.
        seed: of the draws.

    Returns:
        The figure and its interval.

    Raises:
        ValueError: the shapes, the level or the method do not fit.

    Reference:
        B. Efron, "Better Bootstrap Confidence Intervals", J Am Stat Assoc 1987.
    """
    observed, predicted = _checked(observed, predicted)

    def statistic(index: npt.NDArray[np.int64]) -> float:
        return _mean_over_repeats(figure, observed, predicted, index)

    return _interval(statistic, observed.size, level, num_draws, method, seed)


def paired_bootstrap_interval(
    figure: Figure,
    observed: npt.ArrayLike,
    predicted: npt.ArrayLike,
    other_predicted: npt.ArrayLike,
    *,
    level: float = 0.95,
    num_draws: int = 2000,
    method: str = "bca",
    seed: int = 0,
) -> Interval:
    """Give the difference between two models on the same people: the first minus the other.

    Args:
        figure: function of observed and predicted values, ``(N,)`` each.
        observed: ``(N,)``.
        predicted: of the first model, ``(N,)`` or ``(R, N)``.
        other_predicted: of the other model, ``(N,)`` or ``(R, N)``.
        level: share of draws inside the interval.
        num_draws: B.
        method: ``bca`` or ``percentile``.
        seed: of the draws.

    Returns:
        The difference and its interval; each draw takes the same people for both models.

    Raises:
        ValueError: as :func:`bootstrap_interval`.
    """
    observed, predicted = _checked(observed, predicted)
    observed, other_predicted = _checked(observed, other_predicted)

    def statistic(index: npt.NDArray[np.int64]) -> float:
        return _mean_over_repeats(figure, observed, predicted, index) - _mean_over_repeats(
            figure, observed, other_predicted, index
        )

    return _interval(statistic, observed.size, level, num_draws, method, seed)


def weighted_figures_with_intervals(
    figures: Mapping[str, WeightedFigure],
    group: npt.ArrayLike,
    *,
    level: float = 0.95,
    num_draws: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Give figures that take a weight for each image, with intervals over people.

    People are drawn with all of their images; the interval is that of the percentiles of the draws.

    Args:
        figures: function of weights ``(N,)`` by name, N being images here.
        group: person of each image, ``(N,)``, any numbers.
        level: share of draws inside the interval.
        num_draws: B; 0 leaves the intervals out.
        seed: of the draws, the same for every figure.

    Returns:
        Each figure by its name; ``…_low`` and ``…_high`` are the ends of its interval, NaN where more than
        :data:`MAX_UNDEFINED` of the draws leave the figure undefined.
    """
    people, person = np.unique(np.asarray(group), return_inverse=True)  # (G,), (N,)
    out: dict[str, float] = {}
    for name, figure in figures.items():
        out[name] = float(figure(np.ones(person.size)))
        if num_draws:
            ends = _weighted_interval(figure, person, people.size, level, num_draws, seed)
            out[f"{name}_low"], out[f"{name}_high"] = ends
    return out


def _weighted_interval(
    figure: WeightedFigure,
    person: npt.NDArray[np.int64],
    num_people: int,
    level: float,
    num_draws: int,
    seed: int,
) -> tuple[float, float]:
    num_undefined = 0

    def of_draw(drawn: npt.NDArray[np.int64]) -> float:
        nonlocal num_undefined
        times = np.bincount(drawn, minlength=num_people)  # (G,)
        value = figure(times[person].astype(np.float64))
        num_undefined += int(not np.isfinite(value))
        return value

    interval = _interval(of_draw, num_people, level, num_draws, "percentile", seed)
    if num_undefined > MAX_UNDEFINED * num_draws:
        return float("nan"), float("nan")
    return interval.low, interval.high


def _checked(observed: npt.ArrayLike, predicted: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    observed = np.asarray(observed, dtype=np.float64)
    predicted = np.atleast_2d(np.asarray(predicted, dtype=np.float64))  # (R, N)
    if observed.ndim != 1 or predicted.ndim != 2 or predicted.shape[1] != observed.size:
        raise ValueError(
            f"predicted must have shape (N,) or (R, N) for N = {observed.size}, got {predicted.shape}."
        )
    return observed, predicted


def _mean_over_repeats(
    figure: Figure, observed: FloatArray, predicted: FloatArray, index: npt.NDArray[np.int64]
) -> float:
    drawn = observed[index]
    return float(np.mean([figure(drawn, repeat[index]) for repeat in predicted]))


def _interval(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    num_people: int,
    level: float,
    num_draws: int,
    method: str,
    seed: int,
) -> Interval:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level}.")
    if method not in ("bca", "percentile"):
        raise ValueError(f"method must be 'bca' or 'percentile', got {method!r}.")
    everyone = np.arange(num_people)
    value = statistic(everyone)
    rng = np.random.default_rng(seed)
    draws = np.array([statistic(rng.integers(0, num_people, num_people)) for _ in range(num_draws)])
    draws = draws[np.isfinite(draws)]
    tails = np.array([(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    if draws.size == 0:
        return Interval(value=value, low=float("nan"), high=float("nan"), level=level)
    if method == "bca" and draws.min() < value < draws.max():
        shift = norm.ppf(
            (np.count_nonzero(draws < value) + 0.5 * np.count_nonzero(draws == value)) / draws.size
        )
        without = np.array([statistic(np.delete(everyone, person)) for person in everyone])
        spread = without.mean() - without
        scale = 6.0 * np.square(spread).sum() ** 1.5
        acceleration = (spread**3).sum() / scale if scale > 0 else 0.0
        reach = shift + norm.ppf(tails)
        tails = norm.cdf(shift + reach / (1.0 - acceleration * reach))
    low, high = np.quantile(draws, tails)
    return Interval(value=value, low=float(low), high=float(high), level=level)
