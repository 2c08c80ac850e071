"""One result as a PDF of A4 pages: words that can be searched and copied, and the picture."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from PIL import Image

from shared_nets.types import CKDResult, KidneyResult, StudyResult
from shared_nets.writers.page_parts import clinical_value, words
from shared_nets.writers.result_page import page_content
from shared_nets.writers.result_words import kidney_measures, unit_in_words

_PAGE_IN = (8.27, 11.69)
_MARGIN_IN = 0.6
_INK, _FAINT, _NOTICE, _WARNING = "#1b1f23", "#57606a", "#7a4a00", "#7d1a12"
_LINE_HEIGHT = 1.35
_LETTER_WIDTH = 0.62  # of the size of the letters; wider than most texts, so that no line leaves the page
_POINTS_PER_IN = 72.0


def result_pdf(result: StudyResult, *, picture_png: bytes, created: datetime) -> bytes:
    """Write a result as PDF for people.

    Args:
        result: the result, provenance complete.
        picture_png: the picture of the result.
        created: when, with a time zone.

    Returns:
        The file. Equal input gives equal bytes.
    """
    content = page_content(result)
    pages = _Pages(footer=f"{result.notice} {result.study_id}")
    pages.write(result.notice, size=10, colour=_NOTICE, weight="bold")
    pages.write(f"{content.kind} · {result.study_id}", size=15, weight="bold", space_in=0.1)
    pages.write(content.question, size=10, colour=_FAINT)
    pages.write(content.answer, size=20, weight="bold")
    pages.write(content.lead, size=10)
    pages.draw(picture_png)
    pages.list("Warnings", [finding.message for finding in result.warnings], colour=_WARNING)
    pages.list("Numbers", _numbers(result))
    pages.list("What this cannot show", result.statements)
    pages.list("Made by", _software(result))
    return pages.encode(f"{content.kind} {result.study_id}", created)


def _numbers(result: StudyResult) -> list[str]:
    """Sizes, and the values that came with the study, each with where it came from."""
    lines = []
    if isinstance(result, CKDResult | KidneyResult):
        measures = [measure for measure in kidney_measures(result) if not math.isnan(measure.value)]
        lines += [f"{m.words}: {m.value:.1f} {unit_in_words(m.unit)}" for m in measures]
    used: Mapping[str, Any] = getattr(result, "clinical_used", None) or getattr(result, "metadata_used", {})
    lines += [f"{words(name)}: {clinical_value(v)} (from: {v['source']})" for name, v in used.items()]
    return lines


def _software(result: StudyResult) -> list[str]:
    made = result.provenance
    weights = [f"Weights {name}: {digest}" for name, digest in made.weights_sha256.items()]
    return [f"{made.bundle} {made.bundle_version}", f"Configuration: {made.config_sha256}", *weights]


class _Pages:
    """Pages that are filled from top to bottom."""

    def __init__(self, *, footer: str) -> None:
        self.footer = footer
        self.figures: list[Figure] = []
        self._left_in = 0.0

    def write(
        self, text: str, *, size: float, colour: str = _INK, weight: str = "normal", space_in: float = 0.0
    ) -> None:
        """Write a paragraph; it may go on on the next page."""
        width_in = _PAGE_IN[0] - 2 * _MARGIN_IN
        letters = int(width_in * _POINTS_PER_IN / (size * _LETTER_WIDTH))
        height_in = size * _LINE_HEIGHT / _POINTS_PER_IN
        self._left_in -= space_in
        for line in textwrap.wrap(text, letters):
            figure = self._page_with(height_in)
            figure.text(
                _MARGIN_IN / _PAGE_IN[0], (_MARGIN_IN + self._left_in) / _PAGE_IN[1], line, va="top",
                fontsize=size, color=colour, weight=weight, parse_math=False,
            )  # fmt: skip
            self._left_in -= height_in

    def list(self, heading: str, texts: Sequence[str], *, colour: str = _INK) -> None:
        """Write texts under a heading; without texts nothing is written."""
        if texts:
            self._page_with(1.0)  # no heading alone at the foot of a page
            self.write(heading, size=12, colour=colour, weight="bold", space_in=0.12)
        for text in texts:
            self.write(f"– {text}", size=9.5, colour=colour)

    def draw(self, png: bytes) -> None:
        """Draw a picture over the width of the page."""
        with Image.open(io.BytesIO(png)) as image:
            pixels = np.asarray(image.convert("RGB"))  # (H, W, 3)
        width_in = _PAGE_IN[0] - 2 * _MARGIN_IN
        height_in = width_in * pixels.shape[0] / pixels.shape[1]
        self._left_in -= 0.1
        figure = self._page_with(height_in)
        bottom_in = _MARGIN_IN + self._left_in - height_in
        axes = figure.add_axes(
            (
                _MARGIN_IN / _PAGE_IN[0], bottom_in / _PAGE_IN[1],
                width_in / _PAGE_IN[0], height_in / _PAGE_IN[1],
            )
        )  # fmt: skip
        axes.imshow(pixels, interpolation="none", aspect="auto")
        axes.set_axis_off()
        self._left_in -= height_in

    def encode(self, title: str, created: datetime) -> bytes:
        """Give the file."""
        buffer = io.BytesIO()
        about = {"Title": title, "CreationDate": created.astimezone(UTC), "Creator": None, "Producer": None}
        with rc_context({"pdf.fonttype": 42}), PdfPages(buffer, metadata=about) as file:
            for number, figure in enumerate(self.figures, start=1):
                line = f"{self.footer} · page {number} of {len(self.figures)}"
                height = 0.4 * _MARGIN_IN / _PAGE_IN[1]
                figure.text(0.5, height, line, ha="center", fontsize=8, color=_FAINT, parse_math=False)
                file.savefig(figure)
        return buffer.getvalue()

    def _page_with(self, height_in: float) -> Figure:
        if not self.figures or self._left_in < height_in:
            self.figures.append(Figure(figsize=_PAGE_IN))
            self._left_in = _PAGE_IN[1] - 2 * _MARGIN_IN
        return self.figures[-1]
