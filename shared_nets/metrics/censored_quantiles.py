"""Quantiles of numbers some of which are only known to be at most a bound.

Shape letters: N numbers, Q quantiles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def quantiles_below_bounds(
    values: npt.ArrayLike, is_upper_bound: npt.ArrayLike, levels: npt.ArrayLike
) -> FloatArray:
    """Give quantiles where some numbers are upper bounds (Kaplan-Meier, from the top down).

    The weight of a bound goes to the numbers below it, in equal parts; a bound that nothing lies below counts
    as a number.

    Args:
        values: numbers or bounds, ``(N,)``.
        is_upper_bound: true where the number may be lower, ``(N,)``.
        levels: between 0 and 1, ``(Q,)``.

    Returns:
        The quantiles, ``(Q,)``, interpolated between the numbers as numpy does when there is no bound.

    Raises:
        ValueError: there are no values, or the shapes differ.

    Reference:
        B. Efron, "The two sample problem with censored data", 1967 (redistribution of weights).
    """
    values = np.asarray(values, dtype=np.float64)
    bound = np.asarray(is_upper_bound, dtype=bool)
    if values.ndim != 1 or values.size == 0 or values.shape != bound.shape:
        raise ValueError(
            f"is_upper_bound must have the shape of values, got {bound.shape} and {values.shape}."
        )
    order = np.lexsort((bound, values))[
        ::-1
    ]  # descending; a bound before an equal number, which lies at most there
    values, bound = values[order], bound[order]
    weights = np.ones(values.size)
    for index in range(values.size - 1):
        if bound[index]:
            weights[index + 1 :] += weights[index] / (values.size - index - 1)
            weights[index] = 0.0
    kept = weights > 0
    values, weights = values[kept][::-1], weights[kept][::-1]  # ascending
    reached = np.cumsum(weights) - weights[0]
    total = reached[-1] if reached[-1] > 0 else 1.0
    return np.interp(np.asarray(levels, dtype=np.float64), reached / total, values)
