"""Which kidney is which in the mask that a result was computed from, for the files that carry it on."""

from __future__ import annotations

from typing import Literal

import numpy as np

from shared_nets.transforms.kidney_mask import KidneyLabels, kidney_sides
from shared_nets.types import KidneyMask

_NUMBERS = {"right": 1, "left": 2, "kidney": 3}


def sided_mask(
    kidneys: KidneyLabels,
    *,
    made_by: Literal["automatic", "supplied"],
    algorithm_name: str,
    algorithm_version: str = "",
    midline_x_mm: float | None = None,
) -> KidneyMask:
    """Number the kidneys by where they lie: 1 right, 2 left, lesions included; 3 where nothing tells.

    Args:
        kidneys: kidneys on the grid of the image.
        made_by: who drew them.
        algorithm_name: name of what drew them.
        algorithm_version: its version.
        midline_x_mm: RAS x of the middle of the body; of the field of view by default.

    Returns:
        The mask.
    """
    if midline_x_mm is None:
        affine, shape = kidneys.grid_affine, np.array(kidneys.grid_shape)
        midline_x_mm = float(affine[0, :3] @ ((shape - 1) / 2.0) + affine[0, 3])
    labels = np.zeros(kidneys.labels.shape, dtype=np.uint8)
    sides = kidney_sides(kidneys.labels, kidneys.affine, midline_x_mm=midline_x_mm)
    for name, side in sides.masks.items():
        labels[side] = _NUMBERS[name]
    return KidneyMask(
        labels=labels,
        offset=kidneys.offset,
        shape=kidneys.grid_shape,
        affine=kidneys.grid_affine,
        made_by=made_by,
        algorithm_name=algorithm_name,
        algorithm_version=algorithm_version,
    )
