"""Folds that keep patients together, and parts of large sets that keep the folds."""

from __future__ import annotations

import numpy as np
import pytest

from shared_nets.data.patient_folds import group_numbers, patient_folds, quick_subset


@pytest.fixture
def images():
    """4,000 images of 200 patients, one image in fifty malignant."""
    rng = np.random.default_rng(0)
    return (rng.random(4000) < 0.02).astype(int), rng.integers(0, 200, 4000)


def test_no_patient_straddles_two_folds(images):
    labels, patients = images
    folds = patient_folds(labels, patients)
    assert sorted(np.unique(folds)) == [0, 1, 2, 3, 4]
    for patient in np.unique(patients):
        assert len(set(folds[patients == patient])) == 1


def test_every_fold_has_its_share_of_malignant_images(images):
    labels, patients = images
    folds = patient_folds(labels, patients)
    share = np.array([labels[folds == fold].sum() for fold in range(5)]) / labels.sum()
    assert (np.abs(share - 0.2) < 0.05).all()


def test_the_seed_deals_the_folds(images):
    assert (patient_folds(*images) == patient_folds(*images)).all()
    assert (patient_folds(*images) != patient_folds(*images, seed=1)).any()


def test_an_image_without_a_patient_is_a_patient_of_its_own():
    assert group_numbers(["b", None, "a", "b", float("nan"), "", "a"]).tolist() == [0, 1, 2, 0, 3, 4, 2]


def test_a_quick_subset_keeps_every_positive_and_the_fold_of_everybody(images):
    labels, patients = images
    folds = patient_folds(labels, patients)
    chosen = quick_subset(labels > 0, folds, negatives_per_fold=30)
    assert set(np.flatnonzero(labels)) <= set(chosen)
    assert [int((labels[chosen][folds[chosen] == fold] == 0).sum()) for fold in range(5)] == [30] * 5
    for held_out in range(5):
        learned_from = chosen[folds[chosen] != held_out]
        assert not set(patients[learned_from]) & set(patients[folds == held_out])
    assert (np.diff(chosen) > 0).all()


def test_too_few_negatives_are_all_kept():
    assert quick_subset([True, False, False], [0, 0, 1], negatives_per_fold=9).tolist() == [0, 1, 2]


def test_what_cannot_be_dealt_is_refused():
    with pytest.raises(ValueError, match=r"num_folds must be 2 to the number of patients \(3\), got 5"):
        patient_folds([0, 1, 0, 1], [0, 1, 2, 2])
    with pytest.raises(ValueError, match=r"groups must have the shape of labels \(2,\), got \(3,\)"):
        patient_folds([0, 1], [0, 1, 2])
    with pytest.raises(ValueError, match="negatives_per_fold must be at least 0, got -1"):
        quick_subset([True], [0], negatives_per_fold=-1)
