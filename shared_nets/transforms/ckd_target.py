"""What a network of CKD staging starts from and what it is to reach, from age, sex and measured eGFR."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from shared_nets.transforms.ckd_epi import creatinine_from_egfr, stage_index


class LogCreatinineOffsetd(MapTransform):
    """Write the log creatinine that a person of this age and sex has at a reference eGFR.

    The network learns how far a person lies from it, so that the well-known part of creatinine
    (age, sex) need not be learned from few people.

    Args:
        keys: key of the clinical values' description (``clinical_values``).
        reference_egfr_ml_min: eGFR to start from, mL/min/1.73 m².
        output_key: where to write the offset, ln mg/dL, a float32 tensor of shape ``()``.
    """

    def __init__(
        self,
        keys: KeysCollection = "clinical_values",
        *,
        reference_egfr_ml_min: float,
        output_key: str = "log_creatinine_offset",
    ) -> None:
        super().__init__(keys)
        self.reference_egfr_ml_min = reference_egfr_ml_min
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add ``output_key`` to a copy of ``data``."""
        d = dict(data)
        d[self.output_key] = _log_creatinine(self.reference_egfr_ml_min, d[self.first_key(d)]).float()
        return d


class CKDTargetd(MapTransform):
    """Write the target of a person whose eGFR was measured.

    Reads ``egfr_ml_min`` and ``egfr_is_lower_bound`` (see :class:`shared_nets.types.CKDStudy`).

    Args:
        keys: key of the clinical values' description (``clinical_values``).
        output_key: where to write the target, ``(5,)`` float32: log creatinine (ln mg/dL, by inverting
            CKD-EPI 2021), 1 where the true value may be lower, stage index (0 is G1), age in years, 1 for
            women.
        allow_missing_target: leave studies without an eGFR as they are.

    Raises:
        ValueError: there is no eGFR, and that is not allowed.
    """

    def __init__(
        self,
        keys: KeysCollection = "clinical_values",
        *,
        output_key: str = "label",
        allow_missing_target: bool = False,
    ) -> None:
        super().__init__(keys)
        self.output_key = output_key
        self.allow_missing_target = allow_missing_target

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add ``output_key`` to a copy of ``data``."""
        d = dict(data)
        egfr = d.get("egfr_ml_min")
        if egfr is None:
            if self.allow_missing_target:
                return d
            raise ValueError(
                f"egfr_ml_min must be given to train or evaluate, got none in {d.get('study_id')}."
            )
        values = d[self.first_key(d)]
        d[self.output_key] = torch.stack(
            [
                _log_creatinine(float(egfr), values),
                torch.tensor(float(bool(d.get("egfr_is_lower_bound", False)))),
                torch.tensor(float(stage_index(float(egfr)))),
                torch.tensor(float(values["age_years"])),
                torch.tensor(float(values["is_female"])),
            ]
        ).float()
        return d


def _log_creatinine(egfr_ml_min: float, values: Mapping[str, Any]) -> torch.Tensor:
    creatinine = creatinine_from_egfr(egfr_ml_min, values["age_years"], values["is_female"])
    return torch.tensor(math.log(float(creatinine)), dtype=torch.float32)
