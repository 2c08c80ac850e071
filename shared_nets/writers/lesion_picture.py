"""One picture of a lesion result: the photograph, where the network looked, what it gives each class.

Shape letters: H, W rows and columns of the photograph.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patheffects import withStroke
from PIL import Image

from shared_nets.types import LesionResult
from shared_nets.writers.lesion_words import (
    abstention_in_words,
    class_in_words,
    classes_in_words,
    label_in_words,
    likely_class,
    probability_in_digits,
)
from shared_nets.writers.picture_parts import BACKGROUND, FAINT, INK, result_picture, text_breaker

#: Colours that a colour-blind reader tells apart: bars of malignant and other classes, and where it looked.
MALIGNANT, OTHER, LOOKED = "#ffb000", "#648fff", "#00e5ff"
_NO_LABEL = "#ffd166"
_DEEPEST = 0.4  # opacity of the place that matters most
_MOST_PIXELS = 900  # of a side of the photograph; a panel has half of that
_LEAST_FALL = 0.01  # a smaller fall of the probability marks no place


def lesion_picture(
    result: LesionResult,
    photo: npt.NDArray[Any] | None,
    saliency: npt.NDArray[Any] | None = None,
    *,
    dots_per_inch: int = 110,
) -> bytes:
    """Draw a result.

    Args:
        result: what to draw.
        photo: the photograph, ``(3, H, W)`` uint8 sRGB; ``None`` leaves it out.
        saliency: how much the probability of the most probable class falls when a place is covered,
            ``(H, W)``, 0 to 1; ``None`` leaves that out.
        dots_per_inch: resolution.

    Returns:
        A PNG file's bytes; equal input gives equal bytes.

    Raises:
        ValueError: the map does not lie on the photograph.
    """
    if photo is not None and saliency is not None and saliency.shape != photo.shape[1:]:
        raise ValueError(f"saliency must be {photo.shape[1:]} as the photograph is, got {saliency.shape}.")
    return result_picture(
        result,
        title="Skin lesion",
        draw_images=partial(_draw_images, result=result, photo=photo, saliency=saliency),
        draw_numbers=partial(_draw_numbers, result=result),
        height_ratios=(1.35, 1.0),
        dots_per_inch=dots_per_inch,
    )


def _draw_images(
    figure: Figure,
    grid: GridSpec,
    *,
    result: LesionResult,
    photo: npt.NDArray[Any] | None,
    saliency: npt.NDArray[Any] | None,
) -> None:
    panels = [figure.add_subplot(grid[0, column]) for column in (0, 1)]
    for axes in panels:
        axes.set_axis_off()
    if photo is None:
        panels[0].text(0.5, 0.5, "no photograph", color=FAINT, fontsize=11, ha="center", va="center")
    else:
        seen = _shrunk(np.moveaxis(photo, 0, -1))  # (h, w, 3)
        panels[0].imshow(seen)
        _caption(panels[0], "the photograph")
        if saliency is not None:
            panels[1].imshow(seen)
            _draw_saliency(
                panels[1], _shrunk(saliency.astype(np.float32)), class_in_words(likely_class(result))
            )
    bars = figure.add_subplot(grid[1, :2])
    bars.set_axis_off()
    bars.set_xlim(0, 1)
    bars.set_ylim(0, 1)
    _draw_bars(bars, result)


def _shrunk(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Shrink ``(H, W, 3)`` uint8 or ``(H, W)`` float32 to what the picture can show."""
    image = Image.fromarray(pixels)
    factor = _MOST_PIXELS / max(image.size)
    if factor >= 1.0:
        return pixels
    width, height = (max(1, round(side * factor)) for side in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _draw_saliency(axes: Axes, saliency: npt.NDArray[Any], name: str) -> None:
    largest = float(saliency.max())
    if largest < _LEAST_FALL:
        _caption(axes, f"no single place matters for {name}")
        return
    overlay = np.empty((*saliency.shape, 4))  # (H, W, RGBA)
    overlay[:] = to_rgba(LOOKED)
    overlay[..., 3] = _DEEPEST * saliency / largest
    axes.imshow(overlay, interpolation="bilinear")
    if min(saliency.shape) > 1:
        line = axes.contour(saliency, levels=[largest / 2], colors=LOOKED, linewidths=1.6)
        line.set_path_effects([withStroke(linewidth=3.2, foreground=BACKGROUND)])
    _caption(axes, f"covering the marked place lowers the probability of {name} by up to {largest:.2f}")


def _caption(axes: Axes, text: str) -> None:
    axes.text(
        0.5, -0.02, "\n".join(text_breaker(axes)(text, 9, 2)), color=FAINT, fontsize=9, ha="center", va="top",
        transform=axes.transAxes, parse_math=False,
    )  # fmt: skip


def _draw_bars(axes: Axes, result: LesionResult) -> None:
    axes.text(0.01, 0.93, "probability of each class", color=FAINT, fontsize=10, va="center")
    for left, colour, name in ((0.47, MALIGNANT, "malignant class"), (0.67, OTHER, "other class")):
        axes.barh(0.93, 0.02, left=left, height=0.055, color=colour)
        axes.text(left + 0.03, 0.93, name, color=FAINT, fontsize=10, va="center")
    step = min(0.125, 0.86 / len(result.class_probabilities))
    shown = likely_class(result)
    for row, (name, probability) in enumerate(result.class_probabilities.items()):
        y = 0.81 - step * row
        weight = "bold" if name == shown else "normal"
        colour = MALIGNANT if name in result.malignant_classes else OTHER
        (words,) = text_breaker(axes, share=0.44, weight=weight)(class_in_words(name), 10.5, 1)
        axes.text(0.01, y, words, color=INK, fontsize=10.5, va="center", weight=weight, parse_math=False)
        axes.barh(y, 0.40 * probability, left=0.47, height=0.62 * step, color=colour)
        number = probability_in_digits(probability)
        axes.text(0.48 + 0.40 * probability, y, number, color=INK, fontsize=10.5, va="center", weight=weight)


def _draw_numbers(axes: Axes, result: LesionResult) -> None:
    broken, bold = text_breaker(axes), text_breaker(axes, weight="bold")
    head = "most probable class" if result.label is not None else "the model abstains"
    axes.text(0.04, 0.975, head, color=FAINT, fontsize=11, va="top")
    colour = INK if result.label is not None else _NO_LABEL
    label = "\n".join(bold(label_in_words(result), 20, 2))
    axes.text(0.04, 0.935, label, color=colour, fontsize=20, weight="bold", va="top", parse_math=False)
    y = 0.875 - 0.055 * label.count("\n")
    if result.label is None:
        why = broken(abstention_in_words(result), 9.5, 4)
        axes.text(0.04, y, "\n".join(why), color=_NO_LABEL, fontsize=9.5, va="top", linespacing=1.25,
                  parse_math=False)  # fmt: skip
        y -= 0.032 * len(why)
    axes.text(0.04, y - 0.03, "probability of a malignant class", color=FAINT, fontsize=11, va="top")
    number = probability_in_digits(result.malignancy)
    axes.text(0.04, y - 0.065, number, color=INK, fontsize=24, weight="bold", va="top")
    names = broken(classes_in_words(result.malignant_classes), 9, 2)
    axes.text(0.04, y - 0.135, "\n".join(names), color=FAINT, fontsize=9, va="top", parse_math=False)
    y -= 0.135 + 0.03 * len(names)
    meaning = "not calibrated" if result.coverage is None else f"{result.coverage:.0%} coverage"
    axes.text(0.04, y - 0.03, f"prediction set, {meaning}", color=FAINT, fontsize=11, va="top")
    chosen = broken(classes_in_words(result.prediction_set), 12, 3)
    axes.text(0.04, y - 0.068, "\n".join(chosen), color=INK, fontsize=12, va="top", linespacing=1.2,
              parse_math=False)  # fmt: skip
