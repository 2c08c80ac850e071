"""Random changes of dermoscopy images for training, as far as MONAI has none.

MONAI has the others: ``RandFlipd``, ``RandRotate90d``, ``RandAffined``, ``RandGaussianSmoothd``,
``RandGaussianNoised``, ``RandGridDistortiond``, ``RandCoarseDropoutd``. For whole batches of small images see
:mod:`shared_nets.transforms.dermoscopy_batch`.

Shape letters: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from shared_nets.transforms.colour_constancy import shades_of_gray_illuminant
from shared_nets.transforms.dermoscopy_artefacts import (
    add_vignette,
    downscale,
    draw_hairs,
    draw_ruler,
    jpeg_coded,
    relight,
)
from shared_nets.transforms.dermoscopy_batch import recoloured

Range = tuple[float, float]


class _RandomPhotograph(RandomizableTransform, MapTransform):
    """Changes ``(3, H, W)`` images, uint8 or floating 0 … 1, with a probability; all keys in the same way.

    Args:
        keys: keys of the images.
        prob: probability of a change.
        allow_missing_keys: leave data without a key alone.
    """

    def __init__(self, keys: KeysCollection, *, prob: float, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if not 0.0 <= prob <= 1.0:
            raise ValueError(f"prob must lie within 0 … 1, got {prob}.")
        RandomizableTransform.__init__(self, prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change a copy of ``data``."""
        d = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return d
        seed = int(self.R.randint(2**31 - 1))  # the same change for all keys, whatever their sizes
        for key in self.key_iterator(d):
            d[key] = self._changed(d[key], np.random.RandomState(seed))
        return d

    def _changed(self, photo: Tensor, rng: np.random.RandomState) -> Tensor:
        if photo.ndim != 3 or photo.shape[0] != 3:
            raise ValueError(f"images must be (3, H, W), got {tuple(photo.shape)}.")
        plain = photo.as_tensor() if isinstance(photo, MetaTensor) else photo
        is_whole = not plain.is_floating_point()
        image = plain.float() / 255.0 if is_whole else plain.float()
        out = self.change(image, rng).clamp(0.0, 1.0)
        out = (out * 255.0).round().to(plain.dtype) if is_whole else out.to(plain.dtype)
        return MetaTensor(out, meta=photo.meta) if isinstance(photo, MetaTensor) else out

    def change(self, image: Tensor, rng: np.random.RandomState) -> Tensor:
        """Change one image.

        Args:
            image: ``(3, H, W)`` float32, 0 … 1.
            rng: random numbers.

        Returns:
            The same shape; values outside 0 … 1 are clipped later.
        """
        raise NotImplementedError


class RandColourJitterd(_RandomPhotograph):
    """Change brightness, contrast, saturation and hue.

    Args:
        keys: keys of the images, ``(3, H, W)`` uint8 or floating 0 … 1.
        prob: probability of a change.
        brightness: intensities are multiplied by 1 ± up to this.
        contrast: likewise, the distance from the image's mean grey.
        saturation: likewise, the distance from grey.
        hue: largest turn of the hue, in full circles.
        allow_missing_keys: leave data without a key alone.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        prob: float = 0.75,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.02,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob=prob, allow_missing_keys=allow_missing_keys)
        self.limits = tuple(
            _share(name, value)
            for name, value in (
                ("brightness", brightness),
                ("contrast", contrast),
                ("saturation", saturation),
                ("hue", hue),
            )
        )

    def change(self, image: Tensor, rng: np.random.RandomState) -> Tensor:
        """See the base class."""
        draws = torch.as_tensor(rng.uniform(-1.0, 1.0, 4) * self.limits, dtype=torch.float32)[:, None]
        factors = 1.0 + draws[:3]
        return recoloured(
            image[None], brightness=factors[0], contrast=factors[1], saturation=factors[2], hue=draws[3]
        )[0]


class RandIlluminantd(_RandomPhotograph):
    """Change the colour of the light, at times after taking the present one out by Shades of Gray.

    Args:
        keys: keys of the images, ``(3, H, W)`` uint8 or floating 0 … 1.
        prob: probability of a change.
        max_gain: each channel is multiplied by 1 ± up to this.
        correct_prob: probability that the light is made white before, which alone is a change, too.
        allow_missing_keys: leave data without a key alone.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        prob: float = 0.3,
        max_gain: float = 0.1,
        correct_prob: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob=prob, allow_missing_keys=allow_missing_keys)
        self.max_gain, self.correct_prob = _share("max_gain", max_gain), _share("correct_prob", correct_prob)

    def change(self, image: Tensor, rng: np.random.RandomState) -> Tensor:
        """See the base class."""
        gains = 1.0 + rng.uniform(-self.max_gain, self.max_gain, 3)
        if rng.uniform() < self.correct_prob:
            gains = gains / shades_of_gray_illuminant((image * 255.0).round().to(torch.uint8)).numpy()
        return relight(image, gains)


class RandHaird(_RandomPhotograph):
    """Lay dark hairs over the image.

    Args:
        keys: keys of the images, ``(3, H, W)`` uint8 or floating 0 … 1.
        prob: probability of a change.
        max_hairs: largest number; at least one is drawn.
        width: range of the hairs' width, as a share of the long side.
        allow_missing_keys: leave data without a key alone.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        prob: float = 0.3,
        max_hairs: int = 12,
        width: Range = (0.003, 0.012),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob=prob, allow_missing_keys=allow_missing_keys)
        if max_hairs < 1:
            raise ValueError(f"max_hairs must be at least 1, got {max_hairs}.")
        self.max_hairs, self.width = max_hairs, _range("width", width)

    def change(self, image: Tensor, rng: np.random.RandomState) -> Tensor:
        """See the base class."""
        number, width = int(rng.randint(1, self.max_hairs + 1)), float(rng.uniform(*self.width))
        return draw_hairs(image, num_hairs=number, width=width, rng=rng)


class RandVignetted(_RandomPhotograph):
    """Darken the corners as the tube of a dermatoscope does.

    Args:
        keys: keys of the images, ``(3, H, W)`` uint8 or floating 0 … 1.
        prob: probability of a change.
        radius: range of the bright circle's radius, as a share of half the diagonal.
        softness: range of its edge's width, likewise.
        allow_missing_keys: leave data without a key alone.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        prob: float = 0.2,
        radius: Range = (0.7, 1.0),
        softness: Range = (0.02, 0.3),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob=prob, allow_missing_keys=allow_missing_keys)
        self.radius, self.softness = _range("radius", radius), _range("softness", softness)

    def change(self, image: Tensor, rng: np.random.RandomState) -> Tensor:
        """See the base class."""
        return add_vignette(image, radius=rng.uniform(*self.radius), softness=rng.uniform(*self.softness))


class RandRulerd(_RandomPhotograph):
    """Lay a scale along one edge of the image.

    Args:
        keys: keys of the images, ``(3, H, W)`` uint8 or floating 0 … 1.
        prob: probability of a change.
        allow_missing_keys: leave data without a key alone.
    """

    def __init__(
        self, keys: KeysCollection = "image", *, prob: float = 0.1, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, prob=prob, allow_missing_keys=allow_missing_keys)

    def change(self, image: Tensor, rng: np.random.RandomState) -> Tensor:
        """See the base class."""
        return draw_ruler(image, rng=rng)


class RandCoarseCodingd(_RandomPhotograph):
    """Lose detail as small files do: by fewer pixels, or by JPEG.

    Args:
        keys: keys of the images, ``(3, H, W)`` uint8 or floating 0 … 1.
        prob: probability of a change, one of the two.
        share: range of the sides that are kept in between.
        quality: range of the JPEG's quality, 1 … 95.
        allow_missing_keys: leave data without a key alone.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        prob: float = 0.2,
        share: Range = (0.5, 0.9),
        quality: tuple[int, int] = (30, 90),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob=prob, allow_missing_keys=allow_missing_keys)
        if not 1 <= quality[0] <= quality[1] <= 95:
            raise ValueError(f"quality must rise within 1 … 95, got {quality}.")
        self.share, self.quality = _range("share", share), quality

    def change(self, image: Tensor, rng: np.random.RandomState) -> Tensor:
        """See the base class."""
        if rng.uniform() < 0.5:
            return downscale(image, float(rng.uniform(*self.share)))
        return jpeg_coded(image, int(rng.randint(self.quality[0], self.quality[1] + 1)))


def _share(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must lie within 0 … 1, got {value}.")
    return float(value)


def _range(name: str, values: Range) -> Range:
    if len(values) != 2 or not 0.0 < values[0] <= values[1]:
        raise ValueError(f"{name} must be two positive numbers that rise, got {values}.")
    return float(values[0]), float(values[1])
