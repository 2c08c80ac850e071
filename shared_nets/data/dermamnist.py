"""DermaMNIST: 10,015 dermoscopy images of HAM10000 at 28 × 28 pixels (or 64, 128, 224), with its split.

The file does not say which lesion an image shows. HAM10000 has 10,015 images of 7,470 lesions, so that
images of one lesion may lie on both sides of the official split, and figures on its test part flatter every
model. No two of its parts share an identical image.

Reference:
    J. Yang et al., "MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image
    classification", Scientific Data 2023. Data licence CC BY-NC 4.0: it binds weights trained on them, too.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared_nets.data.ham10000 import CLASS_NAMES
from shared_nets.refusals import InputRefused

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DermaMnistSplit:
    """One part of the official split.

    Args:
        images: ``(N, S, S, 3)`` uint8, sRGB.
        labels: numbers in :data:`shared_nets.data.ham10000.CLASS_NAMES`, ``(N,)`` int64.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def read_dermamnist(path: str | Path) -> dict[str, DermaMnistSplit]:
    """Read the file as MedMNIST publishes it.

    Args:
        path: of ``dermamnist.npz``, or of a larger size.

    Returns:
        The parts ``train``, ``val`` and ``test``.

    Raises:
        InputRefused: ``INPUT_NOT_FOUND``, or ``INPUT_UNREADABLE`` for anything but DermaMNIST.
    """
    name = Path(path).name
    try:
        with np.load(path, allow_pickle=False) as content:
            parts = {
                split: DermaMnistSplit(
                    content[f"{split}_images"], content[f"{split}_labels"].reshape(-1).astype(np.int64)
                )
                for split in SPLITS
            }
        for split, part in parts.items():
            _check(split, part)
    except FileNotFoundError as error:
        raise InputRefused(
            "INPUT_NOT_FOUND", f"There is no {name}.", "Give the path of dermamnist.npz."
        ) from error
    except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise InputRefused(
            "INPUT_UNREADABLE",
            f"{name} is not DermaMNIST: {error}",
            "Take the file as MedMNIST publishes it.",
        ) from error
    return parts


def _check(split: str, part: DermaMnistSplit) -> None:
    shape = part.images.shape
    if part.images.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise ValueError(f"{split}_images must be (N, S, S, 3) uint8, got {shape} {part.images.dtype}.")
    if part.labels.shape != shape[:1] or not np.isin(part.labels, range(len(CLASS_NAMES))).all():
        raise ValueError(f"{split}_labels must be {shape[0]} numbers from 0 to {len(CLASS_NAMES) - 1}.")
