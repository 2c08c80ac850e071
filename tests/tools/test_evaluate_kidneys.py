"""Dice and volumes of the kidney figures, on masks whose overlap is known."""

from __future__ import annotations

import numpy as np

from shared_nets.types import KidneyMask
from tools.evaluate_kidneys import compare


def test_dice_and_volume_are_those_of_two_overlapping_blocks():
    labels = np.zeros((20, 10, 10), dtype=np.uint8)
    labels[12:16, 2:6, 2:6] = 1  # 64 voxels
    labels[2:6, 2:6, 2:6] = 2
    reference = np.zeros_like(labels)
    reference[13:17, 2:6, 2:6] = 2  # 48 of them are shared: Dice 2 · 48 / 128
    reference[2:6, 2:6, 2:6] = 3
    mask = KidneyMask(
        labels=labels,
        offset=(0, 0, 0),
        shape=(20, 10, 10),
        affine=np.diag([10.0, 10.0, 10.0, 1.0]),
        made_by="automatic",
        algorithm_name="x",
        algorithm_version="1",
    )
    figures = compare(mask, reference)
    assert figures["right"] == {"dice": 0.75, "volume_ml": 64.0, "reference_ml": 64.0}
    assert figures["left"]["dice"] == 1.0
