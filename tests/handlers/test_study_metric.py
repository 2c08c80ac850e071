"""A metric over the studies that ended well; the refused are counted."""

import json
import logging
import math

import pytest
import torch
from monai.metrics import CumulativeIterationMetric

from shared_nets.handlers.study_metric import StudyMetric


class MeanGap(CumulativeIterationMetric):
    """Mean of prediction minus label, and figures of which one is undetermined for a single study."""

    def _compute_tensor(self, y_pred, y=None, **kwargs):
        return y_pred[:, :1] - y[:, :1]

    def aggregate(self):
        return self.get_buffer().mean()

    def figures(self):
        gaps = self.get_buffer()
        return {"gap": float(gaps.mean()), "spread": float(gaps.std()), "n": float(len(gaps))}


class NoFigures(CumulativeIterationMetric):
    def _compute_tensor(self, y_pred, y=None, **kwargs):
        return y_pred[:, :1] - y[:, :1]

    def aggregate(self):
        return self.get_buffer().mean()


def measured(creatinine: float, gap: float) -> dict:
    """A study whose label lies ``gap`` below the prediction."""
    return {"creatinine": creatinine, "label": torch.tensor([math.log(creatinine) - gap])}


STUDIES = {"s1": measured(0.9, 0.25), "s2": None, "s3": measured(1.8, 0.75), "s4": 1.2, "s5": None}


def test_studies_that_were_refused_are_counted_and_those_without_answer_left_out(run_studies, tmp_path):
    path = tmp_path / "out" / "figures.json"
    metric = StudyMetric(MeanGap(), output_path=path)
    evaluator = run_studies(STUDIES, key_val_metric={"gap": metric})
    assert evaluator.state.metrics["gap"] == pytest.approx(0.5, abs=1e-6)
    figures = json.loads(path.read_bytes())
    # gaps 0.25 and 0.75: mean 0.5, standard deviation 0.5 / √2
    assert figures == pytest.approx({"gap": 0.5, "spread": 0.35355, "n": 2.0, "num_refused": 2}, abs=1e-5)


def test_a_second_run_starts_from_nothing(run_studies):
    metric = StudyMetric(MeanGap())
    run_studies(STUDIES, key_val_metric={"gap": metric})
    evaluator = run_studies({"s1": measured(0.9, 0.25)}, key_val_metric={"gap": metric})
    assert evaluator.state.metrics["gap"] == pytest.approx(0.25, abs=1e-6)
    assert metric.num_refused == 0


def test_a_figure_that_one_study_does_not_determine_is_null(run_studies, tmp_path):
    path = tmp_path / "figures.json"
    run_studies({"s1": measured(0.9, 0.25)}, key_val_metric={"gap": StudyMetric(MeanGap(), path)})
    figures = json.loads(path.read_bytes())
    assert figures["spread"] is None
    assert figures["gap"] == pytest.approx(0.25, abs=1e-6)


def test_figures_are_logged_where_no_file_is_wanted(run_studies, caplog):
    with caplog.at_level(logging.INFO, logger="shared_nets.handlers.study_metric"):
        run_studies(STUDIES, key_val_metric={"gap": StudyMetric(MeanGap())})
    assert "'num_refused': 2" in caplog.text


def test_a_metric_without_figures_gives_its_aggregate(run_studies, tmp_path):
    path = tmp_path / "figures.json"
    evaluator = run_studies(STUDIES, key_val_metric={"gap": StudyMetric(NoFigures(), path)})
    assert evaluator.state.metrics["gap"] == pytest.approx(0.5, abs=1e-6)
    assert not path.exists()


def test_a_run_in_which_every_study_was_refused_ends_well_and_says_so(run_studies, tmp_path, caplog):
    path = tmp_path / "figures.json"
    evaluator = run_studies({"s1": None, "s2": None}, key_val_metric={"gap": StudyMetric(MeanGap(), path)})
    assert math.isnan(evaluator.state.metrics["gap"])
    assert json.loads(path.read_bytes()) == {"num_refused": 2}
    assert "2 were refused" in caplog.text
