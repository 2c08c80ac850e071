"""Targets and offsets of CKD staging against CKD-EPI 2021 inverted by hand.

A man of 50: 142 · 0.9938^50 = 104.05 at κ = 0.9 mg/dL, so eGFR 75 belongs to
0.9 · (104.05 / 75)^(1/1.2) = 1.1823 mg/dL, whose logarithm is 0.1675.
A woman of 40: 142 · 1.012 · 0.9938^40 = 112.06 at κ = 0.7 mg/dL, so eGFR 100 belongs to
0.7 · (112.06 / 100)^(1/1.2) = 0.7697 mg/dL, whose logarithm is -0.2618.
"""

import pytest
import torch

from shared_nets.transforms.ckd_target import CKDTargetd, LogCreatinineOffsetd

MAN_OF_50 = {"age_years": 50.0, "is_female": False}
WOMAN_OF_40 = {"age_years": 40.0, "is_female": True}


def test_the_offset_is_the_log_creatinine_at_the_reference_egfr():
    study = {"clinical_values": MAN_OF_50}
    offset = LogCreatinineOffsetd(reference_egfr_ml_min=75.0)(study)["log_creatinine_offset"]
    assert offset.shape == ()
    assert offset.dtype == torch.float32
    assert float(offset) == pytest.approx(0.1675, abs=1e-4)
    assert list(study) == ["clinical_values"]  # the caller's item is left alone


def test_women_start_from_less_creatinine_than_men_of_their_age():
    offset = LogCreatinineOffsetd(reference_egfr_ml_min=100.0)({"clinical_values": WOMAN_OF_40})
    man = LogCreatinineOffsetd(reference_egfr_ml_min=100.0)(
        {"clinical_values": {**WOMAN_OF_40, "is_female": False}}
    )
    assert float(offset["log_creatinine_offset"]) == pytest.approx(-0.2618, abs=1e-4)
    assert man["log_creatinine_offset"] > offset["log_creatinine_offset"]


def test_the_target_holds_log_creatinine_bound_stage_age_and_sex():
    study = {"clinical_values": WOMAN_OF_40, "egfr_ml_min": 100.0, "egfr_is_lower_bound": True}
    label = CKDTargetd()(study)["label"]
    assert label.dtype == torch.float32
    assert label.tolist() == pytest.approx([-0.2618, 1.0, 0.0, 40.0, 1.0], abs=1e-4)


def test_without_a_word_on_it_the_egfr_is_no_bound():
    label = CKDTargetd()({"clinical_values": MAN_OF_50, "egfr_ml_min": 75})["label"]
    assert label.tolist() == pytest.approx([0.1675, 0.0, 1.0, 50.0, 0.0], abs=1e-4)


@pytest.mark.parametrize(("egfr", "stage"), [(90, 0), (60, 1), (45, 2), (30, 3), (15, 4), (14, 5)])
def test_the_stage_of_the_target_follows_kdigo(egfr, stage):
    assert CKDTargetd()({"clinical_values": MAN_OF_50, "egfr_ml_min": egfr})["label"][2] == stage


def test_the_target_at_the_reference_egfr_equals_the_offset():
    study = {"clinical_values": WOMAN_OF_40, "egfr_ml_min": 75.0}
    study = CKDTargetd()(LogCreatinineOffsetd(reference_egfr_ml_min=75.0)(study))
    assert study["label"][0] == study["log_creatinine_offset"]


def test_training_without_an_egfr_stops_and_names_the_study():
    with pytest.raises(ValueError, match="egfr_ml_min must be given to train or evaluate, got none in s7"):
        CKDTargetd()({"study_id": "s7", "clinical_values": MAN_OF_50})


def test_inference_goes_on_without_an_egfr():
    study = {"study_id": "s7", "clinical_values": MAN_OF_50, "egfr_ml_min": None}
    assert CKDTargetd(allow_missing_target=True)(study) == study
