"""Take the colour of the light out of a dermoscopy image: Shades of Gray.

Shape letters: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

BLACK, CLIPPED = 12, 254  # pixels not above, or not below in every channel, tell nothing of the light
_MIN_SHARE = 0.01  # of the pixels must tell of the light


def shades_of_gray_illuminant(photo: Tensor, *, power: float = 6.0) -> Tensor:
    """Estimate the colour of the light from the Minkowski mean of each channel.

    Pixels of the black surround of a dermatoscope and clipped pixels are left out. Values are taken as they
    are stored (sRGB), as work on dermoscopy does.

    Args:
        photo: ``(3, H, W)`` uint8.
        power: Minkowski norm p; 1 is the grey world, large values the brightest patch.

    Returns:
        ``(3,)`` float32 of length √3; white light, also where too few pixels tell, is (1, 1, 1).

    Raises:
        ValueError: the photograph has another shape or type, or the power is below 1.

    Reference:
        Finlayson, Trezzi: Shades of Gray and Colour Constancy, Color and Imaging Conference 2004, equation 7,
        who find p = 6 best.
    """
    if photo.ndim != 3 or photo.shape[0] != 3 or photo.dtype != torch.uint8:
        raise ValueError(f"photo must be (3, H, W) uint8, got {tuple(photo.shape)} {photo.dtype}.")
    if power < 1:
        raise ValueError(f"power must be at least 1, got {power}.")
    highest = photo.amax(dim=0)  # (H, W)
    tells = (highest > BLACK) & (highest < CLIPPED)
    if int(tells.sum()) <= _MIN_SHARE * tells.numel():
        return torch.ones(3)
    # a channel has 256 values at most, so their counts say all, and sum in any order to the same bits
    counts = torch.stack([torch.bincount(channel[tells].long(), minlength=256) for channel in photo])
    levels = (torch.arange(256, dtype=torch.float64) / 255.0) ** power
    means = (counts.double() @ levels / tells.sum()) ** (1.0 / power)  # (3,)
    means = means.clamp_min(1e-3)  # a channel without any light stays without
    return (means / means.norm() * 3.0**0.5).float()


def shades_of_gray(photo: Tensor, *, power: float = 6.0) -> Tensor:
    """Show an image as it would look under white light.

    Args:
        photo: ``(3, H, W)`` uint8.
        power: see :func:`shades_of_gray_illuminant`.

    Returns:
        ``(3, H, W)`` uint8; what becomes brighter than white is clipped.
    """
    light = shades_of_gray_illuminant(photo, power=power)
    table = torch.arange(256) / light[:, None]  # (3, 256)
    table = table.round().clamp(0, 255).to(torch.uint8)
    return torch.stack([row[channel.long()] for row, channel in zip(table, photo, strict=True)])


class ShadesOfGrayd(MapTransform):
    """Replace a photograph by :func:`shades_of_gray` of it, and keep the original for people.

    Writes ``photo`` (the photograph before), unless it is there already.

    Args:
        keys: key of the photograph, ``(3, H, W)`` uint8.
        power: Minkowski norm.
        photo_key: where the photograph is kept; ``None`` to keep none.
        allow_missing_keys: leave data without the key alone.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        power: float = 6.0,
        photo_key: str | None = "photo",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if power < 1:
            raise ValueError(f"power must be at least 1, got {power}.")
        self.power, self.photo_key = power, photo_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change a copy of ``data``."""
        d = dict(data)
        for key in self.key_iterator(d):
            photo = d[key]
            if self.photo_key is not None:
                d.setdefault(self.photo_key, photo)
            plain = photo.as_tensor() if isinstance(photo, MetaTensor) else photo
            changed = shades_of_gray(plain, power=self.power)
            d[key] = MetaTensor(changed, meta=photo.meta) if isinstance(photo, MetaTensor) else changed
        return d
