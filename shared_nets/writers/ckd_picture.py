"""One picture of a CKD result: the kidneys over the CT, the stage, the numbers, the warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from shared_nets.types import CKDResult, Estimate
from shared_nets.writers.picture_parts import FAINT, INK, Legend, slices_picture

#: Colours that a colour-blind reader tells apart.
LABELS: Legend = {1: ("kidney", "#ffb000"), 2: ("tumour", "#dc267f"), 3: ("cyst", "#648fff")}
STAGE_COLOURS = {
    "G1": "#4daf4a", "G2": "#a6d854", "G3a": "#ffd92f", "G3b": "#fdae61", "G4": "#f46d43", "G5": "#d73027",
}  # fmt: skip


def ckd_picture(result: CKDResult, slices: Sequence[Mapping[str, Any]], *, dots_per_inch: int = 110) -> bytes:
    """Draw a result.

    Args:
        result: what to draw.
        slices: as :func:`shared_nets.writers.picture_parts.slices_picture` takes them, with the labels 1
            kidney, 2 tumour, 3 cyst.
        dots_per_inch: resolution.

    Returns:
        A PNG file's bytes; equal input gives equal bytes.
    """
    missing = len(result.clinical_missing)
    return slices_picture(
        result,
        slices,
        title="CKD staging",
        legend=LABELS,
        draw_numbers=partial(_draw_numbers, result=result),
        leading_lines=[f"inputs missing: {missing}"] if missing else [],
        dots_per_inch=dots_per_inch,
    )


def _draw_numbers(axes: Axes, result: CKDResult) -> None:
    axes.text(0.04, 0.955, "KDIGO stage (estimated)", color=FAINT, fontsize=11, va="top")
    axes.text(
        0.04, 0.915, result.stage, color=STAGE_COLOURS[result.stage], fontsize=44, weight="bold", va="top"
    )
    _draw_estimate(axes, 0.735, "creatinine", result.creatinine, "mg/dL", digits=2)
    _draw_estimate(axes, 0.655, "eGFR", result.egfr, "mL/min/1.73 m²", digits=0)
    axes.text(0.04, 0.585, "probability of each stage", color=FAINT, fontsize=10, va="top")
    for row, (stage, probability) in enumerate(result.stage_probabilities.items()):
        y = 0.53 - 0.038 * row
        axes.text(0.04, y, stage, color=INK, fontsize=10, va="center")
        axes.barh(y, 0.62 * probability, left=0.14, height=0.026, color=STAGE_COLOURS[stage])
        axes.text(0.15 + 0.62 * probability, y, f"{probability:.0%}", color=INK, fontsize=9.5, va="center")


def _draw_estimate(
    axes: Axes, y: float, name: str, estimate: Estimate | None, unit: str, *, digits: int
) -> None:
    if estimate is None:
        axes.text(0.04, y, f"{name}: not estimated by this network", color=FAINT, fontsize=11, va="center")
        return
    axes.text(0.04, y, name, color=FAINT, fontsize=11, va="center")
    axes.text(0.29, y, f"{estimate.value:.{digits}f}", color=INK, fontsize=19, weight="bold", va="center")
    axes.text(
        0.53, y + 0.012, f"{estimate.low:.{digits}f} – {estimate.high:.{digits}f}  ({estimate.level:.0%})",
        color=INK, fontsize=10.5, va="center",
    )  # fmt: skip
    axes.text(0.53, y - 0.020, unit, color=FAINT, fontsize=9, va="center")
