"""The target of a lesion: class, patient and subgroups, as the metric reads them."""

from __future__ import annotations

import pytest
import torch

from shared_nets.metrics.lesion_metric import LesionMetric
from shared_nets.transforms.lesion_target import LesionTargetd

SUBGROUPS = {"sex": ("female", "male"), "site": ("back", "face", "hand")}


def test_class_patient_and_codes_stand_in_a_row():
    item = {"label": 4, "group": 17, "subgroup": {"sex": "male", "site": "hand"}}
    target = LesionTargetd(subgroups=SUBGROUPS)(item)["target"]
    assert (target.tolist(), target.dtype) == ([4.0, 17.0, 2.0, 3.0], torch.float64)


def test_unknown_and_other_categories_have_the_code_0():
    item = {"label": 4, "group": 17, "subgroup": {"site": "scalp"}}
    assert LesionTargetd(subgroups=SUBGROUPS)(item)["target"].tolist() == [4.0, 17.0, 0.0, 0.0]


def test_a_patient_that_nobody_knows_is_not_a_number():
    target = LesionTargetd()({"label": 1})["target"]
    assert target[0] == 1.0
    assert target[1].isnan()
    metric = LesionMetric(class_names=("a", "b"), malignant_classes=("b",), num_draws=0)
    metric(torch.zeros(3, 2), target.repeat(3, 1))
    assert metric.figures()["num_groups"] == 3


def test_a_study_without_an_answer_is_an_error_unless_allowed():
    with pytest.raises(ValueError, match="label must be given for every study, got none"):
        LesionTargetd()({"study_id": "x"})
    assert LesionTargetd(allow_missing_target=True)({"study_id": "x"}) == {"study_id": "x"}
