"""Change a real CT at random, beyond what scanners do: densities, kidneys, place, shape, blur, noise.

Shape letters: X, Y, Z voxels along right, anterior, superior.

Reference:
    B. Billot et al., "SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without
    retraining", Medical Image Analysis 2023 (random contrasts drawn from label maps).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

#: Numbers of TotalSegmentator's map that are treated by name.
RIGHT_KIDNEY, LEFT_KIDNEY = 2, 3
_VESSELS, _BONES = (
    (51, 52, 53, 63, 64, 65, 66, 67, 68),
    tuple(range(25, 51)) + tuple(range(69, 79)) + tuple(range(91, 118)),
)
_PARENCHYMAL = (1, 4, 5, 6, 7, 8, 9)
_LUNGS = (10, 11, 12, 13, 14)
_BOWEL = (15, 18, 19, 20, 21)
_FAT_HU = -100.0
_PLAIN = 0.4  # share of bodies without contrast medium
KIDNEY, TUMOUR, CYST = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class Body:
    """A real CT on a coarse grid.

    Args:
        name: of the scan.
        hu: ``(X, Y, Z)`` int16.
        labels: TotalSegmentator's numbers, ``(X, Y, Z)`` uint8.
        spacing_mm: voxel size.
    """

    name: str
    hu: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    spacing_mm: float


@dataclass(frozen=True, kw_only=True)
class KidneyPair:
    """Kidneys of a person, without the body around them.

    Args:
        right: labels 1 kidney, 2 tumour, 3 cyst, ``(X, Y, Z)`` uint8; empty where there is none.
        left: likewise.
        spacing_mm: voxel size.
    """

    right: npt.NDArray[np.uint8]
    left: npt.NDArray[np.uint8]
    spacing_mm: float


@dataclass(frozen=True, kw_only=True)
class BodyChanges:
    """How far a body is changed; probabilities unless said otherwise.

    Args:
        replace_kidneys: other people's kidneys take the place of the real ones.
        remove_kidney: a kidney is taken away, each side by itself.
        redraw_densities: organs get new densities.
        add_blobs: ellipsoids of any density lie in the body.
        blur: slices are thick or the kernel is soft.
        cut_field: the field of view ends inside the body.
        max_turn_degrees: rotation about each axis.
        max_stretch: natural logarithm of the size, each axis and all together.
        max_noise_hu: standard deviation of noise.
    """

    replace_kidneys: float = 0.6
    remove_kidney: float = 0.06
    redraw_densities: float = 0.75
    add_blobs: float = 0.5
    blur: float = 0.4
    cut_field: float = 0.3
    max_turn_degrees: float = 12.0
    max_stretch: float = 0.2
    max_noise_hu: float = 40.0


def random_body(
    body: Body,
    pair: KidneyPair | None,
    *,
    size: int,
    changes: BodyChanges,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw one changed body.

    Args:
        body: the real CT.
        pair: other kidneys; ``None`` keeps the real ones.
        size: voxels of the sample along each axis.
        changes: how far.
        rng: source of chance.

    Returns:
        HU ``(size, size, size)`` float32, and where kidney is, bool.
    """
    matrix = _random_matrix(changes, rng)  # sample voxel → body voxel, about the centres
    centre = _random_centre(body, rng)
    grid = _sampling_grid(size, matrix, centre, body.hu.shape)
    hu = _sampled(torch.from_numpy(body.hu).float(), grid, "bilinear", outside=-1024.0)
    labels = _sampled(torch.from_numpy(body.labels).float(), grid, "nearest", outside=0.0).long()
    soft = _smooth_field(size, rng, cells=12)  # texture of what is redrawn, mean 0, deviation 1

    replaces = pair is not None and rng.random() < changes.replace_kidneys
    new = torch.zeros_like(labels)
    for number, other in ((RIGHT_KIDNEY, "right"), (LEFT_KIDNEY, "left")):
        old = labels == number
        is_removed = rng.random() < changes.remove_kidney
        if not (old.any() and (replaces or is_removed)):
            continue
        near = _dilated(old, 1)
        hu = torch.where(near, _FAT_HU + 12.0 * soft, hu)
        labels = torch.where(old, 0, labels)
        if replaces and not is_removed and pair is not None:
            place = old.nonzero().double().mean(dim=0).numpy()
            donor = pair.right if other == "right" else pair.left
            _place_kidney(new, donor, place, pair.spacing_mm / body.spacing_mm, matrix, rng)
    new = torch.where(_is_hard(labels), 0, new)
    hu, kidney = _with_densities(hu, labels, new, soft, changes, rng)
    if rng.random() < changes.add_blobs:
        hu = _with_blobs(hu, kidney | _is_hard(labels) | (hu < -300), soft, rng)
    hu = _scanned(hu, changes, rng)
    if rng.random() < changes.cut_field:
        hu, kidney = _cut(hu, kidney, rng)
    return hu, kidney


def _random_matrix(changes: BodyChanges, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(rng.uniform(-1, 1, 3) * changes.max_turn_degrees)):
        a, b = [other for other in range(3) if other != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    stretch = np.exp(
        rng.uniform(-1, 1, 3) * changes.max_stretch / 2 + rng.uniform(-1, 1) * changes.max_stretch
    )
    mirror = np.array([rng.choice([-1.0, 1.0]), 1.0, 1.0])  # a mirrored person has kidneys all the same
    return turn @ np.diag(mirror * stretch)


def _random_centre(body: Body, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A place in the body (voxels): mostly near the kidneys."""
    shape = np.array(body.hu.shape, dtype=np.float64)
    kidneys = np.argwhere((body.labels == RIGHT_KIDNEY) | (body.labels == LEFT_KIDNEY))
    if len(kidneys) and rng.random() < 0.75:
        return kidneys.mean(axis=0) + rng.normal(0.0, [10.0, 8.0, 18.0])
    return shape * [0.5, 0.5, 0.0] + [rng.normal(0, 10), rng.normal(0, 8), rng.uniform(0, shape[2])]


def _sampling_grid(
    size: int, matrix: npt.NDArray[np.float64], centre: npt.NDArray[np.float64], shape: Sequence[int]
) -> Tensor:
    """Places in the body for every voxel of the sample, as grid_sample wants them, ``(1, X, Y, Z, 3)``."""
    to_unit = 2.0 / np.maximum(np.array(shape) - 1.0, 1.0)
    linear = to_unit[:, None] * matrix
    constant = to_unit * (centre - matrix @ np.full(3, (size - 1) / 2.0)) - 1.0
    steps = torch.arange(size, dtype=torch.float32)
    parts = []
    for world in (2, 1, 0):  # grid_sample counts axes from the last
        x, y, z = (float(linear[world, axis]) * steps for axis in range(3))
        parts.append(x[:, None, None] + y[None, :, None] + z[None, None] + float(constant[world]))
    return torch.stack(parts, dim=-1)[None]


def _sampled(volume: Tensor, grid: Tensor, mode: str, *, outside: float) -> Tensor:
    shifted = (volume - outside)[None, None]  # grid_sample fills with zeros
    out = F.grid_sample(shifted, grid, mode=mode, padding_mode="zeros", align_corners=True)
    return out[0, 0] + outside


def _smooth_field(size: int, rng: np.random.Generator, *, cells: int) -> Tensor:
    """Random texture: coarse plus fine, mean 0, deviation about 1."""
    coarse = torch.from_numpy(rng.standard_normal((1, 1, cells, cells, cells)).astype(np.float32))
    fine = torch.from_numpy(rng.standard_normal((1, 1, size // 2, size // 2, size // 2)).astype(np.float32))
    field = sum(
        F.interpolate(part, size=(size, size, size), mode="trilinear", align_corners=False)[0, 0]
        for part in (coarse, fine)
    )
    return torch.as_tensor(field) * 0.9


def _dilated(mask: Tensor, voxels: int) -> Tensor:
    wider = ndimage.maximum_filter(mask.numpy().view(np.uint8), 2 * voxels + 1)
    return torch.from_numpy(wider.view(bool))


def _is_hard(labels: Tensor) -> Tensor:
    """Bone and lung, over which no kidney lies."""
    table = torch.zeros(256, dtype=torch.bool)
    table[[*_BONES, *_LUNGS]] = True
    return table[labels]


def _place_kidney(
    canvas: Tensor,
    donor: npt.NDArray[np.uint8],
    place: npt.NDArray[np.float64],
    ratio: float,
    matrix: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> None:
    """Draw a kidney of another person around ``place`` (voxels of the sample), turned and scaled."""
    if not donor.any():
        return
    size = canvas.shape[0]
    jitter = BodyChanges(max_turn_degrees=15.0, max_stretch=0.15)
    own = np.abs(_random_matrix(jitter, rng)[0, 0]) * np.eye(3) + 0.06 * rng.normal(0, 1, (3, 3))
    mirror = np.sign(matrix[0, 0]) or 1.0
    to_donor = own @ np.diag([mirror, 1.0, 1.0]) / ratio  # sample voxel → donor voxel
    middle = (np.array(donor.shape) - 1.0) / 2.0
    where = place + rng.normal(0.0, [3.0, 3.0, 4.0])
    centre = middle - to_donor @ (where - (size - 1) / 2.0)
    grid = _sampling_grid(size, to_donor, centre, donor.shape)
    drawn = _sampled(torch.from_numpy(donor).float(), grid, "nearest", outside=0.0).long()
    canvas[drawn > 0] = drawn[drawn > 0]


def _with_densities(
    hu: Tensor, labels: Tensor, new: Tensor, soft: Tensor, changes: BodyChanges, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Give organs new densities and fill in new kidneys; also say where kidney is."""
    real = ((labels == RIGHT_KIDNEY) | (labels == LEFT_KIDNEY)) & (new == 0)
    phase = rng.random()  # from plain to fully enhanced
    if rng.random() < changes.redraw_densities:
        shift = torch.from_numpy(rng.normal(0.0, 12.0, 256).astype(np.float32))
        for numbers, reach in ((_PARENCHYMAL, 80.0), (_VESSELS, 220.0), (_BOWEL, 120.0)):
            shift[list(numbers)] = torch.from_numpy(
                rng.uniform(-60.0, reach, len(numbers)).astype(np.float32)
            )
        if phase < _PLAIN:  # without contrast all organs are about as dense as kidney
            for number in _PARENCHYMAL:
                organ = hu[(labels == number) & (hu > -30)]
                if organ.numel():
                    shift[number] = float(rng.uniform(15, 70)) - organ.mean()
        shift[0] = 0.0
        shift[[RIGHT_KIDNEY, LEFT_KIDNEY]] = 0.0
        moved = hu + shift[labels]
        is_soft = hu > -30  # gas and fat inside an organ stay what they are
        hu = torch.where(is_soft & (labels > 0), moved, hu)
        unnamed = is_soft & (labels == 0) & (hu < 200)
        hu = torch.where(unnamed, hu + float(rng.normal(0, 12)) + float(rng.uniform(0, 15)) * soft, hu)
        level = _kidney_level(phase, rng)
        if real.any():
            texture = hu - hu[real].mean()
            target = level + float(rng.uniform(0.6, 1.2)) * texture
            hu = torch.where(real, target, hu)
        real_rim = real & ~_eroded(real, 2)
        hu = torch.where(real_rim, hu + float(rng.uniform(-20, 90)) * (0.2 if phase < _PLAIN else 0.6), hu)
    kidney = real
    if (new > 0).any():
        level = _kidney_level(phase, rng)
        inside = new == KIDNEY
        deep = _eroded(inside, 3)
        rim = float(rng.uniform(-10, 90)) * (0.1 if phase < _PLAIN else 1.0)
        drawn = torch.full_like(hu, level) + torch.where(deep, 0.0, rim) + float(rng.uniform(4, 18)) * soft
        hu = torch.where(inside, drawn, hu)
        hu = torch.where(new == TUMOUR, float(rng.uniform(20, 160)) + float(rng.uniform(5, 35)) * soft, hu)
        hu = torch.where(new == CYST, float(rng.uniform(-5, 25)) + 6.0 * soft, hu)
        kidney = real | (new == KIDNEY) | (new == TUMOUR)
    return hu, kidney


def _kidney_level(phase: float, rng: np.random.Generator) -> float:
    """Density of kidney from plain (about 10 to 45 HU) to nephrographic (about 200 HU)."""
    return float(rng.uniform(8, 45) if phase < _PLAIN else rng.uniform(70, 240))


def _eroded(mask: Tensor, voxels: int) -> Tensor:
    return ~_dilated(~mask, voxels)


def _with_blobs(hu: Tensor, taken: Tensor, soft: Tensor, rng: np.random.Generator) -> Tensor:
    """Lay ellipsoids of any soft density into the body: bowel, bladder, masses that these scans lack."""
    size = hu.shape[0]
    inside = (hu > -150) & ~taken
    steps = torch.arange(size, dtype=torch.float32)
    for _ in range(int(rng.integers(1, 9))):
        centre, radii = rng.uniform(0, size, 3), rng.uniform(3, 16, 3)
        square = sum(
            ((steps - float(c)) / float(r)).square().reshape([-1 if a == axis else 1 for a in range(3)])
            for axis, (c, r) in enumerate(zip(centre, radii, strict=True))
        )
        blob = (torch.as_tensor(square) < 1.0) & inside
        level = float(rng.uniform(-20, 280))
        hu = torch.where(blob, level + float(rng.uniform(3, 25)) * soft, hu)
    return hu


def _scanned(hu: Tensor, changes: BodyChanges, rng: np.random.Generator) -> Tensor:
    """Blur along and across the slices, shift and stretch HU a little, add noise."""
    if rng.random() < changes.blur:
        for axis, widest in ((2, 1.6), (0, 0.7), (1, 0.7)):
            hu = _smoothed(hu, axis, float(rng.uniform(0.0, widest)))
    hu = (hu + 1024.0) * float(rng.uniform(0.97, 1.03)) - 1024.0 + float(rng.normal(0, 8))
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    return hu + float(rng.uniform(0, changes.max_noise_hu) * rng.random()) * torch.from_numpy(noise)


def _smoothed(hu: Tensor, axis: int, sigma: float) -> Tensor:
    if sigma < 0.2:
        return hu
    reach = torch.arange(-4, 5, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (reach / sigma).square())
    kernel = (kernel / kernel.sum()).reshape([1, 1, *(-1 if a == axis else 1 for a in range(3))])
    padding = [4 if a == axis else 0 for a in (2, 2, 1, 1, 0, 0)]
    return F.conv3d(F.pad(hu[None, None], padding, mode="replicate"), kernel)[0, 0]


def _cut(hu: Tensor, kidney: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """End the field of view at one side; beyond it lies nothing."""
    axis, is_high = int(rng.choice([0, 1, 2, 2, 2])), bool(rng.integers(2))
    size = hu.shape[axis]
    stop = int(size * rng.uniform(0.05, 0.4))
    beyond = torch.arange(size) >= size - stop if is_high else torch.arange(size) < stop
    beyond = beyond.reshape([-1 if a == axis else 1 for a in range(3)])
    return torch.where(beyond, -1024.0, hu), kidney & ~beyond
