"""What every picture of a result shares: images on the left (slices with outlines), words on the right."""

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
from matplotlib.gridspec import GridSpec
from matplotlib.patheffects import withStroke

from shared_nets.types import Finding, StudyResult

MAX_PANELS = 4
#: Soft-tissue window of the pictures, HU (level 40, width 400).
DISPLAY_WINDOW_HU = (-160.0, 240.0)
BACKGROUND, INK, FAINT = "#101418", "#f2f2f2", "#9aa4ad"
_MAX_WARNING_LINES, _MAX_LINES_OF_ONE_WARNING, _MAX_STATEMENT_LINES = 9, 3, 2
#: Breaks a text into lines: text, font size in points, most lines.
Breaker = Callable[[str, float, int], list[str]]
#: Name and colour of each number of a label map.
Legend = Mapping[int, tuple[str, str]]


def slices_picture(
    result: StudyResult,
    slices: Sequence[Mapping[str, Any]],
    *,
    title: str,
    legend: Legend,
    draw_numbers: Callable[[Axes], None],
    leading_lines: Sequence[str] = (),
    dots_per_inch: int,
) -> bytes:
    """Draw slices, numbers, warnings, a statement and the notice.

    Args:
        result: what to draw.
        slices: up to four slices in radiological orientation (patient's right on the left, front on top):
            ``hu`` ``(H, W)`` or ``None``, ``labels`` ``(H, W)``, ``pixel_spacing_mm`` ``(row, column)``,
            ``position_mm``.
        title: what the picture is of.
        legend: what the labels mean.
        draw_numbers: draws the upper two thirds of the right side, in axes from 0 to 1.
        leading_lines: lines above the warnings.
        dots_per_inch: resolution.

    Returns:
        A PNG file's bytes; equal input gives equal bytes.
    """

    def draw_slices(figure: Figure, grid: GridSpec) -> None:
        shown = list(slices)[:MAX_PANELS]
        for panel in range(MAX_PANELS):
            axes = figure.add_subplot(grid[panel // 2, panel % 2])
            axes.set_axis_off()
            if panel < len(shown):
                _draw_slice(axes, shown[panel], legend)

    return result_picture(
        result,
        title=title,
        draw_images=draw_slices,
        draw_numbers=draw_numbers,
        leading_lines=leading_lines,
        dots_per_inch=dots_per_inch,
    )


def result_picture(
    result: StudyResult,
    *,
    title: str,
    draw_images: Callable[[Figure, GridSpec], None],
    draw_numbers: Callable[[Axes], None],
    leading_lines: Sequence[str] = (),
    height_ratios: tuple[float, float] = (1.0, 1.0),
    dots_per_inch: int,
) -> bytes:
    """Draw images, numbers, warnings, a statement and the notice.

    Args:
        result: what to draw.
        title: what the picture is of.
        draw_images: draws the left side, in the first two columns and both rows of the grid.
        draw_numbers: draws the upper two thirds of the right side, in axes from 0 to 1.
        leading_lines: lines above the warnings.
        height_ratios: of the two rows.
        dots_per_inch: resolution.

    Returns:
        A PNG file's bytes; equal input gives equal bytes.
    """
    figure = Figure(figsize=(12.4, 7.2), dpi=dots_per_inch, facecolor=BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2,
        3,
        width_ratios=(1, 1, 1.15),
        height_ratios=height_ratios,
        left=0.01,
        right=0.985,
        top=0.93,
        bottom=0.06,
        wspace=0.03,
        hspace=0.09,
    )
    draw_images(figure, grid)
    numbers = figure.add_subplot(grid[:, 2])
    numbers.set_axis_off()
    numbers.set_xlim(0, 1)
    numbers.set_ylim(0, 1)
    draw_numbers(numbers)
    _draw_words(numbers, result, leading_lines, text_breaker(numbers))
    (headline,) = _breaker(canvas, 0.98 * figure.bbox.width, weight="bold")(
        f"{title} · {result.study_id}", 13, 1
    )
    figure.text(0.01, 0.957, headline, color=INK, fontsize=13, weight="bold")
    notice = f"{result.notice} · {_bundle_in_words(result)}"
    (notice,) = _breaker(canvas, 0.98 * figure.bbox.width)(notice, 9.5, 1)
    figure.text(0.01, 0.02, notice, color="#ffb4a2", fontsize=9.5, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=BACKGROUND, metadata={"Software": None})
    return buffer.getvalue()


def text_breaker(axes: Axes, *, share: float = 0.95, weight: str = "normal") -> Breaker:
    """Break texts so that they fit into a share of axes; one of too many lines ends in an ellipsis."""
    canvas = axes.figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        raise ValueError(f"axes must be on a canvas that measures text, got {type(canvas).__name__}.")
    return _breaker(canvas, share * axes.bbox.width, weight=weight)


def _bundle_in_words(result: StudyResult) -> str:
    weights = result.provenance.weights_sha256.get("model", "")[:12]
    return f"{result.provenance.bundle} {result.provenance.bundle_version} · weights {weights}"


def _draw_slice(axes: Axes, shown: Mapping[str, Any], legend: Legend) -> None:
    labels = np.asarray(shown["labels"])
    row_mm, column_mm = (float(mm) for mm in shown["pixel_spacing_mm"])
    has_ct = shown.get("hu") is not None
    if has_ct:
        low, high = DISPLAY_WINDOW_HU
        axes.imshow(np.asarray(shown["hu"]), cmap="gray", vmin=low, vmax=high, aspect=row_mm / column_mm)
    else:
        axes.imshow(np.zeros_like(labels), cmap="gray", vmin=0, vmax=1, aspect=row_mm / column_mm)
    overlay = np.zeros((*labels.shape, 4))
    for label, (_, colour) in legend.items():
        overlay[labels == label] = to_rgba(colour, 0.30 if has_ct else 0.9)
        if has_ct and (labels == label).any():
            axes.contour(labels == label, levels=[0.5], colors=colour, linewidths=0.9)
    axes.imshow(overlay, aspect=row_mm / column_mm, interpolation="nearest")
    axes.set_adjustable("datalim")  # words in the corners keep their place, however narrow the picture is
    seen: dict[str, Any] = {"path_effects": [withStroke(linewidth=2.5, foreground=BACKGROUND)]}
    for side, edge, inwards in (("R", -0.5, 8), ("L", labels.shape[1] - 0.5, -8)):
        axes.annotate(
            side, (edge, 0.5), xycoords=("data", "axes fraction"), xytext=(inwards, 0),
            textcoords="offset points", ha="center", va="center", color=INK, fontsize=10, weight="bold",
            **seen,
        )  # fmt: skip
    words = {**seen, "transform": axes.transAxes, "fontsize": 9}
    axes.text(0.02, 0.03, f"z {float(shown['position_mm']):.1f} mm", color=INK, **words)
    for line, label in enumerate(int(n) for n in np.unique(labels) if n in legend):
        axes.text(0.98, 0.03 + 0.06 * line, legend[label][0], color=legend[label][1], ha="right", **words)


def _draw_words(axes: Axes, result: StudyResult, leading_lines: Sequence[str], broken: Breaker) -> None:
    lines = _warning_lines(leading_lines, result.warnings, lambda text, most: broken(text, 8.6, most))
    axes.text(
        0.04, 0.30, "\n".join(lines), color="#ffd166", fontsize=8.6, va="top", linespacing=1.25,
        parse_math=False,
    )  # fmt: skip
    statement = "\n".join(broken(result.statements[0], 8.2, _MAX_STATEMENT_LINES))
    axes.text(0.04, 0.0, statement, color=FAINT, fontsize=8.2, va="bottom", parse_math=False)


def _warning_lines(
    leading: Sequence[str], warnings: Sequence[Finding], broken: Callable[[str, int], list[str]]
) -> list[str]:
    """As many warnings as there is room for, and how many more there are."""
    lines = list(leading)
    for shown, finding in enumerate(warnings):
        of_this = broken(f"⚠ {finding.message}", _MAX_LINES_OF_ONE_WARNING)
        if len(lines) + len(of_this) > _MAX_WARNING_LINES:
            return [*lines, f"… and {len(warnings) - shown} more in result.json"]
        lines += of_this
    return lines


def _breaker(canvas: FigureCanvasAgg, width: float, *, weight: str = "normal") -> Breaker:
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
