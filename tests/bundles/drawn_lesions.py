"""Synthetic photographs of skin lesions: drawn, not taken, so that a test knows what they show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from skimage.color import lab2rgb

#: CIELAB of light skin, and of lesions that differ enough to be told apart by a network in a few steps.
SKIN = (72.0, 15.0, 18.0)
LESIONS = (
    (38.0, 15.0, 18.0),
    (52.0, 38.0, 22.0),
    (25.0, 6.0, 6.0),
    (45.0, 28.0, 8.0),
    (55.0, 12.0, 34.0),
    (33.0, 24.0, 24.0),
    (60.0, 30.0, 12.0),
)


def drawn_lesion(
    number: int = 0, *, height: int = 60, width: int = 80, kind: int = 0
) -> npt.NDArray[np.uint8]:
    """Draw a round lesion on skin.

    Args:
        number: another one gives other noise.
        height: rows.
        width: columns.
        kind: its colour, a number of :data:`LESIONS`.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows - height / 2) ** 2 + (columns - width / 2) ** 2) < (height / 4) ** 2
    lab = np.where(inside[..., None], LESIONS[kind], SKIN) + np.zeros((height, width, 3))
    lab = ndimage.gaussian_filter(lab, (1, 1, 0))
    lab[..., 0] += np.random.default_rng(number).normal(0, 2.0, (height, width))
    return (lab2rgb(lab) * 255).round().clip(0, 255).astype(np.uint8)


def write_lesions(
    folder: Path, *, num: int, classes: tuple[int, ...], side: int = 28, start: int = 0
) -> list[dict[str, object]]:
    """Write PNG files of drawn lesions, and give their items: name, path below ``folder``, and class.

    Args:
        folder: where the files go.
        num: how many.
        classes: classes in turn; the one at place i has the colour i.
        side: rows and columns.
        start: number of the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for number in range(start, start + num):
        kind, name = number % len(classes), f"synthetic_{number:03d}"
        Image.fromarray(drawn_lesion(number, height=side, width=side, kind=kind)).save(folder / f"{name}.png")
        items.append(
            {"study_id": name, "image": f"{folder.name}/{name}.png", "label": classes[kind]},
        )
    return items


def write_datalist(folder: Path, lists: dict[str, list]) -> Path:
    """Write ``datalist.json``."""
    path = folder / "datalist.json"
    path.write_text(json.dumps(lists))
    return path
