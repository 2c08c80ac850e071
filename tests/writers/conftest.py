"""A CKD result made by hand, and slices in which every label has its own block of pixels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from shared_nets.types import (
    CKDResult,
    Estimate,
    Finding,
    KidneyMeasurement,
    KidneyResult,
    KidneySlices,
    Provenance,
)

STATEMENTS = (
    "One time point cannot show that kidney disease is chronic: KDIGO asks for at least three months.",
    "G1 and G2 are chronic kidney disease only together with another marker of kidney damage.",
    "CKD-EPI 2021 holds for adults with steady creatinine.",
)


@pytest.fixture
def make_result():
    """Give ``make_result(**changes) -> CKDResult``, a complete result with some fields changed."""
    result = CKDResult(
        study_id="case_00001",
        creatinine=Estimate(value=1.35, low=0.95, high=1.9, level=0.9, unit="mg/dL"),
        egfr=Estimate(value=54.2, low=36.1, high=81.9, level=0.9, unit="mL/min/{1.73_m2}"),
        stage="G3a",
        stage_probabilities={"G1": 0.0, "G2": 0.25, "G3a": 0.5, "G3b": 0.25, "G4": 0.0, "G5": 0.0},
        slices=KidneySlices(
            indices=(3, 9),
            positions_mm=(-120.0, -90.5),
            is_valid=(True, True),
            areas_mm2=(812.5, 1650.0),
            num_kidney_slices=14,
            sop_instance_uids=("1.2.840.1", "1.2.840.2"),
        ),
        clinical_used={"age": {"value": 67.0, "unit": "a", "source": "age"}},
        clinical_missing=("hba1c", "urea"),
        kidney_measurements={"kidney_volume_ml": 290.0},
        warnings=(Finding(code="PHASE_UNKNOWN", message="The contrast phase is not known."),),
        statements=STATEMENTS,
        provenance=Provenance(
            bundle="ckd_staging_classification",
            bundle_version="0.1.0",
            config_sha256="a" * 64,
            weights_sha256={"model": "0123456789abcdef" * 4},
            packages={"monai": "1.6.1"},
            image={"kind": "dicom", "shape": [512, 512, 40]},
            mask={"source": "seg", "label_set": "kits"},
            repairs=(Finding(code="SORTED", message="Slices were sorted by position."),),
            thresholds={"min_area_mm2": 50.0},
        ),
    )

    def make(**changes) -> CKDResult:
        return dataclasses.replace(result, **changes)

    return make


@pytest.fixture
def make_kidney_result(make_result):
    """Give ``make_kidney_result(**changes) -> KidneyResult``, with the provenance of ``make_result``."""
    result = KidneyResult(
        study_id="case_00001",
        kidneys={
            "right": KidneyMeasurement(volume_ml=151.2, length_mm=108.0, mean_hu=142.0, is_cut_off=False),
            "left": KidneyMeasurement(volume_ml=163.4, length_mm=112.5, mean_hu=139.5, is_cut_off=True),
        },
        total_volume_ml=314.6,
        warnings=(Finding(code="KIDNEY_CUT_OFF", message="The left kidney reaches the lowest slice."),),
        statements=("The masks are a model's output and were not checked by a human.",),
        provenance=make_result().provenance,
    )

    def make(**changes) -> KidneyResult:
        return dataclasses.replace(result, **changes)

    return make


@pytest.fixture
def make_slices():
    """Give ``make_slices(count, with_ct=True)``; labels 1, 2, 3 fill blocks of known pixels.

    Of 40 × 40 pixels, rows 10–19 hold kidney (columns 5–19) and tumour (columns 22–34), and rows 25–34
    hold a cyst (columns 5–34). The CT is 40 HU, the middle of the display's window, everywhere.
    """

    def make(count: int, *, with_ct: bool = True) -> list[dict]:
        labels = np.zeros((40, 40), dtype=np.uint8)
        labels[10:20, 5:20] = 1
        labels[10:20, 22:35] = 2
        labels[25:35, 5:35] = 3
        return [
            {
                "hu": np.full((40, 40), 40.0, dtype=np.float32) if with_ct else None,
                "labels": labels,
                "pixel_spacing_mm": (0.8, 0.8),
                "position_mm": -120.0 + 10.0 * number,
            }
            for number in range(count)
        ]

    return make
