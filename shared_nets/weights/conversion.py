"""Turn a public state dict into one of ours, and account for every name on both sides.

A weight keeps its shape; only the parts that one of our weights joins are put one below the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Target(NamedTuple):
    """Where a weight goes: our name, and which of how many parts it is of the weight with that name."""

    name: str
    part: int = 0
    num_parts: int = 1


class Dropped(NamedTuple):
    """A weight that is left out on purpose, and why."""

    reason: str


#: Says where the weight with a public name goes.
NameMap = Callable[[str], Target | Dropped]


class WeightsMismatch(ValueError):
    """Weights that do not fit the network, with everything that is wrong with them.

    Args:
        problems: one sentence for each missing, unexpected or misshapen weight.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "state_dict must hold exactly the weights of the network, got:\n  " + "\n  ".join(self.problems)
        )


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A converted state dict and the account of how it came about.

    Args:
        state_dict: our weights: float32, contiguous, in the network's order.
        sources: for each of our names the public names it was made from.
        dropped: public names left out on purpose, and why.
    """

    state_dict: dict[str, Tensor]
    sources: dict[str, tuple[str, ...]]
    dropped: dict[str, str]

    def report(self) -> list[str]:
        """Describe the conversion, one line a weight."""
        mapped = [
            f"mapped   {name} {tuple(self.state_dict[name].shape)} <- {' + '.join(sources)}"
            for name, sources in self.sources.items()
        ]
        return mapped + [f"dropped  {name}: {reason}" for name, reason in self.dropped.items()]


def expected_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """List what a state dict must hold to fit a network.

    Args:
        network: may live on the ``meta`` device.

    Returns:
        The shape for each name, in the network's order.
    """
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def convert_state_dict(
    state_dict: Mapping[str, Any],
    *,
    target_of: NameMap,
    expected: Mapping[str, tuple[int, ...]],
    dropped: Mapping[str, str] | None = None,
) -> Conversion:
    """Rename and join weights, and refuse to go on when a single one is unaccounted for.

    Nothing is resized: a position embedding or patch kernel of another size is a mismatch.

    Args:
        state_dict: public names and weights.
        target_of: says where each goes.
        expected: shape for each of our names, see :func:`expected_shapes`.
        dropped: what was left out before, and why.

    Returns:
        Our weights, and the account.

    Raises:
        WeightsMismatch: a weight is missing, unexpected, given twice, not a tensor of finite floating-point
            numbers, or of another shape.
    """
    left_out = dict(dropped or {})
    parts: dict[str, dict[int, str]] = {}
    num_parts: dict[str, int] = {}
    problems: list[str] = []
    for name, value in state_dict.items():
        target = target_of(name)
        if isinstance(target, Dropped):
            left_out[name] = target.reason
        elif target.name not in expected:
            problems.append(f"unexpected: {name}")
        elif not isinstance(value, Tensor) or not value.is_floating_point():
            problems.append(f"not floating-point numbers: {name}")
        elif not bool(torch.isfinite(value).all()):
            problems.append(f"not finite: {name}")
        elif target.part in parts.setdefault(target.name, {}):
            problems.append(f"given twice: {target.name}, by {parts[target.name][target.part]} and {name}")
        else:
            parts[target.name][target.part] = name
            num_parts[target.name] = target.num_parts
    for name, shape in expected.items():
        given = parts.get(name, {})
        absent = sorted(set(range(num_parts.get(name, 1))) - set(given))
        if not given:
            problems.append(f"missing: {name}")
        elif absent:
            problems.append(f"missing: parts {absent} of {name}, which has {sorted(given.values())}")
        else:
            problems.extend(_shape_problems(name, shape, [state_dict[given[part]] for part in sorted(given)]))
    if problems:
        raise WeightsMismatch(problems)
    sources = {name: tuple(parts[name][part] for part in sorted(parts[name])) for name in expected}
    return Conversion(
        state_dict={name: _join([state_dict[source] for source in names]) for name, names in sources.items()},
        sources=sources,
        dropped=left_out,
    )


def _shape_problems(name: str, shape: tuple[int, ...], values: list[Tensor]) -> list[str]:
    rows = shape[0] // len(values) if shape and len(values) > 1 else None
    wanted = tuple(shape) if rows is None else (rows, *shape[1:])
    return [
        f"shape: {name} is {tuple(value.shape)} in the file and {wanted} in the network"
        for value in values
        if tuple(value.shape) != wanted
    ]


def _join(values: list[Tensor]) -> Tensor:
    """Copy to float32 in memory of its own, so that a file holds no more than the weight itself."""
    joined = torch.cat([value.detach() for value in values]) if len(values) > 1 else values[0].detach()
    return joined.to(device="cpu", dtype=torch.float32, copy=True, memory_format=torch.contiguous_format)
