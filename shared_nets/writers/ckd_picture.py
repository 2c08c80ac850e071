"""One picture of a CKD result: the kidneys over the CT, the stage, the numbers, the warnings."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke

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
_MAX_WARNING_LINES, _MAX_LINES_OF_ONE_WARNING, _MAX_STATEMENT_LINES = 9, 3, 2
#: Breaks a text into lines: text, font size in points, most lines.
_Breaker = Callable[[str, float, int], list[str]]


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
    canvas = FigureCanvasAgg(figure)
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
    numbers = figure.add_subplot(grid[:, 2])
    _draw_numbers(numbers, result, _breaker(canvas, 0.95 * numbers.bbox.width))
    (title,) = _breaker(canvas, 0.98 * figure.bbox.width, weight="bold")(
        f"CKD staging · {result.study_id}", 13, 1
    )
    figure.text(0.01, 0.957, title, color=_INK, fontsize=13, weight="bold")
    notice = f"{result.notice} · {_bundle_in_words(result)}"
    (notice,) = _breaker(canvas, 0.98 * figure.bbox.width)(notice, 9.5, 1)
    figure.text(0.01, 0.02, notice, color="#ffb4a2", fontsize=9.5, parse_math=False)
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
    axes.set_adjustable("datalim")  # words in the corners keep their place, however narrow the picture is
    seen: dict[str, Any] = {"path_effects": [withStroke(linewidth=2.5, foreground=_BACKGROUND)]}
    for side, edge, inwards in (("R", -0.5, 8), ("L", labels.shape[1] - 0.5, -8)):
        axes.annotate(
            side, (edge, 0.5), xycoords=("data", "axes fraction"), xytext=(inwards, 0),
            textcoords="offset points", ha="center", va="center", color=_INK, fontsize=10, weight="bold",
            **seen,
        )  # fmt: skip
    words = {**seen, "transform": axes.transAxes, "fontsize": 9}
    axes.text(0.02, 0.03, f"z {float(shown['position_mm']):.1f} mm", color=_INK, **words)
    for line, label in enumerate(int(n) for n in np.unique(labels) if n in LABEL_COLOURS):
        axes.text(
            0.98, 0.03 + 0.06 * line, LABEL_NAMES[label], color=LABEL_COLOURS[label], ha="right", **words
        )


def _draw_numbers(axes: Axes, result: CKDResult, broken: _Breaker) -> None:
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
    warnings = "\n".join(_warning_lines(result, lambda text, most: broken(text, 8.6, most)))
    axes.text(
        0.04, 0.30, warnings, color="#ffd166", fontsize=8.6, va="top", linespacing=1.25, parse_math=False
    )
    statement = "\n".join(broken(result.statements[0], 8.2, _MAX_STATEMENT_LINES))
    axes.text(0.04, 0.0, statement, color=_FAINT, fontsize=8.2, va="bottom", parse_math=False)


def _warning_lines(result: CKDResult, broken: Callable[[str, int], list[str]]) -> list[str]:
    """Missing inputs and warnings, as many as there is room for, and how many more there are."""
    lines = [f"inputs missing: {len(result.clinical_missing)}"] if result.clinical_missing else []
    for shown, finding in enumerate(result.warnings):
        of_this = broken(f"⚠ {finding.message}", _MAX_LINES_OF_ONE_WARNING)
        if len(lines) + len(of_this) > _MAX_WARNING_LINES:
            return [*lines, f"… and {len(result.warnings) - shown} more in result.json"]
        lines += of_this
    return lines


def _breaker(canvas: FigureCanvasAgg, width: float, *, weight: str = "normal") -> _Breaker:
    """Break texts by their drawn width, in pixels; one that needs too many lines ends in an ellipsis."""
    renderer = canvas.get_renderer()

    def broken(text: str, font_size: float, most: int) -> list[str]:
        font = FontProperties(size=font_size, weight=weight)

        def fits(line: str) -> bool:
            return renderer.get_text_width_height_descent(line, font, ismath=False)[0] <= width

        lines = [""]
        for word in text.split():
            joined = f"{lines[-1]} {word}".strip()
            if fits(joined):
                lines[-1] = joined
            elif fits(word):
                lines.append(word)
            else:
                for letter in f" {word}":
                    lines = (
                        [*lines[:-1], lines[-1] + letter] if fits(lines[-1] + letter) else [*lines, letter]
                    )
            if len(lines) > most:
                last = lines[most - 1]
                while not fits(f"{last} …"):
                    last = last[:-1]
                return [*lines[: most - 1], f"{last.rstrip()} …"]
        return lines

    return broken


def _draw_estimate(
    axes: Axes, y: float, name: str, estimate: Estimate | None, unit: str, *, digits: int
) -> None:
    if estimate is None:
        axes.text(0.04, y, f"{name}: not estimated by this network", color=_FAINT, fontsize=11, va="center")
        return
    axes.text(0.04, y, name, color=_FAINT, fontsize=11, va="center")
    axes.text(0.29, y, f"{estimate.value:.{digits}f}", color=_INK, fontsize=19, weight="bold", va="center")
    axes.text(
        0.53, y + 0.012, f"{estimate.low:.{digits}f} – {estimate.high:.{digits}f}  ({estimate.level:.0%})",
        color=_INK, fontsize=10.5, va="center",
    )  # fmt: skip
    axes.text(0.53, y - 0.020, unit, color=_FAINT, fontsize=9, va="center")
