"""One picture of a CKD result: the kidneys over the CT, the stage, the numbers, the warnings."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from shared_nets.types import CKDResult, Estimate

MAX_PANELS = 4
#: Soft-tissue window of the pictures, HU (level 40, width 400).
DISPLAY_WINDOW_HU = (-160.0, 240.0)
LABEL_COLOURS = {1: "#ffb000", 2: "#dc267f", 3: "#648fff"}  # kidney, tumour, cyst; safe for colour blindness
LABEL_NAMES = {1: "kidney", 2: "tumour", 3: "cyst"}
STAGE_COLOURS = {
    "G1": "#4daf4a", "G2": "#a6d854", "G3a": "#ffd92f", "G3b": "#fdae61", "G4": "#f46d43", "G5": "#d73027",
}  # fmt: skip
_BACKGROUND, _INK, _FAINT = "#101418", "#f2f2f2", "#9aa4ad"
_MAX_WARNING_LINES = 9


def ckd_picture(result: CKDResult, slices: Sequence[Mapping[str, Any]], *, dots_per_inch: int = 110) -> bytes:
    """Draw a result.

    Args:
        result: what to draw.
        slices: up to four slices in radiological orientation (patient's right on the left, front on top):
            ``hu`` ``(H, W)`` or ``None``, ``labels`` ``(H, W)`` (1 kidney, 2 tumour, 3 cyst),
            ``pixel_spacing_mm`` ``(row, column)``, ``position_mm``.
        dots_per_inch: resolution.

    Returns:
        A PNG file's bytes; equal input gives equal bytes.
    """
    figure = Figure(figsize=(12.4, 7.2), dpi=dots_per_inch, facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2,
        3,
        width_ratios=(1, 1, 1.15),
        left=0.01,
        right=0.985,
        top=0.93,
        bottom=0.06,
        wspace=0.03,
        hspace=0.09,
    )
    shown = list(slices)[:MAX_PANELS]
    for panel in range(MAX_PANELS):
        axes = figure.add_subplot(grid[panel // 2, panel % 2])
        axes.set_axis_off()
        if panel < len(shown):
            _draw_slice(axes, shown[panel])
    _draw_numbers(figure.add_subplot(grid[:, 2]), result)
    figure.text(0.01, 0.957, f"CKD staging · {result.study_id}", color=_INK, fontsize=13, weight="bold")
    figure.text(
        0.01, 0.02,
        f"{result.notice}   {_bundle_in_words(result)}",
        color="#ffb4a2", fontsize=9.5,
    )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=_BACKGROUND, metadata={"Software": None})
    return buffer.getvalue()


def _bundle_in_words(result: CKDResult) -> str:
    weights = result.provenance.weights_sha256.get("model", "")[:12]
    return f"{result.provenance.bundle} {result.provenance.bundle_version} · weights {weights}"


def _draw_slice(axes: Axes, shown: Mapping[str, Any]) -> None:
    labels = np.asarray(shown["labels"])
    row_mm, column_mm = (float(mm) for mm in shown["pixel_spacing_mm"])
    has_ct = shown.get("hu") is not None
    if has_ct:
        low, high = DISPLAY_WINDOW_HU
        axes.imshow(np.asarray(shown["hu"]), cmap="gray", vmin=low, vmax=high, aspect=row_mm / column_mm)
    else:
        axes.imshow(np.zeros_like(labels), cmap="gray", vmin=0, vmax=1, aspect=row_mm / column_mm)
    overlay = np.zeros((*labels.shape, 4))
    for label, colour in LABEL_COLOURS.items():
        overlay[labels == label] = to_rgba(colour, 0.30 if has_ct else 0.9)
        if has_ct and (labels == label).any():
            axes.contour(labels == label, levels=[0.5], colors=colour, linewidths=0.9)
    axes.imshow(overlay, aspect=row_mm / column_mm, interpolation="nearest")
    side: dict[str, Any] = {
        "color": _INK,
        "fontsize": 10,
        "transform": axes.transAxes,
        "va": "center",
        "weight": "bold",
    }
    axes.text(0.015, 0.5, "R", ha="left", **side)
    axes.text(0.985, 0.5, "L", ha="right", **side)
    axes.text(
        0.02, 0.03, f"z {float(shown['position_mm']):.1f} mm",
        color=_INK, fontsize=9, transform=axes.transAxes,
    )  # fmt: skip
    for line, label in enumerate(int(n) for n in np.unique(labels) if n in LABEL_COLOURS):
        axes.text(
            0.98, 0.03 + 0.06 * line, LABEL_NAMES[label],
            color=LABEL_COLOURS[label], fontsize=9, ha="right", transform=axes.transAxes,
        )  # fmt: skip


def _draw_numbers(axes: Axes, result: CKDResult) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.text(0.04, 0.955, "KDIGO stage (estimated)", color=_FAINT, fontsize=11, va="top")
    axes.text(
        0.04, 0.915, result.stage, color=STAGE_COLOURS[result.stage], fontsize=44, weight="bold", va="top"
    )
    _draw_estimate(axes, 0.735, "creatinine", result.creatinine, "mg/dL", digits=2)
    _draw_estimate(axes, 0.655, "eGFR", result.egfr, "mL/min/1.73 m²", digits=0)
    axes.text(0.04, 0.585, "probability of each stage", color=_FAINT, fontsize=10, va="top")
    for row, (stage, probability) in enumerate(result.stage_probabilities.items()):
        y = 0.53 - 0.038 * row
        axes.text(0.04, y, stage, color=_INK, fontsize=10, va="center")
        axes.barh(y, 0.62 * probability, left=0.14, height=0.026, color=STAGE_COLOURS[stage])
        axes.text(0.15 + 0.62 * probability, y, f"{probability:.0%}", color=_INK, fontsize=9.5, va="center")
    axes.text(0.04, 0.30, _warning_lines(result), color="#ffd166", fontsize=8.6, va="top", linespacing=1.25)
    statement = textwrap.fill(result.statements[0], 70)
    axes.text(0.04, 0.0, statement, color=_FAINT, fontsize=8.2, va="bottom")


def _warning_lines(result: CKDResult) -> str:
    """Missing inputs and warnings, as many as there is room for, and how many more there are."""
    lines = [f"inputs missing: {len(result.clinical_missing)}"] if result.clinical_missing else []
    for shown, finding in enumerate(result.warnings):
        wrapped = textwrap.wrap(f"⚠ {finding.message}", 72)
        if len(lines) + len(wrapped) > _MAX_WARNING_LINES:
            lines.append(f"… and {len(result.warnings) - shown} more in result.json")
            break
        lines += wrapped
    return "\n".join(lines)


def _draw_estimate(
    axes: Axes, y: float, name: str, estimate: Estimate | None, unit: str, *, digits: int
) -> None:
    if estimate is None:
        axes.text(0.04, y, f"{name}: not estimated by this network", color=_FAINT, fontsize=11, va="center")
        return
    axes.text(0.04, y, name, color=_FAINT, fontsize=11, va="center")
    axes.text(0.29, y, f"{estimate.value:.{digits}f}", color=_INK, fontsize=19, weight="bold", va="center")
    axes.text(
        0.47, y + 0.012, f"{estimate.low:.{digits}f} – {estimate.high:.{digits}f}  ({estimate.level:.0%})",
        color=_INK, fontsize=10.5, va="center",
    )  # fmt: skip
    axes.text(0.47, y - 0.020, unit, color=_FAINT, fontsize=9, va="center")
