"""From a photograph of any size to the small square picture that a network sees.

Shape letters: H rows, W columns of the photograph; S side of the network's picture.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

#: Of ImageNet's photographs, as most published weights expect them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def network_image(
    photo: Tensor,
    *,
    img_size: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """Resample a whole photograph to a square, as the images of public data sets were.

    The frame is squashed, not cropped: a lesion at the border stays in. The filter is the cubic one with
    antialiasing, in whole numbers of 8 bit, as Pillow's ``BICUBIC`` does it.

    Args:
        photo: ``(3, H, W)`` uint8.
        img_size: side of the picture, S.
        mean: subtracted from each channel after scaling to 0 … 1.
        std: then divided by, for each channel.

    Returns:
        ``(3, S, S)`` float32.

    Raises:
        ValueError: the photograph has another shape or type.
    """
    if photo.ndim != 3 or photo.shape[0] != 3 or photo.dtype != torch.uint8 or photo.numel() == 0:
        raise ValueError(f"photo must be (3, H, W) uint8, got {tuple(photo.shape)} {photo.dtype}.")
    if photo.shape[1:] != (img_size, img_size):
        photo = F.interpolate(photo[None], size=(img_size, img_size), mode="bicubic", antialias=True)[0]
    scaled = photo.float() / 255.0  # (3, S, S)
    centre, spread = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (mean, std))
    return (scaled - centre) / spread


class ToNetworkImaged(MapTransform):
    """Make the network's picture of a photograph, and keep the photograph for people.

    Writes ``photo`` (the photograph, uint8 with its meta data), unless an earlier transform that changed the
    image kept it there already, and replaces ``image`` by :func:`network_image` of it.

    Args:
        keys: key of the photograph, ``(3, H, W)`` uint8.
        img_size: side of the picture, S.
        mean: see :func:`network_image`; also ``std``.
        std: of each channel.
        photo_key: where the photograph is kept.
        allow_missing_keys: leave data without the key alone.

    Raises:
        ValueError: a size is not positive, or mean and std are not three numbers each.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        img_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        photo_key: str = "photo",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if img_size < 1:
            raise ValueError(f"img_size must be positive, got {img_size}.")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean and std must be three numbers each, std positive, got {mean} and {std}.")
        self.img_size, self.mean, self.std, self.photo_key = img_size, tuple(mean), tuple(std), photo_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the keys to a copy of ``data``."""
        d = dict(data)
        for key in self.key_iterator(d):
            photo = torch.as_tensor(d[key])
            d.setdefault(self.photo_key, photo)
            plain = photo.as_tensor() if isinstance(photo, MetaTensor) else photo
            d[key] = network_image(plain, img_size=self.img_size, mean=self.mean, std=self.std)
        return d
