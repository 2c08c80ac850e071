"""Which kidney gets which number, and that the box lands where the kidneys lie."""

from __future__ import annotations

import numpy as np
import pytest

from shared_nets.transforms.kidney_mask import canonical_labels
from shared_nets.transforms.sided_mask import sided_mask


def two_blocks(shape=(60, 20, 20)) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[5:12, 8:14, 4:15] = 1  # low index along the first axis
    mask[45:55, 8:14, 4:15] = 1
    return mask


@pytest.mark.parametrize(("sign", "numbers"), [(1.0, (2, 1)), (-1.0, (1, 2))], ids=["RAS", "LAS"])
def test_the_kidney_with_the_larger_x_is_the_right_one(sign, numbers):
    affine = np.diag([sign * 3.0, 3.0, 3.0, 1.0])
    kidneys = canonical_labels(two_blocks(), affine, label_set="kidney")
    mask = sided_mask(kidneys, made_by="supplied", algorithm_name="x")
    whole = mask.whole()
    assert (whole[8, 10, 8], whole[50, 10, 8]) == numbers
    assert np.array_equal(whole > 0, two_blocks() > 0)


def test_a_single_kidney_is_named_by_its_side_of_the_field_of_view():
    only = two_blocks()
    only[30:] = 0
    kidneys = canonical_labels(only, np.diag([3.0, 3.0, 3.0, 1.0]), label_set="kidney")
    whole = sided_mask(kidneys, made_by="automatic", algorithm_name="x").whole()
    assert set(np.unique(whole)) == {0, 2}


def test_lesions_belong_to_their_kidney():
    mask = two_blocks()
    mask[45:50, 8:14, 4:8] = 2
    kidneys = canonical_labels(mask, np.diag([3.0, 3.0, 3.0, 1.0]), label_set="kits")
    assert sided_mask(kidneys, made_by="supplied", algorithm_name="x").whole()[46, 9, 5] == 1
