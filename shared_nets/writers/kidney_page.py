"""What pages say of the kidneys: staging of chronic kidney disease, and measurement of both kidneys."""

from __future__ import annotations

from shared_nets.types import CKDResult, Estimate, KidneyResult
from shared_nets.writers.page_parts import (
    PageContent,
    bar,
    clinical_value,
    escaped,
    section,
    table,
    tag,
    words,
)
from shared_nets.writers.result_words import (
    STAGE_RANGES,
    interval_in_words,
    kidney_measures,
    result_in_words,
    unit_in_words,
)


def ckd_page(result: CKDResult) -> PageContent:
    """Write what is particular to a CKD result."""
    return PageContent(
        kind="CKD staging",
        question="KDIGO GFR category, estimated; not a diagnosis of chronic kidney disease",
        answer=f"{result.stage} (estimated)",
        lead=result_in_words(result),
        alternative=_alternative(result),
        sections=[*_ckd_sections(result), *_kidneys(result)],
    )


def kidney_page(result: KidneyResult) -> PageContent:
    """Write what is particular to a kidney result."""
    found = (f"{side} {kidney.volume_ml:.0f} mL" for side, kidney in result.kidneys.items())
    return PageContent(
        kind="Kidney measurement",
        question="Volume of each kidney that was found",
        answer=" · ".join(found) or "No kidney found",
        lead=result_in_words(result),
        alternative=_alternative(result),
        sections=_kidneys(result),
    )


def _alternative(result: CKDResult | KidneyResult) -> str:
    return (
        "Slices of the image with the kidneys outlined, in radiological orientation: the patient's right is "
        f"on the left. {result_in_words(result)}"
    )


def _ckd_sections(result: CKDResult) -> list[str]:
    numbers = [
        _estimate_row("Serum creatinine, estimated", result.creatinine, digits=2),
        _estimate_row("eGFR, CKD-EPI 2021", result.egfr, digits=0),
    ]
    used = [
        [words(name), clinical_value(entry), entry.get("source") or ""]
        for name, entry in result.clinical_used.items()
    ]
    caption = "Estimates, not measured in a laboratory"
    missing = ", ".join(words(name) for name in result.clinical_missing)
    slices = result.slices
    seen = (
        f"{sum(slices.is_valid)} slices of the {slices.num_kidney_slices} that show kidney, "
        f"from {min(slices.positions_mm):.1f} to {max(slices.positions_mm):.1f} mm along the body."
        if slices.positions_mm
        else f"{sum(slices.is_valid)} slices of the {slices.num_kidney_slices} that show kidney."
    )
    return [
        *section("Numbers", table(caption, ["Quantity", "Value", "Interval"], numbers, kind="sizes")),
        *section("Probability of each GFR category", _stage_bars(result)),
        *section(
            "Inputs",
            table("Clinical values used", ["Name", "Value", "Source"], used, kind="names"),
            tag("p", f"Missing ({len(result.clinical_missing)}): {missing}.") if missing else "",
            tag("p", f"Image: {seen}"),
        ),
    ]  # fmt: skip


def _estimate_row(name: str, estimate: Estimate | None, *, digits: int) -> list[str]:
    if estimate is None:
        return [name, "not estimated by this network", ""]
    value = f"{estimate.value:.{digits}f} {unit_in_words(estimate.unit)}"
    return [name, value, interval_in_words(estimate, digits=digits)]


def _stage_bars(result: CKDResult) -> str:
    rows = []
    for stage, probability in result.stage_probabilities.items():
        chosen = ' class="chosen"' if stage == result.stage else ""
        rows.append(
            f'<tr{chosen}><th scope="row">{escaped(stage)}</th>'
            f'<td class="number">{escaped(STAGE_RANGES[stage])}</td>'
            f'<td class="number">{probability:.0%}</td><td aria-hidden="true">{bar(probability)}</td></tr>'
        )
    names = '<th scope="col">Category</th><th scope="col">eGFR</th><th scope="col">Probability</th><td></td>'
    caption = "<caption>eGFR in mL/min/1.73 m²; the estimate's category in bold</caption>"
    return (
        f'<table class="bars">{caption}<thead><tr>{names}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _kidneys(result: CKDResult | KidneyResult) -> list[str]:
    rows = [
        [
            measure.words,
            f"{measure.value:.1f} {unit_in_words(measure.unit)}"
            + (" (visible part; cut off by the edge of the scan)" if measure.is_cut_off else ""),
        ]
        for measure in kidney_measures(result)
    ]
    if not rows:
        return section("Kidneys", "<p>None.</p>")
    return section("Kidneys", table("Measured in the mask", ["Size", "Value"], rows, kind="sizes"))
