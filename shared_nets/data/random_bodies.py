"""Bodies for training a kidney segmentation: few real CTs, each changed at random whenever it is drawn.

What a sample shows follows from the seed, the epoch and its number, and from nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from shared_nets.data.body_changes import Body, BodyChanges, KidneyPair, random_body
from shared_nets.data.drawn_bodies import draw_body
from shared_nets.refusals import InputRefused

logger = logging.getLogger(__name__)


class RandomBodies(Dataset):
    """Random bodies with their kidneys, ``image`` and ``label``, each ``(1, X, Y, Z)`` float32.

    The label is 1 for kidney with its tumours; cysts are not part of it, as in TotalSegmentator's maps.

    Args:
        dataset_dir: folder that ``tools.build_kidney_bodies`` wrote.
        leave_out: names of scans that must not take part.
        drawn_share: share of samples that show a synthetic abdomen
            (:func:`shared_nets.data.drawn_bodies.draw_body`) instead of a real one.
        length: samples an epoch.
        size: voxels of a sample along each axis.
        window_hu: values are scaled from this window to 0 … 1.
        changes: how far a body is changed.
        seed: of everything.

    Raises:
        InputRefused: ``INPUT_NOT_FOUND`` or ``INPUT_EMPTY`` for a folder that does not hold what is needed.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        *,
        leave_out: Sequence[str] = (),
        drawn_share: float = 0.35,
        length: int = 100,
        size: int = 96,
        window_hu: tuple[float, float] = (-200.0, 400.0),
        changes: BodyChanges | None = None,
        seed: int = 0,
    ) -> None:
        self.bodies, self.kidneys = read_bodies(dataset_dir, leave_out=leave_out)
        self.drawn_share = drawn_share
        self.length, self.size, self.window_hu = length, size, window_hu
        self.changes = changes or BodyChanges()
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Draw other samples; the same epoch gives the same ones."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(f"index must lie in 0 … {self.length - 1}, got {index}.")
        rng = np.random.default_rng([self.seed, self.epoch, index])
        is_drawn = rng.random() < self.drawn_share
        body = draw_body(rng) if is_drawn else self.bodies[int(rng.integers(len(self.bodies)))]
        pair = self.kidneys[int(rng.integers(len(self.kidneys)))] if self.kidneys else None
        hu, kidney = random_body(body, pair, size=self.size, changes=self.changes, rng=rng)
        low, high = self.window_hu
        return {"image": ((hu - low) / (high - low)).clamp(0.0, 1.0)[None], "label": kidney.float()[None]}


def read_bodies(
    dataset_dir: str | Path, *, leave_out: Sequence[str] = ()
) -> tuple[list[Body], list[KidneyPair]]:
    """Read what ``tools.build_kidney_bodies`` wrote.

    Args:
        dataset_dir: its folder.
        leave_out: names of scans that must not take part.

    Returns:
        Bodies, and kidneys of other people.

    Raises:
        InputRefused: ``INPUT_NOT_FOUND``, ``INPUT_EMPTY``.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise InputRefused(
            "INPUT_NOT_FOUND", f"There is no folder {folder.name}.", "Make it with tools.build_kidney_bodies."
        )
    bodies, kidneys = [], []
    for path in sorted(folder.glob("body_*.npz")):
        with np.load(path, allow_pickle=False) as file:
            name = path.stem.removeprefix("body_")
            if name not in leave_out:
                spacing = float(file["spacing_mm"])
                bodies.append(Body(name=name, hu=file["hu"], labels=file["labels"], spacing_mm=spacing))
    for path in sorted(folder.glob("kidneys_*.npz")):
        with np.load(path, allow_pickle=False) as file:
            spacing = float(file["spacing_mm"])
            kidneys.append(KidneyPair(right=file["right"], left=file["left"], spacing_mm=spacing))
    if not bodies:
        raise InputRefused(
            "INPUT_EMPTY",
            f"{folder.name} holds no body that may take part.",
            "Make bodies with tools.build_kidney_bodies, or leave fewer out.",
        )
    logger.info("%d bodies, %d pairs of kidneys", len(bodies), len(kidneys))
    return bodies, kidneys
