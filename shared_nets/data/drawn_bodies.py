"""Abdomens drawn at random from simple shapes: what few real scans lack beside and below the kidneys.

They are synthetic and look it. They are there so that a network sees psoas and back muscles, bowel, bladder
and pelvis as what they are not: kidneys.

Shape letters: X, Y, Z voxels along right, anterior, superior.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from shared_nets.data.body_changes import LEFT_KIDNEY, RIGHT_KIDNEY, Body

SPACING_MM = 3.0
_SPLEEN, _LIVER, _STOMACH, _LUNG, _BOWEL, _COLON, _BLADDER, _BONE = 1, 5, 6, 10, 18, 20, 21, 29
_AORTA, _CAVA = 52, 63
_FAT_HU, _MUSCLE_HU = -100.0, 50.0

Volume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def draw_body(rng: np.random.Generator) -> Body:
    """Draw one abdomen.

    Args:
        rng: source of chance.

    Returns:
        A body of about 40 × 30 × 33 cm, with the numbers of TotalSegmentator where it has one.
    """
    shape = (int(rng.integers(116, 140)), int(rng.integers(84, 104)), int(rng.integers(96, 124)))
    return _Drawing(shape, rng).body()


class _Drawing:
    """A canvas; every method draws one part of the body over what is there."""

    def __init__(self, shape: tuple[int, int, int], rng: np.random.Generator) -> None:
        self.rng, self.shape = rng, shape
        self.hu = np.full(shape, -1000.0, dtype=np.float32)
        self.labels = np.zeros(shape, dtype=np.uint8)
        self.x, self.y, self.z = np.ogrid[: shape[0], : shape[1], : shape[2]]
        self.middle = (shape[0] - 1) / 2.0 + rng.normal(0, 3)
        self.half = (rng.uniform(0.36, 0.46) * shape[0], rng.uniform(0.34, 0.44) * shape[1])
        self.front = (shape[1] - 1) / 2.0 + rng.normal(0, 2)
        self.spine_y = self.front - self.half[1] * rng.uniform(0.38, 0.52)
        self.kidney_z = rng.uniform(0.45, 0.75) * shape[2]

    def body(self) -> Body:
        self._trunk()
        self._muscles()
        self._organs()
        self._bowel()
        if self.rng.random() < 0.7:
            self._pelvis()
        self._vessels()
        self._spine()
        self._kidneys()
        if self.rng.random() < 0.4:
            self._lungs()
        inside = self.hu > -300
        texture = ndimage.gaussian_filter(self.rng.standard_normal(self.shape, dtype=np.float32), 0.8)
        self.hu += np.where(inside, self.rng.uniform(10, 50) * texture, 0.0)
        hu = ndimage.gaussian_filter(self.hu, self.rng.uniform(0.3, 0.7))
        return Body(
            name="drawn",
            hu=hu.round().clip(-1024, 3000).astype(np.int16),
            labels=self.labels,
            spacing_mm=SPACING_MM,
        )

    def _paint(self, where: Mask, hu: float, label: int = 0) -> None:
        self.hu[where] = hu
        self.labels[where] = label

    def _ball(self, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Mask:
        inside = np.zeros(self.shape, dtype=bool)
        box = tuple(
            slice(max(0, int(c - r)), max(0, int(c + r) + 2)) for c, r in zip(centre, radii, strict=True)
        )
        x, y, z = (
            ((np.arange(size)[part] - c) / r) ** 2
            for size, part, c, r in zip(self.shape, box, centre, radii, strict=True)
        )
        inside[box] = x[:, None, None] + y[None, :, None] + z[None, None] <= 1.0
        return inside

    def _column(self, x: float, y: float, rx: npt.ArrayLike, ry: npt.ArrayLike) -> Mask:
        """An upright column; its radii may change along Z."""
        widths = (np.broadcast_to(np.asarray(r, dtype=np.float64), (self.shape[2],)) for r in (rx, ry))
        wide, deep = (np.maximum(w, 1e-3)[None, None] for w in widths)
        return np.asarray(((self.x - x) / wide) ** 2 + ((self.y - y) / deep) ** 2 <= 1.0)

    def _trunk(self) -> None:
        rng = self.rng
        sway = 1.0 + 0.06 * np.sin(
            np.linspace(0, 2 * np.pi, self.shape[2]) * rng.uniform(0.3, 1) + rng.uniform(0, 6)
        )
        skin = self._column(self.middle, self.front, self.half[0] * sway, self.half[1] * sway)
        self._paint(skin, _FAT_HU)
        outer = rng.uniform(0.78, 0.97)
        wall = rng.uniform(0.04, 0.09)
        for scale, hu in ((outer, _MUSCLE_HU), (outer - wall, _FAT_HU)):
            shifted = self.front + (1 - scale) * self.half[1] * 0.3
            self._paint(
                self._column(self.middle, shifted, self.half[0] * scale * sway, self.half[1] * scale * sway),
                hu,
            )

    def _muscles(self) -> None:
        rng, height = self.rng, np.arange(self.shape[2])
        below = np.clip((self.kidney_z + 12 - height) / 40.0, 0.0, 1.0)
        for side in (-1, 1):
            back = (rng.uniform(9, 13), rng.uniform(6, 9))
            self._paint(
                self._column(self.middle + side * rng.uniform(11, 14), self.spine_y - 11, *back), _MUSCLE_HU
            )
            psoas = rng.uniform(7, 11) * np.sqrt(below)
            self._paint(
                self._column(self.middle + side * rng.uniform(13, 17), self.spine_y + 2, psoas, psoas * 1.1),
                _MUSCLE_HU + rng.normal(0, 5),
            )

    def _organs(self) -> None:
        rng, top = self.rng, self.shape[2]
        high = self.kidney_z + rng.uniform(10, 30)
        liver = (self.middle + rng.uniform(16, 24), self.front + 4, high)
        self._paint(
            self._ball(liver, (rng.uniform(22, 30), rng.uniform(20, 28), rng.uniform(20, 32))), 55, _LIVER
        )
        spleen = (self.middle - rng.uniform(28, 34), self.front - 12, high + rng.uniform(-8, 10))
        self._paint(self._ball(spleen, (10, 14, rng.uniform(12, 20))), 48, _SPLEEN)
        stomach = (self.middle - rng.uniform(12, 24), self.front + 12, min(high, top - 10))
        self._paint(self._ball(stomach, (14, 12, 14)), rng.choice([-900.0, 15.0, 60.0]), _STOMACH)

    def _bowel(self) -> None:
        rng = self.rng
        for _ in range(int(rng.integers(10, 40))):
            centre = (
                self.middle + rng.uniform(-0.7, 0.7) * self.half[0],
                self.spine_y
                + 12
                + rng.uniform(0, 1.0) * (self.front + 0.6 * self.half[1] - self.spine_y - 12),
                rng.uniform(0, self.kidney_z + 10),
            )
            radii = (rng.uniform(4, 12), rng.uniform(4, 9), rng.uniform(4, 14))
            loop = self._ball(centre, radii) & (self.labels == 0) & (self.hu > -300)
            content = rng.choice([20.0, 35.0, -900.0, -60.0, 220.0], p=[0.35, 0.3, 0.15, 0.1, 0.1])
            self._paint(loop, 40.0, int(rng.choice([_BOWEL, _COLON])))
            inner = self._ball(centre, (radii[0] - 1.5, radii[1] - 1.5, radii[2] - 1.5)) & loop
            self.hu[inner] = content

    def _pelvis(self) -> None:
        rng = self.rng
        rim = rng.uniform(15, 40)
        for side in (-1, 1):
            seat = (self.middle + side * rng.uniform(20, 28), self.spine_y - 6, rng.uniform(-5, 10))
            self._paint(self._ball(seat, (20, 16, 26)) & (self.hu > -300), _MUSCLE_HU)
            wing = (self.middle + side * rng.uniform(26, 32), self.spine_y + 4, rim - 12)
            outer, inner = self._ball(wing, (10, 20, 20)), self._ball(wing, (6, 20, 20))
            shell = outer & ~inner & (self.hu > -300)
            self._paint(inner & (self.hu > -300), _MUSCLE_HU)
            self._paint(shell, rng.uniform(250, 500), _BONE)
        if rng.random() < 0.8:
            bladder = (self.middle + rng.normal(0, 3), self.front + rng.uniform(-4, 10), rng.uniform(4, 16))
            where = self._ball(bladder, (rng.uniform(9, 18), rng.uniform(8, 15), rng.uniform(7, 15)))
            self._paint(where & (self.hu > -300), rng.choice([8.0, 8.0, 250.0]), _BLADDER)

    def _vessels(self) -> None:
        rng = self.rng
        for x, label in ((-rng.uniform(3, 7), _AORTA), (rng.uniform(5, 9), _CAVA)):
            radius = rng.uniform(2.8, 4.5)
            self._paint(
                self._column(self.middle + x, self.spine_y + 11 + rng.uniform(0, 2), radius, radius),
                45,
                label,
            )

    def _spine(self) -> None:
        rng = self.rng
        radius = rng.uniform(6.5, 8.5)
        column = self._column(self.middle, self.spine_y, radius, radius * 0.85)
        self._paint(column, rng.uniform(150, 300), _BONE)
        cortex = column & ~self._column(self.middle, self.spine_y, radius - 1, radius * 0.85 - 1)
        self.hu[cortex] = rng.uniform(250, 500)
        every = rng.uniform(10, 13)
        is_disc = (np.arange(self.shape[2]) % every) < 3
        disc = column & is_disc[None, None]
        self._paint(disc, 85.0)
        arch = self._column(self.middle, self.spine_y - 11, rng.uniform(5, 9), rng.uniform(3, 5))
        self._paint(
            arch & (((np.arange(self.shape[2]) + 5) % every) < 7)[None, None], rng.uniform(250, 450), _BONE
        )

    def _kidneys(self) -> None:
        rng = self.rng
        for side, label in ((1, RIGHT_KIDNEY), (-1, LEFT_KIDNEY)):
            centre = (
                self.middle + side * rng.uniform(19, 26),
                self.spine_y + rng.uniform(-2, 7),
                self.kidney_z + rng.normal(0, 5),
            )
            bed = self._ball(centre, (13, 13, 22)) & ~np.isin(self.labels, (_LIVER, _SPLEEN, _BONE))
            self._paint(bed & (self.hu > -300), _FAT_HU)
            self._paint(self._ball(centre, (9, 9, rng.uniform(14, 20))), 32, label)

    def _lungs(self) -> None:
        top = self.shape[2] - 1
        for side in (-1, 1):
            dome = (self.middle + side * 20, self.front - 4, top + self.rng.uniform(0, 12))
            self._paint(self._ball(dome, (15, 20, 24)) & (self.hu > -300), -850.0, _LUNG)
