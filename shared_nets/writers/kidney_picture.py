"""One picture of a kidney result: both kidneys over the CT, their sizes, the warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from shared_nets.types import KIDNEY_SIDES, KidneyResult
from shared_nets.writers.picture_parts import FAINT, INK, Legend, slices_picture

LABELS: Legend = {
    1: (KIDNEY_SIDES[1], "#ffb000"), 2: (KIDNEY_SIDES[2], "#648fff"), 3: (KIDNEY_SIDES[3], "#dc267f"),
}  # fmt: skip
_NUMBERS = {"right": 1, "left": 2}


def kidney_picture(
    result: KidneyResult, slices: Sequence[Mapping[str, Any]], *, dots_per_inch: int = 110
) -> bytes:
    """Draw a result.

    Args:
        result: what to draw.
        slices: as :func:`shared_nets.writers.picture_parts.slices_picture` takes them, with the labels 1
            right and 2 left kidney.
        dots_per_inch: resolution.

    Returns:
        A PNG file's bytes; equal input gives equal bytes.
    """
    return slices_picture(
        result,
        slices,
        title="Kidney segmentation",
        legend=LABELS,
        draw_numbers=partial(_draw_numbers, result=result),
        dots_per_inch=dots_per_inch,
    )


def _draw_numbers(axes: Axes, result: KidneyResult) -> None:
    axes.text(0.04, 0.955, "kidneys found", color=FAINT, fontsize=11, va="top")
    axes.text(0.04, 0.915, str(len(result.kidneys)), color=INK, fontsize=44, weight="bold", va="top")
    axes.text(0.29, 0.855, f"{result.total_volume_ml:.0f} mL", color=INK, fontsize=19, weight="bold")
    axes.text(0.29, 0.825, "in all", color=FAINT, fontsize=11)
    for row, (side, number) in enumerate(_NUMBERS.items()):
        y = 0.70 - 0.18 * row
        axes.text(0.04, y, KIDNEY_SIDES[number], color=LABELS[number][1], fontsize=12, va="center")
        kidney = result.kidneys.get(side)
        if kidney is None:
            axes.text(0.04, y - 0.055, "not found", color=INK, fontsize=15, va="center")
            continue
        cut = ", cut off" if kidney.is_cut_off else ""
        density = "" if kidney.mean_hu is None else f"   {kidney.mean_hu:.0f} HU on average"
        axes.text(
            0.04,
            y - 0.055,
            f"{kidney.volume_ml:.0f} mL{cut}",
            color=INK,
            fontsize=19,
            weight="bold",
            va="center",
        )
        axes.text(
            0.04, y - 0.10, f"{kidney.length_mm:.0f} mm long{density}", color=INK, fontsize=10.5, va="center"
        )
