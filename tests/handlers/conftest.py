"""Runs of three studies through the real dataset, evaluator and result, with a network that knows answers."""

from __future__ import annotations

import math

import pytest
import torch
from monai.transforms import Compose, Transform
from torch import Tensor, nn
from torch.utils.data import DataLoader

from shared_nets.data.studies import StudyDataset
from shared_nets.engines.study_evaluator import StudyEvaluator, keep_as_list
from shared_nets.inferers.predictive_quantiles import PredictiveQuantilesInferer
from shared_nets.refusals import InputRefused
from shared_nets.transforms.ckd_result import CKDResultd


class FirstVoxel(nn.Module):
    """Answers log creatinine with the first voxel; its predictive interval is a factor of two."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_residual_quantiles", torch.tensor([-math.log(2.0), 0.0, math.log(2.0)]))

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)[:, :1]  # (B, 1)


class Prepare(Transform):
    """Writes what the CKD bundle's preprocessing writes; refuses a study without creatinine."""

    def __call__(self, data):
        if data["creatinine"] is None:
            raise InputRefused("MASK_EMPTY", "The mask shows no kidney.", "Check the label set.")
        return {
            **data,
            "image": torch.full((1, 2, 2), math.log(data["creatinine"])),
            "clinical_values": {
                "age_years": 50.0,
                "is_female": False,
                "used": {"age": {"value": 50.0, "unit": "a", "source": "age"}},
                "missing": (),
            },
            "slice_selection": {
                "indices": [4],
                "positions_mm": [10.0],
                "is_valid": [True],
                "areas_mm2": [800.0],
                "num_kidney_slices": 1,
            },
        }


@pytest.fixture
def run_studies():
    """Give ``run_studies(creatinine_by_name, handlers, **options)``; ``None`` for creatinine is refused."""

    def run(creatinine_by_name, handlers=(), *, prepare=None, **options) -> StudyEvaluator:
        studies = [
            {"study_id": name, **(value if isinstance(value, dict) else {"creatinine": value})}
            for name, value in creatinine_by_name.items()
        ]
        dataset = StudyDataset(studies, Compose([prepare or Prepare()]))
        evaluator = StudyEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(dataset, batch_size=1, collate_fn=keep_as_list),
            network=FirstVoxel(),
            inferer=PredictiveQuantilesInferer(),
            postprocessing=Compose([CKDResultd(interval_level=0.5)]),
            val_handlers=list(handlers),
            **options,
        )
        evaluator.run()
        return evaluator

    return run
