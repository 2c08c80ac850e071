"""Turn chosen slices into network input: windowed CT inside the kidneys, plain CT, or the mask itself.

The picture is always the same way round, whatever the axes of the volume: rows run from front to back,
columns from the patient's right to the left (radiological convention). In-plane sampling is one pass: each
output pixel is the mean over a square as wide as the larger of the two pixel sizes, which is exact area
averaging when the picture gets smaller and linear interpolation when it gets larger. What lies outside the
image is background.

Shape letters: S slices; R, C rows and columns of a displayed slice; P side of the network's picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shared_nets.transforms.kidney_mask import CYST, KIDNEY, TUMOUR
from shared_nets.transforms.kidney_slices import VolumeAxes

CONTENTS = ("masked_ct", "ct", "mask")
#: Windows that models were trained with, HU.
WINDOW_AMOS_HU = (-1024.0, 600.0)
WINDOW_ABDOMEN_HU = (-160.0, 240.0)

Box = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True)
class SliceContent:
    """What a pixel of the network's picture holds.

    The value is 0 at the lower end of the window and 1 at the upper (a label's own value in ``mask``), then
    ``(value - subtrahend) / divisor``.

    Args:
        content: ``masked_ct`` (CT where there is kidney, else the lower end of the window), ``ct``, or
            ``mask``.
        window_hu: lower and upper end of the window, HU; values beyond are clipped.
        tumour_value: value of tumour in ``mask``, where kidney is 1 and background 0.
        cyst_value: value of cyst in ``mask``.
        subtrahend: subtracted last.
        divisor: then divided by.

    Raises:
        ValueError: an argument is out of range.
    """

    content: str = "masked_ct"
    window_hu: tuple[float, float] = WINDOW_AMOS_HU
    tumour_value: float = 1.0
    cyst_value: float = 1.0
    subtrahend: float = 0.0
    divisor: float = 1.0

    def __post_init__(self) -> None:
        if self.content not in CONTENTS:
            raise ValueError(f"content must be one of {CONTENTS}, got {self.content!r}.")
        if len(self.window_hu) != 2 or not self.window_hu[0] < self.window_hu[1]:
            raise ValueError(f"window_hu must be (low, high) with low < high, got {self.window_hu}.")
        if self.divisor == 0:
            raise ValueError(f"divisor must not be 0, got {self.divisor}.")

    @property
    def needs_ct(self) -> bool:
        """Whether the content cannot be made from the mask alone."""
        return self.content != "mask"


@dataclass(frozen=True, kw_only=True)
class PictureGrid:
    """Where the pixels of the network's square picture lie on a displayed slice, in slice pixels.

    Args:
        size: pixels along each side, P.
        row_start: centre of the first picture row; the first slice row is 0. Likewise ``column_start``.
        row_step: slice rows per picture row; likewise ``column_step``.
        cuts_kidneys: whether some kidney lies outside the picture.
    """

    size: int
    row_start: float
    row_step: float
    column_start: float
    column_step: float
    cuts_kidneys: bool


def displayed(volume: npt.NDArray, axes: VolumeAxes) -> npt.NDArray:
    """Show a volume as a stack of axial slices in radiological orientation, without a copy.

    Args:
        volume: voxels, three axes in any order.
        axes: how they lie in the body.

    Returns:
        A view ``(S, R, C)``: slices in the order of the volume (not of the body), rows front to back, columns
        right to left of the patient.
    """
    stack = volume.transpose(axes.superior, axes.anterior, axes.right)  # (S, R, C)
    rows = slice(None, None, -1) if axes.anterior_grows else slice(None)
    columns = slice(None, None, -1) if axes.right_grows else slice(None)
    return stack[:, rows, columns]


def picture_grid(
    *,
    img_size: int,
    slice_shape: tuple[int, int],
    pixel_mm: tuple[float, float],
    kidney_box: Box,
    pixel_size_mm: float | None = None,
    crop_margin_mm: float | None = None,
) -> PictureGrid:
    """Lay a square picture over the displayed slices; millimetres are the same along rows and columns.

    Args:
        img_size: pixels along each side of the picture, P.
        slice_shape: rows and columns of a displayed slice.
        pixel_mm: their distance, mm.
        kidney_box: rows and columns that hold all kidneys of the study.
        pixel_size_mm: if given, the picture's pixel size; the picture is centred on the kidneys.
        crop_margin_mm: if given, the picture shows the kidneys and this much around them. With neither, it
            shows the whole field of view.

    Returns:
        The grid.

    Raises:
        ValueError: an argument is out of range, or both ways of cropping are asked for.
    """
    if img_size < 1:
        raise ValueError(f"img_size must be at least 1, got {img_size}.")
    if pixel_size_mm is not None and crop_margin_mm is not None:
        raise ValueError("pixel_size_mm and crop_margin_mm must not both be given.")
    if pixel_size_mm is not None and pixel_size_mm <= 0:
        raise ValueError(f"pixel_size_mm must be positive, got {pixel_size_mm}.")
    if crop_margin_mm is not None and crop_margin_mm < 0:
        raise ValueError(f"crop_margin_mm must be 0 or more, got {crop_margin_mm}.")
    kidney_mm = [(s.stop - s.start) * mm for s, mm in zip(kidney_box, pixel_mm, strict=True)]
    if pixel_size_mm is None and crop_margin_mm is None:
        side_mm = max(n * mm for n, mm in zip(slice_shape, pixel_mm, strict=True))
        centre = [(n - 1) / 2.0 for n in slice_shape]
    else:
        side_mm = max(kidney_mm) + 2.0 * crop_margin_mm if crop_margin_mm is not None else 0.0
        side_mm = img_size * pixel_size_mm if pixel_size_mm is not None else side_mm
        centre = [(s.start + s.stop - 1) / 2.0 for s in kidney_box]
    steps = [side_mm / img_size / mm for mm in pixel_mm]
    starts = [c - step * (img_size - 1) / 2.0 for c, step in zip(centre, steps, strict=True)]
    return PictureGrid(
        size=img_size,
        row_start=starts[0],
        row_step=steps[0],
        column_start=starts[1],
        column_step=steps[1],
        cuts_kidneys=max(kidney_mm) > side_mm * (1.0 + 1e-9),
    )


def slice_pictures(
    labels: npt.NDArray[np.uint8],
    hu: npt.NDArray | None,
    *,
    kidney_box: Box,
    grid: PictureGrid,
    what: SliceContent,
) -> Tensor:
    """Make the network's pictures of some slices.

    Args:
        labels: canonical labels of the displayed slices inside ``kidney_box``, ``(S, rows, columns)``.
        hu: the whole displayed slices, ``(S, R, C)``, HU of any number type; ``None`` for ``content="mask"``.
        kidney_box: rows and columns of ``labels`` on the displayed slice.
        grid: where the picture's pixels lie.
        what: what they hold.

    Returns:
        ``(S, P, P)`` float32.

    Raises:
        ValueError: the content needs a CT and there is none.
    """
    if what.needs_ct and hu is None:
        raise ValueError(f"hu must be given for content {what.content!r}, got None.")
    box = kidney_box
    if what.content == "ct" and hu is not None:
        box = (slice(0, hu.shape[1]), slice(0, hu.shape[2]))
    box, rows, columns = _sampling(box, grid)
    inner: Box = (
        slice(box[0].start - kidney_box[0].start, box[0].stop - kidney_box[0].start),
        slice(box[1].start - kidney_box[1].start, box[1].stop - kidney_box[1].start),
    )
    low, high = what.window_hu
    values = torch.zeros(256)
    values[KIDNEY], values[TUMOUR], values[CYST] = 1.0, what.tumour_value, what.cyst_value
    pictures = torch.empty(len(labels), grid.size, grid.size)  # (S, P, P)
    for number in range(len(labels)):  # one slice at a time stays in the cache
        if what.content == "mask":
            source = values[_tensor(labels[number][inner]).long()]
        else:
            source = _tensor(hu[number][box]).to(torch.float32)  # type: ignore[index]
            source = source.clamp(low, high).sub_(low).div_(high - low)
            if what.content == "masked_ct":
                source.mul_(_tensor(labels[number][inner]) != 0)
        torch.matmul(rows @ source, columns, out=pictures[number])
    return pictures.sub_(what.subtrahend).div_(what.divisor)


def _sampling(box: Box, grid: PictureGrid) -> tuple[Box, Tensor, Tensor]:
    """Cut a box to what the picture can see, and give the two factors of the sampling."""
    rows = _mean_weights(box[0], grid.row_start, grid.row_step, grid.size)  # (P, rows)
    columns = _mean_weights(box[1], grid.column_start, grid.column_step, grid.size)  # (P, columns)
    seen = [np.flatnonzero(weights.any(axis=0)) for weights in (rows, columns)]
    (r0, r1), (c0, c1) = ((int(u[0]), int(u[-1]) + 1) if u.size else (0, 1) for u in seen)
    cut = (slice(box[0].start + r0, box[0].start + r1), slice(box[1].start + c0, box[1].start + c1))
    return (
        cut,
        torch.from_numpy(np.ascontiguousarray(rows[:, r0:r1])),
        torch.from_numpy(np.ascontiguousarray(columns[:, c0:c1].T)),
    )


def _mean_weights(extent: slice, start: float, step: float, size: int) -> npt.NDArray[np.float32]:
    """Share of each source pixel in the mean that makes each picture pixel; ``(size, source)``."""
    width = max(step, 1.0)
    centres = start + step * np.arange(size)[:, None]  # (P, 1)
    pixels = np.arange(extent.start, extent.stop)[None, :]
    overlap = np.minimum(centres + width / 2.0, pixels + 0.5) - np.maximum(
        centres - width / 2.0, pixels - 0.5
    )
    return (overlap.clip(min=0.0) / width).astype(np.float32)


def _tensor(array: npt.NDArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
