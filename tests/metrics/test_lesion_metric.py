"""The metric of lesion classifiers: figures against scikit-learn, subgroups, and intervals over patients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import CumulativeIterationMetric
from scipy.special import softmax
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, roc_auc_score

from shared_nets.metrics.lesion_metric import LesionMetric

NAMES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
SEVEN = {"class_names": NAMES, "malignant_classes": ("mel", "bcc", "akiec")}
TWO = {"class_names": ("benign", "malignant"), "malignant_classes": ("malignant",)}
SEX = {"sex": ("female", "male")}


@pytest.fixture
def seven():
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(7), rng.integers(0, 7, 393)])
    return rng.normal(size=(400, 7)) + 1.5 * np.eye(7)[labels], labels


def measured(metric, logits, target):
    metric(torch.as_tensor(logits), torch.as_tensor(target))
    return metric


def test_figures_are_those_of_scikit_learn(seven):
    logits, labels = seven
    figures = measured(LesionMetric(**SEVEN, num_draws=0), logits, labels).figures()
    p = softmax(logits, axis=1)
    is_malignant, malignancy = np.isin(labels, [0, 1, 4]), p[:, [0, 1, 4]].sum(axis=1)
    expected = {
        "auc": np.mean([roc_auc_score(labels == k, p[:, k]) for k in range(7)]),
        "accuracy": accuracy_score(labels, p.argmax(axis=1)),
        "balanced_accuracy": balanced_accuracy_score(labels, p.argmax(axis=1)),
        "average_precision": np.mean([average_precision_score(labels == k, p[:, k]) for k in range(7)]),
        "malignancy_auc": roc_auc_score(is_malignant, malignancy),
        "malignancy_average_precision": average_precision_score(is_malignant, malignancy),
        "malignancy_brier": np.mean((malignancy - is_malignant) ** 2),
        "n": 400,
        "num_groups": 400,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_batches_and_single_studies_add_up(seven):
    logits, labels = seven
    whole = measured(LesionMetric(**SEVEN, num_draws=0), logits, labels).figures()
    single = LesionMetric(**SEVEN, num_draws=0)
    assert isinstance(single, CumulativeIterationMetric)
    for row, label in zip(torch.as_tensor(logits), torch.as_tensor(labels), strict=True):
        single([row], [label])
    assert single.figures() == pytest.approx(whole)
    assert single.aggregate() == pytest.approx(whole["auc"])


def test_one_logit_is_that_of_the_second_of_two_classes():
    logits, labels = [[2.0], [-1.0], [1.0], [-2.0]], [1, 0, 0, 1]
    figures = measured(LesionMetric(**TWO, num_draws=0), logits, labels).figures()
    assert figures["malignancy_auc"] == figures["auc"] == pytest.approx(0.5)
    assert figures["accuracy"] == 0.5


def test_the_temperature_changes_calibration_and_not_order():
    logits, labels = [[4.0], [4.0], [-4.0], [4.0]], [1, 1, 0, 0]
    sure = measured(LesionMetric(**TWO, num_draws=0), logits, labels).figures()
    fitted = measured(LesionMetric(**TWO, num_draws=0, temperature=4.0), logits, labels).figures()
    assert fitted["malignancy_auc"] == sure["malignancy_auc"]
    assert fitted["brier"] < sure["brier"]


def rows(num, *, positives, code, first_group):
    """``num`` images, one a patient, the first ``positives`` malignant, with scores that overlap."""
    rng = np.random.default_rng(first_group)
    label = (np.arange(num) < positives).astype(float)
    target = np.stack([label, first_group + np.arange(num), np.full(num, code)], axis=1)
    return rng.normal(size=(num, 1)) + 2 * label[:, None], target


def test_a_subgroup_has_the_figures_of_its_own_images():
    women, men = rows(60, positives=20, code=1, first_group=0), rows(80, positives=30, code=2, first_group=60)
    both = [np.concatenate(pair) for pair in zip(women, men, strict=True)]
    figures = measured(LesionMetric(**TWO, subgroups=SEX, num_draws=30), *both).figures()
    alone = measured(LesionMetric(**TWO, subgroups=SEX, num_draws=30), *women).figures()
    for name in ("malignancy_auc", "malignancy_pauc_low", "ece", "n", "num_groups"):
        assert figures[f"sex_female_{name}"] == alone[name]
    assert (figures["n"], figures["sex_female_n"], figures["sex_male_n"]) == (140, 60, 80)


@pytest.mark.parametrize(
    ("num", "positives"),
    [pytest.param(19, 5, id="too few patients"), pytest.param(30, 0, id="one class")],
)
def test_a_subgroup_that_shows_nothing_has_nan_and_its_n(num, positives):
    few = rows(num, positives=positives, code=1, first_group=0)
    rest = rows(50, positives=20, code=2, first_group=100)
    both = [np.concatenate(pair) for pair in zip(few, rest, strict=True)]
    figures = measured(LesionMetric(**TWO, subgroups=SEX, num_draws=20), *both).figures()
    of_few = {name: value for name, value in figures.items() if name.startswith("sex_female_")}
    assert of_few.pop("sex_female_n") == of_few.pop("sex_female_num_groups") == num
    assert len(of_few) == 39
    assert all(math.isnan(value) for value in of_few.values())
    assert not math.isnan(figures["sex_male_malignancy_auc"])


def test_an_unknown_category_counts_only_in_the_whole():
    unknown = rows(50, positives=20, code=0, first_group=0)
    figures = measured(LesionMetric(**TWO, subgroups=SEX, num_draws=0), *unknown).figures()
    assert (figures["n"], figures["sex_female_n"], figures["sex_male_n"]) == (50, 0, 0)


def test_patients_are_drawn_with_all_of_their_images():
    """Ten images of one patient are worth one: the interval is that of the patients, not of the images."""
    logits, target = rows(100, positives=40, code=1, first_group=0)
    metric = {**TWO, "subgroups": SEX, "num_draws": 300}
    patients = measured(LesionMetric(**metric), logits, target).figures()
    repeated = np.repeat(np.arange(100), 10)
    images = measured(LesionMetric(**metric), logits[repeated], target[repeated]).figures()
    assert (images["n"], images["num_groups"]) == (1000, 100)
    for end in ("low", "high"):
        name = f"malignancy_auc_{end}"
        assert images[name] == pytest.approx(patients[name], abs=1e-12)
    target[:, 1] = np.nan  # nobody knows the patients
    alone = measured(LesionMetric(**metric), logits[repeated], target[repeated]).figures()
    width, narrow = (f["malignancy_auc_high"] - f["malignancy_auc_low"] for f in (patients, alone))
    assert narrow == pytest.approx(width / math.sqrt(10), rel=0.25)


def test_an_interval_that_most_draws_would_not_have_is_nan():
    logits, target = rows(50, positives=1, code=1, first_group=0)  # 36 % of draws miss the one patient
    figures = measured(LesionMetric(**TWO, subgroups=SEX, num_draws=100), logits, target).figures()
    assert not math.isnan(figures["malignancy_auc"])
    assert math.isnan(figures["malignancy_auc_low"])
    assert not math.isnan(figures["accuracy_low"])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="malignant_classes must be some of class_names"):
        LesionMetric(class_names=NAMES, malignant_classes=["melanoma"])
    with pytest.raises(ValueError, match=r"y_pred must have shape \(N, 7\), got \(2, 3\)"):
        LesionMetric(**SEVEN)(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"y must have shape \(2, 3\), got \(2, 1\)"):
        LesionMetric(**SEVEN, subgroups=SEX)(torch.zeros(2, 7), torch.zeros(2))
    with pytest.raises(ValueError, match="must hold images before figures are asked for"):
        LesionMetric(**SEVEN).figures()
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        LesionMetric(**SEVEN, temperature=0)
