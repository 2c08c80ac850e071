"""From the network's numbers to the frozen CKD result."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from shared_nets.transforms.ckd_epi import STAGES, egfr_from_creatinine, stage_index
from shared_nets.types import EMPTY_PROVENANCE, CKDResult, Estimate, Finding, KidneySlices, Provenance

STATEMENTS: tuple[str, ...] = (
    "One time point cannot show that kidney disease is chronic: KDIGO asks for at least three months.",
    "G1 and G2 are chronic kidney disease only together with another marker of kidney damage, "
    "such as albuminuria.",
    "CKD-EPI 2021 holds for adults with steady creatinine: not in acute kidney injury, and not in pregnancy.",
)
#: Sizes of the kidneys that a reader of the result wants to see, whether or not the network uses them.
MEASUREMENTS = (
    "kidney_volume_ml",
    "right_kidney_volume_ml",
    "left_kidney_volume_ml",
    "right_kidney_length_mm",
    "left_kidney_length_mm",
    "tumour_volume_ml",
    "cyst_volume_ml",
)
MODES = ("regression", "classification", "multitask")


def creatinine_estimate(log_creatinine: float, log_quantiles: npt.ArrayLike, *, level: float) -> Estimate:
    """Turn log creatinine and its predictive quantiles into mg/dL with an interval.

    Args:
        log_creatinine: natural logarithm of the estimate in mg/dL.
        log_quantiles: quantiles of the predictive distribution, ascending, ``(Q,)``.
        level: share of the distribution inside the interval, 0 to 1; equal tails.

    Returns:
        The estimate in mg/dL. The interval holds the value even where the distribution is shifted.

    Raises:
        ValueError: ``level`` is not between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level}.")
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.asarray(log_quantiles, dtype=np.float64), [tail, 1.0 - tail])
    value = float(np.exp(log_creatinine))
    return Estimate(
        value=value,
        low=min(value, float(np.exp(low))),
        high=max(value, float(np.exp(high))),
        level=level,
        unit="mg/dL",
    )


def egfr_estimate(creatinine: Estimate, *, age_years: float, is_female: bool) -> Estimate:
    """Carry a creatinine estimate through CKD-EPI 2021; its high end becomes the low end of eGFR.

    Args:
        creatinine: mg/dL.
        age_years: age in years, 18 or more.
        is_female: true for women.

    Returns:
        The estimate in mL/min/1.73 m².
    """
    egfr = egfr_from_creatinine([creatinine.value, creatinine.high, creatinine.low], age_years, is_female)
    value, low, high = (float(number) for number in egfr)
    return Estimate(value=value, low=low, high=high, level=creatinine.level, unit="mL/min/{1.73_m2}")


def stage_probabilities_from_quantiles(
    log_quantiles: npt.ArrayLike, *, age_years: float, is_female: bool
) -> dict[str, float]:
    """Count how much of the predictive distribution of creatinine falls into each KDIGO stage.

    Args:
        log_quantiles: equally likely values of log creatinine (mg/dL), ``(Q,)``.
        age_years: age in years.
        is_female: true for women.

    Returns:
        Probability by stage, adding up to 1.
    """
    creatinine = np.exp(np.asarray(log_quantiles, dtype=np.float64))
    counts = np.bincount(stage_index(egfr_from_creatinine(creatinine, age_years, is_female)), minlength=6)
    return {stage: float(count) / creatinine.size for stage, count in zip(STAGES, counts, strict=True)}


class CKDResultd(MapTransform):
    """Build the frozen :class:`CKDResult` from the prediction and what preprocessing learned.

    Reads ``clinical_values`` and ``slice_selection``; writes ``result``. Provenance of the bundle itself is
    filled in by the handler that knows it.

    Args:
        keys: key of the prediction: ``(1 + Q,)`` in ``regression`` mode (estimate, predictive quantiles),
            ``(1 + Q + 6,)`` in ``multitask`` (and stage logits), ``(6,)`` in ``classification``.
        mode: what the network was trained for.
        interval_level: share of people whose value the interval should hold.
        statements: further sentences about what the weights can and cannot show.
        thresholds: numbers that decided, for the provenance.
        output_key: where to write the result.

    Raises:
        ValueError: ``mode`` is unknown, or the prediction does not have the shape of its mode.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        *,
        mode: str = "regression",
        interval_level: float = 0.9,
        statements: Sequence[str] = (),
        thresholds: Mapping[str, float | str | None] | None = None,
        output_key: str = "result",
    ) -> None:
        super().__init__(keys)
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, got {mode!r}.")
        self.mode = mode
        self.interval_level = interval_level
        self.statements = (*STATEMENTS, *statements)
        self.thresholds = dict(thresholds or {})
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add ``output_key`` to a copy of ``data``."""
        d = dict(data)
        pred = torch.as_tensor(d[self.first_key(d)]).double().cpu().numpy()
        values, selection = d["clinical_values"], d["slice_selection"]
        person = {"age_years": values["age_years"], "is_female": values["is_female"]}
        creatinine = egfr = None
        if self.mode == "classification":
            _check_size(pred, self.mode, exactly=len(STAGES))
            probabilities = _softmax(pred)
            stage = STAGES[int(np.argmax(pred))]
        else:
            num_stage_logits = len(STAGES) if self.mode == "multitask" else 0
            _check_size(pred, self.mode, at_least=2 + num_stage_logits)
            quantiles = pred[1 : pred.size - num_stage_logits]
            creatinine = creatinine_estimate(pred[0], quantiles, level=self.interval_level)
            egfr = egfr_estimate(creatinine, **person)
            stage = STAGES[int(stage_index(egfr.value))]
            probabilities = (
                _softmax(pred[-num_stage_logits:])
                if num_stage_logits
                else stage_probabilities_from_quantiles(quantiles, **person)
            )
        image = dict(selection.get("image") or {})
        repairs = tuple(image.pop("repairs", ()))
        warnings = (
            *image.pop("warnings", ()),
            *selection.get("findings", ()),
            *values.get("findings", ()),
            *d.get("kidney_shape_findings", ()),
            *_stage_findings(stage, probabilities),
        )
        d[self.output_key] = CKDResult(
            study_id=str(d.get("study_id", "study")),
            creatinine=creatinine,
            egfr=egfr,
            stage=stage,
            stage_probabilities=probabilities,
            slices=_slices(selection, image.pop("sop_uids", ())),
            clinical_used=dict(values["used"]),
            clinical_missing=tuple(values["missing"]),
            kidney_measurements=_reported_measurements(d.get("kidney_shape") or {}),
            warnings=_unique(warnings),
            statements=self.statements,
            provenance=_provenance(selection, image, repairs, self.thresholds),
        )
        return d


def _reported_measurements(shape: Mapping[str, float]) -> dict[str, float]:
    return {name: round(shape[name], 1) for name in MEASUREMENTS if math.isfinite(shape.get(name, math.nan))}


def _slices(selection: Mapping[str, Any], sop_uids: Sequence[str]) -> KidneySlices:
    return KidneySlices(
        indices=tuple(int(i) for i in selection["indices"]),
        positions_mm=tuple(round(float(z), 3) for z in selection["positions_mm"]),
        is_valid=tuple(bool(v) for v in selection["is_valid"]),
        areas_mm2=tuple(round(float(a), 1) for a in selection["areas_mm2"]),
        num_kidney_slices=int(selection["num_kidney_slices"]),
        sop_instance_uids=tuple(sop_uids),
    )


def _provenance(
    selection: Mapping[str, Any],
    image: Mapping[str, Any],
    repairs: tuple[Finding, ...],
    thresholds: Mapping[str, float | str | None],
) -> Provenance:
    mask = dict(selection.get("mask") or {"source": None, "label_set": None})
    return replace(
        EMPTY_PROVENANCE,
        image=dict(image),
        mask=mask,
        repairs=_unique(repairs),
        thresholds=dict(thresholds),
    )


def _stage_findings(stage: str, probabilities: Mapping[str, float]) -> tuple[Finding, ...]:
    """Say so where the estimate lies in one stage and another is more probable."""
    likely = max(probabilities, key=lambda name: probabilities[name])
    if probabilities[likely] <= probabilities[stage]:
        return ()
    message = (
        f"The estimate lies in {stage} ({probabilities[stage]:.0%}), but {likely} is more probable "
        f"({probabilities[likely]:.0%})."
    )
    return (Finding(code="STAGE_NOT_MOST_PROBABLE", message=message),)


def _unique(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(dict.fromkeys(findings))


def _check_size(
    pred: npt.NDArray[np.float64], mode: str, *, exactly: int | None = None, at_least: int | None = None
) -> None:
    fits = pred.ndim == 1 and (pred.size == exactly if exactly is not None else pred.size >= (at_least or 0))
    if not fits:
        wanted = f"{exactly}" if exactly is not None else f"at least {at_least}"
        raise ValueError(f"pred must be a vector of {wanted} numbers in {mode} mode, got {pred.shape}.")
    if not np.isfinite(pred).all():
        raise ValueError("pred must be finite, got NaN or infinity.")


def _softmax(logits: npt.NDArray[np.float64]) -> dict[str, float]:
    weights = np.exp(logits - logits.max())
    return {stage: float(p) for stage, p in zip(STAGES, weights / weights.sum(), strict=True)}
