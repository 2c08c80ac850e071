"""TotalSegmentator's own function is called as it wants to be, and its numbers become right and left."""

from __future__ import annotations

import sys
import types

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from shared_nets.runtime.totalsegmentator import TotalSegmentator

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


@pytest.fixture
def ct():
    return MetaTensor(torch.full((1, 60, 40, 30), 40, dtype=torch.int16), affine=torch.from_numpy(AFFINE))


@pytest.fixture
def installed(monkeypatch):
    """Stand in for the package: it draws a right kidney (2) and a left one (3) and remembers the call."""
    calls = []

    def totalsegmentator(image, output, **options):
        calls.append((image, output, options))
        labels = np.zeros(image.shape, dtype=np.uint8)
        labels[40:50, 10:20, 5:20] = 2
        labels[10:20, 10:20, 5:20] = 3
        return nib.Nifti1Image(labels, image.affine)

    api = types.ModuleType("totalsegmentator.python_api")
    api.totalsegmentator = totalsegmentator
    monkeypatch.setitem(sys.modules, "totalsegmentator", types.ModuleType("totalsegmentator"))
    monkeypatch.setitem(sys.modules, "totalsegmentator.python_api", api)
    return calls


def test_its_kidneys_become_right_and_left(ct, installed):
    found = TotalSegmentator()(ct)
    whole = found.mask.whole()
    assert (whole[45, 15, 10], whole[15, 15, 10], whole[30, 15, 10]) == (1, 2, 0)
    assert found.facts["algorithm"] == found.mask.algorithm_name == "TotalSegmentator"
    assert found.mask.made_by == "automatic"


def test_it_is_asked_for_kidneys_only_on_the_grid_of_the_ct(ct, installed):
    TotalSegmentator(fast=True)(ct)
    ((image, output, options),) = installed
    assert np.array_equal(image.affine, AFFINE)
    assert image.shape == (60, 40, 30)
    assert output is None
    assert options["roi_subset"] == ["kidney_right", "kidney_left"]
    assert (options["fast"], options["device"]) == (True, "cpu")


def test_without_the_package_the_error_says_what_to_install(ct):
    with pytest.raises(ImportError, match="pip install TotalSegmentator"):
        TotalSegmentator()(ct)
