"""Tell a lesion network, before it is trained, how the numbers of its metadata are distributed.

Shape letters: N numbers of the schema, M items that are looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from shared_nets.transforms.lesion_metadata import LesionMetadatad
from shared_nets.transforms.lesion_schema import LesionSchema

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]


def set_metadata_statistics(
    network: nn.Module,
    *,
    data: Sequence[Mapping[str, Any]],
    schema: LesionSchema | None,
    max_items: int = 20_000,
) -> None:
    """Standardise the numbers of a network's metadata by those of the training items.

    Args:
        network: its ``tabular_encoder`` gets mean and standard deviation of every number.
        data: training items, with ``clinical``; no validation item may be among them.
        schema: of the metadata; without one nothing is done, for the network looks at images alone.
        max_items: of longer data so many items are looked at, evenly spaced, always the same.

    Raises:
        ValueError: there is no item.
        InputRefused: a ``CLINICAL_*`` code, as :class:`LesionMetadatad` raises it.
    """
    if schema is None:
        return
    mean, std = metadata_statistics(data, schema, max_items=max_items)
    network.tabular_encoder.set_statistics(mean.tolist(), std.tolist())  # type: ignore[operator, union-attr]
    logger.info("the numbers of %s are standardised by %d training items", schema.name, len(data))


def metadata_statistics(
    data: Sequence[Mapping[str, Any]], schema: LesionSchema, *, max_items: int = 20_000
) -> tuple[FloatArray, FloatArray]:
    """Measure mean and standard deviation of every number, missing values left out.

    Args:
        data: see :func:`set_metadata_statistics`; likewise ``max_items``.
        schema: of the metadata.
        max_items: at least 1.

    Returns:
        Mean and standard deviation, each ``(N,)``. A number that no item has gets 0 and 1, and one that is
        always the same gets a deviation of 1.

    Raises:
        ValueError: there is no item.
        InputRefused: a ``CLINICAL_*`` code.
    """
    if not len(data):
        raise ValueError("data must hold training items, got none.")
    chosen = np.unique(np.linspace(0, len(data) - 1, min(len(data), max_items)).round().astype(int))
    read = LesionMetadatad(schema=schema)
    items: list[dict[Hashable, Any]] = [dict(data[int(i)].items()) for i in chosen]
    rows = np.stack([read(item)["metadata"].numpy() for item in items]).astype(np.float64)  # (M, F)
    numbers = np.ma.masked_invalid(rows[:, : schema.num_numbers])  # (M, N)
    mean = numbers.mean(axis=0).filled(0.0)  # (N,)
    std = numbers.std(axis=0).filled(0.0)  # (N,)
    return mean, np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1.0)
