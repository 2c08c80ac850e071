"""Small volumes whose voxels mean something, and the same volume with its axes in every order."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

#: Every order and direction of three voxel axes, as nibabel writes orientations.
ALL_ORIENTATIONS = [
    np.array([[axis, flip] for axis, flip in zip(axes, flips, strict=True)], dtype=float)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


@pytest.fixture
def all_orientations():
    """Give the 48 orientations."""
    return ALL_ORIENTATIONS


@pytest.fixture
def reorient():
    """Give ``reorient(volume, affine, orientation) -> (volume, affine)``: same body, other voxel axes."""

    def _reorient(volume, affine, orientation):
        turned = nib.orientations.apply_orientation(volume, orientation)
        return turned, affine @ nib.orientations.inv_ornt_aff(orientation, volume.shape)

    return _reorient


@pytest.fixture
def make_kidneys():
    """Give ``make_kidneys(...) -> (labels, affine)``: RAS axes, right kidney 2, left kidney 3, as boxes.

    The grid has 60 × 40 × 20 voxels of 4 × 3 × 5 mm. The left kidney fills x 8–15, y 10–19, the right one x
    40–49, y 12–21; both fill the slices asked for.
    """

    def _make(slices=range(4, 14), *, right=True, left=True):
        labels = np.zeros((60, 40, 20), dtype=np.uint8)
        for k in slices:
            if left:
                labels[8:16, 10:20, k] = 3
            if right:
                labels[40:50, 12:22, k] = 2
        affine = np.array([[4.0, 0, 0, -118], [0, 3.0, 0, -60], [0, 0, 5.0, 100], [0, 0, 0, 1]])
        return labels, affine

    return _make
