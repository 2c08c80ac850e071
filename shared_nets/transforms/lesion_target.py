"""What a lesion classifier's figures are computed from: the class, the patient, and the subgroups."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform


class LesionTargetd(MapTransform):
    """Write the target that :class:`shared_nets.metrics.lesion_metric.LesionMetric` reads.

    Reads the class, and where they are there ``group`` (number of the patient) and ``subgroup`` (category by
    variable), as the data sets give them.

    Args:
        keys: key of the class, a whole number.
        subgroups: categories of each variable, the same that the metric is given.
        output_key: where to write the target, ``(2 + V,)`` float64: class; number of the patient, NaN where
            nobody knows; and for each of V variables the number of its category from 1, 0 for any other.
        allow_missing_target: leave items without a class as they are.

    Raises:
        ValueError: there is no class, and that is not allowed.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        *,
        subgroups: Mapping[str, Sequence[str]] | None = None,
        output_key: str = "target",
        allow_missing_target: bool = False,
    ) -> None:
        super().__init__(keys)
        self.subgroups = {name: tuple(categories) for name, categories in (subgroups or {}).items()}
        self.output_key = output_key
        self.allow_missing_target = allow_missing_target

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add ``output_key`` to a copy of ``data``."""
        d = dict(data)
        label = d.get(self.keys[0])
        if label is None:
            if self.allow_missing_target:
                return d
            raise ValueError(f"{self.keys[0]} must be given for every study, got none.")
        group, known = d.get("group"), d.get("subgroup") or {}
        codes = [
            categories.index(known[variable]) + 1 if known.get(variable) in categories else 0
            for variable, categories in self.subgroups.items()
        ]
        row = [float(label), float("nan") if group is None else float(group), *codes]
        d[self.output_key] = torch.tensor(row, dtype=torch.float64)
        return d
