"""Figures of decisions on six lesions, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from shared_nets.metrics.bootstrap import weighted_figures_with_intervals
from shared_nets.metrics.decision_figures import answer_figures, decision_figures

NAMES = ("mel", "nv", "df")
#: Three melanomas: the first is found; the second's set holds naevus only and it is called one; the third's
#: set holds melanoma and naevus, and no label is given. Three naevi: right, right without a label, wrong.
LABELS, LIKELY = [0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0]
IN_SET = [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0]]
SILENT = [0, 0, 1, 0, 1, 0]


@pytest.fixture
def figures():
    return decision_figures(
        labels=LABELS, likely=LIKELY, in_set=IN_SET, is_abstained=SILENT, class_names=NAMES, malignant=[0]
    )


def test_sets_and_labels_are_counted_over_those_who_can_be_judged(figures):
    found = {name: figure(np.ones(6)) for name, figure in figures.items()}
    assert np.isnan(found.pop("set_coverage_df"))  # no lesion is one
    assert found == pytest.approx(
        {
            "set_coverage": 4 / 6,
            "set_coverage_mel": 2 / 3,
            "set_coverage_nv": 2 / 3,
            "set_size": 8 / 6,
            "set_misses_malignancy": 1 / 3,
            "kept_accuracy": 2 / 4,
            "label_misses_malignancy": 1 / 3,
        }
    )


def test_a_weight_of_two_is_an_image_seen_twice(figures):
    weights = np.array([1.0, 2.0, 0.0, 0.0, 0.0, 1.0])
    assert figures["set_coverage"](weights) == pytest.approx(1 / 4)
    assert figures["set_size"](weights) == pytest.approx(1.0)
    assert figures["label_misses_malignancy"](weights) == pytest.approx(2 / 3)
    assert np.isnan(figures["set_size"](np.zeros(6)))


def test_answers_are_counted_without_the_truth():
    figures = answer_figures(
        is_beyond=[1, 0, 0, 0], is_abstained=[1, 1, 0, 0], reasons={"dark": [0, 1, 0, 0]}
    )
    found = {name: figure(np.ones(4)) for name, figure in figures.items()}
    assert found == {"beyond_ood_limit": 0.25, "abstained": 0.5, "abstained_dark": 0.25}


def test_the_interval_of_a_share_is_that_of_drawing_people():
    """400 people of whom 100 show it, once with one and once with three images each: the same interval."""
    shown = np.repeat([True, False], [100, 300])
    once, thrice = (
        weighted_figures_with_intervals(
            {"share": answer_figures(is_beyond=s, is_abstained=s, reasons={})["abstained"]},
            group,
            num_draws=500,
        )
        for s, group in ((shown, np.arange(400)), (np.repeat(shown, 3), np.repeat(np.arange(400), 3)))
    )
    assert thrice == pytest.approx(once, rel=1e-12)
    # binomial standard error √(.25 · .75 / 400) = .0217, so .25 ± 1.96 · .0217
    assert (once["share_low"], once["share_high"]) == pytest.approx((0.2076, 0.2924), abs=0.006)


def test_without_draws_there_are_no_intervals(figures):
    found = weighted_figures_with_intervals({"size": figures["set_size"]}, range(6), num_draws=0)
    assert found == {"size": pytest.approx(8 / 6)}


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"in_set must have shape \(6, 2\)"):
        decision_figures(
            labels=LABELS,
            likely=LIKELY,
            in_set=IN_SET,
            is_abstained=SILENT,
            class_names=NAMES[:2],
            malignant=[0],
        )
