"""From the network's numbers to the CKD result, by hand through CKD-EPI 2021.

A man of 50 has eGFR 142 · 0.9938^50 = 104.05 at κ = 0.9 mg/dL, 104.05 · 2^-1.2 = 45.29 at 1.8 mg/dL, and
104.05 · 0.5^-0.302 = 128.28 at 0.45 mg/dL.
"""

import math

import numpy as np
import pytest
import torch

from shared_nets.transforms.ckd_result import (
    STATEMENTS,
    CKDResultd,
    creatinine_estimate,
    egfr_estimate,
    stage_probabilities_from_quantiles,
)
from shared_nets.types import RESEARCH_USE_ONLY, Estimate, Finding

MAN_OF_50 = {"age_years": 50.0, "is_female": False}
REPEATED = Finding(code="SLICES_REPEATED", message="The kidneys are short.")
PHASE = Finding(code="PHASE_UNKNOWN", message="The contrast phase is not known.")
SORTED = Finding(code="SLICES_SORTED", message="Slices were sorted.")
OLD = Finding(code="AGE_HIGH", message="Few people of this age were seen in training.")


@pytest.fixture
def make_study():
    """Give ``make_study(pred)``: an item as preprocessing and a network leave it."""

    def make(pred) -> dict:
        return {
            "study_id": "s1",
            "pred": torch.as_tensor(pred),
            "clinical_values": {
                **MAN_OF_50,
                "used": {"age": {"value": 50.0, "unit": "a", "source": "age"}},
                "missing": ["urea"],
                "findings": [OLD, PHASE],
            },
            "slice_selection": {
                "indices": torch.tensor([4, 9]),
                "positions_mm": np.array([-10.00049, 20.0]),
                "is_valid": torch.tensor([True, False]),
                "areas_mm2": np.array([812.54, 99.96]),
                "num_kidney_slices": torch.tensor(12),
                "findings": [REPEATED],
                "mask": {"source": "nifti", "label_set": "kits"},
                "image": {
                    "kind": "dicom",
                    "sop_uids": ["1.2.3", "1.2.4"],
                    "repairs": [SORTED, SORTED],
                    "warnings": [PHASE],
                },
            },
        }

    return make


def test_the_interval_is_cut_from_equal_tails_of_the_distribution():
    log_quantiles = np.linspace(-1.0, 1.0, 21)  # steps of 0.1, so 5 % and 95 % are -0.9 and 0.9
    estimate = creatinine_estimate(0.0, log_quantiles, level=0.9)
    assert estimate.value == 1.0
    assert estimate.low == pytest.approx(math.exp(-0.9), rel=1e-12)
    assert estimate.high == pytest.approx(math.exp(0.9), rel=1e-12)
    assert (estimate.level, estimate.unit) == (0.9, "mg/dL")


def test_a_smaller_level_gives_a_narrower_interval():
    half = creatinine_estimate(0.0, np.linspace(-1.0, 1.0, 21), level=0.5)
    assert (half.low, half.high) == pytest.approx((math.exp(-0.5), math.exp(0.5)), rel=1e-12)


@pytest.mark.parametrize(
    ("shift", "low", "high"),
    [pytest.param(2.0, 1.0, math.exp(2.9), id="above"), pytest.param(-2.0, math.exp(-2.9), 1.0, id="below")],
)
def test_the_interval_holds_the_value_even_where_the_distribution_is_shifted(shift, low, high):
    estimate = creatinine_estimate(0.0, np.linspace(-1.0, 1.0, 21) + shift, level=0.9)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((low, 1.0, high), rel=1e-12)


@pytest.mark.parametrize("level", [0.0, 1.0, 90.0, float("nan")])
def test_a_level_that_is_no_share_is_refused(level):
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got"):
        creatinine_estimate(0.0, [0.0, 1.0], level=level)


def test_the_egfr_interval_is_the_creatinine_interval_swapped():
    creatinine = Estimate(value=0.9, low=0.45, high=1.8, level=0.8, unit="mg/dL")
    egfr = egfr_estimate(creatinine, **MAN_OF_50)
    assert (egfr.value, egfr.low, egfr.high) == pytest.approx((104.05, 45.29, 128.28), abs=0.01)
    assert (egfr.level, egfr.unit) == (0.8, "mL/min/{1.73_m2}")


def test_stage_probabilities_count_the_quantiles_in_each_stage():
    # eGFR of a man of 50: 104.1 three times, 81.8, 45.3, 39.9, 17.4 and 7.6
    creatinine = [0.9, 0.9, 0.9, 1.1, 1.8, 2.0, 4.0, 8.0]
    probabilities = stage_probabilities_from_quantiles(np.log(creatinine), **MAN_OF_50)
    assert probabilities == {"G1": 3 / 8, "G2": 1 / 8, "G3a": 1 / 8, "G3b": 1 / 8, "G4": 1 / 8, "G5": 1 / 8}


def test_regression_gives_creatinine_egfr_and_their_stage(make_study):
    quantiles = np.log(0.9) + np.array([-math.log(2), 0.0, math.log(2)])  # 0.45, 0.9, 1.8 mg/dL
    pred = torch.tensor([math.log(0.9), *quantiles], dtype=torch.float64)
    result = CKDResultd(interval_level=0.5)(make_study(pred))["result"]
    # 25 % and 75 % lie half way between neighbours: 0.9 · 2^∓½
    assert result.creatinine.value == pytest.approx(0.9, rel=1e-9)
    assert result.creatinine.low == pytest.approx(0.9 / math.sqrt(2), rel=1e-9)
    assert result.creatinine.high == pytest.approx(0.9 * math.sqrt(2), rel=1e-9)
    assert result.egfr.value == pytest.approx(104.05, abs=0.01)
    assert result.stage == "G1"
    expected = {"G1": 2 / 3, "G2": 0.0, "G3a": 1 / 3, "G3b": 0.0, "G4": 0.0, "G5": 0.0}
    assert result.stage_probabilities == pytest.approx(expected)


def test_multitask_takes_the_stage_from_egfr_and_its_probabilities_from_the_logits(make_study):
    pred = [math.log(1.8), math.log(1.8), math.log(1.8), 0.0, 0.0, 0.0, 0.0, math.log(3.0), -100.0]
    result = CKDResultd(mode="multitask")(make_study(pred))["result"]
    assert result.stage == "G3a"  # 45.29
    expected = {"G1": 1 / 7, "G2": 1 / 7, "G3a": 1 / 7, "G3b": 1 / 7, "G4": 3 / 7, "G5": 0.0}
    assert result.stage_probabilities == pytest.approx(expected, abs=1e-7)  # logits came as float32
    assert result.creatinine.low == pytest.approx(1.8)
    assert result.creatinine.high == pytest.approx(1.8)


def test_classification_gives_no_number_that_the_network_did_not_estimate(make_study):
    result = CKDResultd(mode="classification")(make_study([0.0, 1000.0, 0.0, 0.0, 0.0, 0.0]))["result"]
    assert result.creatinine is None
    assert result.egfr is None
    assert result.stage == "G2"
    assert result.stage_probabilities == {"G1": 0.0, "G2": 1.0, "G3a": 0.0, "G3b": 0.0, "G4": 0.0, "G5": 0.0}


def test_findings_land_where_they_belong_and_only_once(make_study):
    result = CKDResultd()(make_study([0.0, 0.0]))["result"]
    assert result.warnings == (PHASE, REPEATED, OLD)
    assert result.provenance.repairs == (SORTED,)
    assert result.provenance.image == {"kind": "dicom"}
    assert result.provenance.mask == {"source": "nifti", "label_set": "kits"}


def test_slices_and_clinical_values_are_taken_over(make_study):
    result = CKDResultd()(make_study([0.0, 0.0]))["result"]
    assert result.slices.indices == (4, 9)
    assert result.slices.positions_mm == (-10.0, 20.0)  # to the micrometre
    assert result.slices.is_valid == (True, False)
    assert result.slices.areas_mm2 == (812.5, 100.0)
    assert result.slices.num_kidney_slices == 12
    assert result.slices.sop_instance_uids == ("1.2.3", "1.2.4")
    assert result.clinical_used == {"age": {"value": 50.0, "unit": "a", "source": "age"}}
    assert result.clinical_missing == ("urea",)


def test_every_result_says_what_it_cannot_show(make_study):
    make = CKDResultd(statements=["Trained on few people."], thresholds={"min_area_mm2": 50.0})
    result = make(make_study([0.0, 0.0]))["result"]
    assert result.statements == (*STATEMENTS, "Trained on few people.")
    assert result.notice == RESEARCH_USE_ONLY
    assert result.provenance.thresholds == {"min_area_mm2": 50.0}


def test_the_item_of_the_caller_is_left_alone(make_study):
    study = make_study([0.0, 0.0])
    CKDResultd()(study)
    assert "result" not in study
    assert set(study["slice_selection"]["image"]) == {"kind", "sop_uids", "repairs", "warnings"}


@pytest.mark.parametrize(
    ("mode", "pred", "message"),
    [
        pytest.param("regression", [0.0], r"a vector of at least 2 numbers in regression", id="no-quantiles"),
        pytest.param("multitask", [0.0] * 7, r"a vector of at least 8 numbers in multitask", id="no-stages"),
        pytest.param("classification", [0.0] * 7, r"a vector of 6 numbers in classification", id="seven"),
        pytest.param("regression", [[0.0, 0.0]], r"got \(1, 2\)", id="batch"),
        pytest.param("regression", [float("nan"), 0.0], "pred must be finite, got NaN", id="nan"),
        pytest.param("classification", [float("inf")] * 6, "pred must be finite, got NaN", id="infinite"),
    ],
)
def test_a_prediction_of_the_wrong_kind_never_becomes_a_result(make_study, mode, pred, message):
    with pytest.raises(ValueError, match=message):
        CKDResultd(mode=mode)(make_study(pred))


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"mode must be one of .*, got 'staging'"):
        CKDResultd(mode="staging")


def test_a_stage_that_is_not_the_most_probable_is_said_so(make_study):
    # eGFR 45.29 at 1.8 mg/dL is G3a, 104.05 at 0.9 is G1: one third against two
    unlikely = make_study(np.log([1.8, 0.9, 0.9, 1.8]))
    (message,) = [
        finding.message
        for finding in CKDResultd()(unlikely)["result"].warnings
        if finding.code == "STAGE_NOT_MOST_PROBABLE"
    ]
    assert message == "The estimate lies in G3a (33%), but G1 is more probable (67%)."
    likely = CKDResultd()(make_study(np.log([0.9, 0.9, 0.9, 1.8])))["result"]
    assert "STAGE_NOT_MOST_PROBABLE" not in {finding.code for finding in likely.warnings}
