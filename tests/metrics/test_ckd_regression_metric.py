import math

import numpy as np
import pytest
import torch

from shared_nets.metrics.ckd_regression_metric import CKDRegressionMetric
from shared_nets.transforms.ckd_epi import creatinine_from_egfr, egfr_from_creatinine, stage_index


@pytest.fixture
def metric():
    return CKDRegressionMetric(to_egfr=egfr_from_creatinine, to_stage=stage_index)


def person(egfr, age=60.0, female=0.0, is_bound=0.0):
    log_creatinine = math.log(float(creatinine_from_egfr(egfr, age, bool(female))))
    return [log_creatinine, is_bound, float(stage_index(egfr)), age, female]


def logit(egfr, age=60.0, female=0.0):
    return [person(egfr, age, female)[0]]


def test_errors_are_in_egfr_over_all_batches(metric):
    metric(torch.tensor([logit(70.0)]), torch.tensor([person(60.0)]))
    metric(torch.tensor([logit(50.0), logit(80.0)]), torch.tensor([person(44.0), person(80.0)]))
    figures = metric.figures()
    assert figures["n"] == 3
    assert figures["egfr_mae"] == pytest.approx((10 + 6 + 0) / 3, abs=1e-3)
    assert metric.aggregate() == figures["egfr_mae"]
    assert figures["stage_accuracy"] == pytest.approx(2 / 3)  # 50 is G3a, 44 is G3b
    metric.reset()
    with pytest.raises(ValueError, match="y_pred must hold people"):
        metric.figures()


def test_predictions_above_a_bound_are_right_for_people_with_a_bound(metric):
    metric(
        torch.tensor([logit(115.0), logit(70.0)]), torch.tensor([person(90.0, is_bound=1.0), person(70.0)])
    )
    figures = metric.figures()
    assert figures["egfr_mae"] == pytest.approx(0.0, abs=1e-3)
    assert figures["stage_accuracy"] == 1.0
    assert figures["creatinine_mae"] == pytest.approx(0.0, abs=1e-5)


def test_further_logits_are_ignored(metric):
    metric(torch.tensor([[*logit(60.0), 9.0, 9.0]]), torch.tensor([person(60.0)]))
    assert np.isfinite(metric.figures()["egfr_mae"])


def test_target_must_have_five_columns(metric):
    with pytest.raises(ValueError, match=r"y must have shape \(1, 5\), got \(1, 3\)"):
        metric(torch.zeros(1, 1), torch.zeros(1, 3))
