"""The figures of a run: on answers whose worth is known, with refusals, and without any label."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from scipy.special import softmax

from shared_nets.refusals import InputRefused
from shared_nets.runtime.lesion_evaluation import LesionEvaluation
from shared_nets.transforms.lesion_result import LesionResultd
from shared_nets.types import LesionCalibration

NAMES = ("mel", "nv")
CALIBRATION = LesionCalibration(
    temperature=2.0,
    conformal_quantiles=(0.9, 0.5),
    coverage=0.9,
    num_calibration=100,
    ood_means=np.zeros((2, 1), dtype=np.float32),
    ood_precision=np.eye(1, dtype=np.float32),
    ood_limit=4.0,
    min_confidence=0.6,
    class_names=NAMES,
)
REFUSED = {"study_id": "r", "refusal": InputRefused("IMAGE_BLANK", "m", "r")}


def outcome(p_mel, label=None, *, distance=0.0):
    """An image with a calibrated probability of melanoma, as postprocessing leaves it."""
    logit = 2.0 * math.log(p_mel / (1.0 - p_mel))
    item = {"study_id": "s", "pred": torch.tensor([logit, 0.0]), "embedding": torch.tensor([distance])}
    build = LesionResultd(calibration=CALIBRATION, class_names=NAMES, malignant_classes=["mel"])
    return {**build(item), **({} if label is None else {"label": label})}


def evaluated(outputs, **options):
    handler = LesionEvaluation(class_names=NAMES, malignant_classes=["mel"], temperature=2.0, **options)
    engine = Engine(lambda engine, batch: [batch])
    handler.attach(engine)
    engine.run(outputs)
    return handler


def test_answers_and_decisions_are_measured_and_refusals_counted(tmp_path):
    path = tmp_path / "eval" / "figures.json"
    # set {mel} from .9 on is not met by .05; nv is in from p(nv) .5 on; labels below .6 are not given
    outputs = [
        outcome(0.8, 0),
        outcome(0.05, 0),  # its set holds naevus only, and it is called one
        outcome(0.55, 0),  # not sure enough for a label
        outcome(0.2, 1, distance=3.0),  # 9 is beyond 4
        outcome(0.3, 1),
        REFUSED,
    ]
    source = {"bundle_version": "0.1.0"}
    evaluated(outputs, output_path=path, num_draws=0, settings={"num_views": 8}, provenance=lambda: source)
    figures = json.loads(path.read_text())
    assert (figures["num_images"], figures["num_labelled"], figures["num_refused"]) == (5, 5, 1)
    assert (figures["settings"], figures["provenance"]) == ({"num_views": 8}, source)
    assert figures["decisions"] == pytest.approx(
        {
            "beyond_ood_limit": 1 / 5,
            "abstained": 2 / 5,
            "abstained_low_confidence": 1 / 5,
            "abstained_out_of_distribution": 1 / 5,
            "abstained_image_quality": 0.0,
            "set_coverage": 4 / 5,
            "set_coverage_mel": 2 / 3,
            "set_coverage_nv": 1.0,
            "set_size": 7 / 5,  # both classes for .2 and .3
            "set_misses_malignancy": 1 / 3,
            "kept_accuracy": 2 / 3,
            "label_misses_malignancy": 1 / 3,
        }
    )
    assert figures["calibrated"]["accuracy"] == figures["uncalibrated"]["accuracy"] == 4 / 5
    p = np.array([0.8, 0.05, 0.55, 0.2, 0.3])
    truth = np.array([1, 1, 1, 0, 0])
    assert figures["calibrated"]["malignancy_brier"] == pytest.approx(np.mean((p - truth) ** 2), rel=1e-5)
    raw = softmax(np.stack([2.0 * np.log(p / (1 - p)), np.zeros(5)], axis=1), axis=1)[:, 0]
    assert figures["uncalibrated"]["malignancy_brier"] == pytest.approx(np.mean((raw - truth) ** 2), rel=1e-5)


def test_patients_are_drawn_with_all_of_their_images():
    few = [outcome(0.8, 0), outcome(0.3, 0), outcome(0.2, 1), outcome(0.7, 1)] * 5
    patients = [{**item, "label": torch.tensor([item["label"], n])} for n, item in enumerate(few)]
    repeated = [item for item in patients for _ in range(3)]
    once, thrice = (evaluated(items, num_draws=200).figures()["decisions"] for items in (patients, repeated))
    assert thrice == pytest.approx(once)
    assert once["kept_accuracy_low"] < 0.5 < once["kept_accuracy_high"]


def test_images_without_a_label_count_where_no_truth_is_needed():
    figures = evaluated([outcome(0.8, distance=5.0), outcome(0.8)], num_draws=0).figures()
    assert figures["decisions"]["beyond_ood_limit"] == 0.5
    assert "set_coverage" not in figures["decisions"]
    assert "calibrated" not in figures


def test_a_figure_that_the_images_do_not_determine_is_null():
    figures = evaluated([outcome(0.8, 0), outcome(0.7, 0)], num_draws=10).figures()
    assert figures["calibrated"]["malignancy_auc"] is None
    assert figures["decisions"]["set_coverage_nv"] is None


def test_where_every_image_was_refused_the_file_says_so(tmp_path):
    evaluated([REFUSED, REFUSED], output_path=tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text()) == {"num_images": 0, "num_refused": 2}
