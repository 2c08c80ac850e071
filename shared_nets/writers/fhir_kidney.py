"""What a FHIR report says of the kidneys: estimates of kidney function, and sizes measured in a mask.

The creatinine is an estimate of a network and not a laboratory's, and the GFR category is no diagnosis: local
codes and words say so beside the LOINC codes, and no code of a disease is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared_nets.types import CKDResult, Estimate, KidneyResult
from shared_nets.writers.fhir_terms import (
    BODY_SITES,
    QUANTITIES,
    Json,
    Observed,
    ReportContent,
    coded,
    coding,
    concept,
    local,
    loinc,
    probability_component,
    quantity,
)
from shared_nets.writers.result_words import KidneyMeasure, estimate_in_words, kidney_measures

_ESTIMATED = "Estimated by a neural network from the image and clinical values; not measured in a laboratory."
_COMPUTED = "CKD-EPI 2021 equation, applied to an estimated creatinine; no creatinine was measured."
_MEASURED = "Measured in a mask of the kidneys on the image."


def ckd_report(result: CKDResult) -> ReportContent:
    """Write what is particular to a CKD result."""
    observations = {**_kidney_function(result), **_sizes(result)}
    return ReportContent(title="Automated CKD staging from CT, research use only", observations=observations)


def kidney_report(result: KidneyResult) -> ReportContent:
    """Write what is particular to a kidney result."""
    title = "Automated kidney measurement from CT, research use only"
    return ReportContent(title=title, observations=_sizes(result))


def _sizes(result: CKDResult | KidneyResult) -> dict[str, Observed]:
    return {measure.name: _measure(measure) for measure in kidney_measures(result)}


def _kidney_function(result: CKDResult) -> dict[str, Observed]:
    found: dict[str, Observed] = {}
    if result.creatinine is not None:
        found["creatinine"] = _estimate(
            coded(
                [local("creatinine-estimate"), loinc("2160-0")],
                "Serum creatinine, estimated from CT and clinical values (not measured)",
            ),
            result.creatinine,
            method=_ESTIMATED,
            digits=2,
        )
    if result.egfr is not None:
        found["egfr"] = _estimate(
            coded(
                [local("egfr-estimate"), loinc("98979-8")],
                "eGFR by CKD-EPI 2021 from an estimated creatinine",
            ),
            result.egfr,
            method=_COMPUTED,
            digits=1,
            derived_from=[role for role in ("creatinine",) if role in found],
        )
    stage = f"KDIGO GFR category {result.stage}, estimated; not a diagnosis of chronic kidney disease"
    found["stage"] = Observed(
        code=coded([local("kdigo-gfr-category-estimate")], "KDIGO GFR category, estimated"),
        value={"valueCodeableConcept": coded([local(result.stage, f"GFR {result.stage}")], stage)},
        method=_COMPUTED if "egfr" in found else _ESTIMATED,
        derived_from=[role for role in ("egfr",) if role in found],
        components=[
            probability_component(name, f"Probability of GFR category {name}", probability)
            for name, probability in result.stage_probabilities.items()
        ],
    )
    return found


def _estimate(
    code: Json, estimate: Estimate, *, method: str, digits: int, derived_from: Sequence[str] = ()
) -> Observed:
    return Observed(
        code=code,
        value={"valueQuantity": quantity(estimate.value, estimate.unit, digits=digits)},
        method=method,
        notes=[f"{code['text']}: {estimate_in_words(estimate, digits=digits)}."],
        derived_from=derived_from,
        components=[
            {
                "code": coded([local("prediction-interval")], f"{estimate.level:.0%} prediction interval"),
                "valueRange": {
                    "low": quantity(estimate.low, estimate.unit, digits=digits),
                    "high": quantity(estimate.high, estimate.unit, digits=digits),
                },
            },
            {
                "code": coded([local("prediction-interval-level")], "Level of the prediction interval"),
                "valueQuantity": quantity(100.0 * estimate.level, "%", digits=1),
            },
        ],
    )


def _measure(measure: KidneyMeasure) -> Observed:
    cut_off = {
        "code": coded([local("reaches-edge-of-scan")], "Kidney is cut off by the edge of the scan"),
        "valueBoolean": measure.is_cut_off,
    }
    return Observed(
        code=coded([local(measure.name), coding(*QUANTITIES[measure.quantity])], measure.words),
        value={"valueQuantity": quantity(measure.value, measure.unit, digits=1)},
        method=_MEASURED,
        notes=["The value is that of the visible part."] if measure.is_cut_off else [],
        body_site=concept(*BODY_SITES[measure.side]),
        components=[cut_off] if measure.is_cut_off is not None else [],
    )
