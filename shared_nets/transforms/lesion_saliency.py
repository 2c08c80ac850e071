"""What else the network says of a photograph once it has answered: its embedding, and where it looked.

Shape letters: B batch, K classes, S side of the network's image, H, W rows and columns of the photograph, E
embedding.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.networks.utils import eval_mode
from monai.transforms import MapTransform
from monai.visualize import OcclusionSensitivity
from torch import Tensor, nn

_BORDER_SHARE = 8  # the skin around a lesion is looked for in the outer eighth of the image


class LesionEmbeddingd(MapTransform):
    """Write what the network sees in an image before it decides, for the check of what it was trained on.

    Args:
        keys: key of the network's image, ``(3, S, S)``.
        network: has ``forward_features(image, metadata=None) -> (B, E)``.
        metadata_key: key of the metadata ``(F,)``; an item without it is seen by the image alone.
        output_key: where to write the embedding, ``(E,)`` float32.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        network: nn.Module,
        metadata_key: str = "metadata",
        output_key: str = "embedding",
    ) -> None:
        super().__init__(keys)
        self.network = network
        self.metadata_key = metadata_key
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add ``output_key`` to a copy of ``data``."""
        d = dict(data)
        image, metadata = _inputs(d, self.first_key(d), self.metadata_key, self.network)
        with eval_mode(self.network):
            features = self.network.forward_features(image, metadata=metadata)  # type: ignore[operator]
        d[self.output_key] = features[0].detach().cpu().float()  # (E,)
        return d


class LesionSaliencyd(MapTransform):
    """Write where the most probable class is seen: how much its probability falls when a place is covered.

    Every place of the image is covered in turn by the colour of the surrounding skin, and the network is
    asked again (MONAI's :class:`~monai.visualize.OcclusionSensitivity`). That asks nothing of the network
    but its answer, which suits one whose tokens are scanned in an order, and draws no random numbers.
    Places that speak against the class count as 0.

    Args:
        keys: key of the prediction, logits ``(K,)``; K = 1 stands for two classes.
        network: the network, ``forward(image, metadata=None) -> (B, K)``.
        image_key: key of its image, ``(3, S, S)``.
        metadata_key: key of the metadata ``(F,)``; an item without it is seen by the image alone.
        photo_key: key of the photograph, ``(3, H, W)``, of which the image shows the whole frame.
        temperature: of the calibration, so that the fall is one of the probability that is reported.
        mask_share: side of the covered place, as a share of the side of the image.
        overlap: of neighbouring places, as a share of their side.
        batch_size: covered images that the network sees at once.
        output_key: where to write the map, ``(H, W)`` float32, fall of the probability, 0 to 1.

    Reference:
        Zeiler, Fergus. Visualizing and Understanding Convolutional Networks. 2014. Section 4.2.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        *,
        network: nn.Module,
        image_key: str = "image",
        metadata_key: str = "metadata",
        photo_key: str = "photo",
        temperature: float = 1.0,
        mask_share: float = 0.25,
        overlap: float = 0.5,
        batch_size: int = 16,
        output_key: str = "saliency",
    ) -> None:
        super().__init__(keys)
        if not 0.0 < mask_share < 1.0:
            raise ValueError(f"mask_share must lie between 0 and 1, got {mask_share}.")
        self.network = network
        self.image_key, self.metadata_key, self.photo_key = image_key, metadata_key, photo_key
        self.temperature, self.mask_share, self.overlap = temperature, mask_share, overlap
        self.batch_size = batch_size
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add ``output_key`` to a copy of ``data``."""
        d = dict(data)
        image, metadata = _inputs(d, self.image_key, self.metadata_key, self.network)
        shown = int(_probabilities(torch.as_tensor(d[self.first_key(d)])[None], 1.0).argmax())
        ground = skin_colour(image)  # (1, 3, 1, 1)
        answers = _AnswerAbove(self.network, ground, metadata, self.temperature)
        answers.training = self.network.training  # eval_mode puts both back to what answers was
        occlusion = OcclusionSensitivity(
            answers,
            mask_size=[max(1, round(self.mask_share * side)) for side in image.shape[2:]],
            n_batch=self.batch_size,
            verbose=False,
            mode=0.0,
            overlap=self.overlap,
            activate=False,
        )
        with eval_mode(answers), torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Using a non-tuple sequence")  # inside MONAI
            before = answers(image - ground)[0, shown]
            covered, _ = occlusion(image - ground)  # (1, K, S, S)
            fall = (before - covered.as_subclass(Tensor)[:, shown : shown + 1]).clamp(
                0.0, 1.0
            )  # (1, 1, S, S)
            size = tuple(d[self.photo_key].shape[-2:])
            whole = nn.functional.interpolate(fall.float(), size=size, mode="bilinear", align_corners=False)
        d[self.output_key] = whole[0, 0].cpu()  # (H, W)
        return d


def skin_colour(image: Tensor) -> Tensor:
    """Find the colour around a lesion: the median of the image's border.

    Args:
        image: one image, ``(1, C, H, W)``.

    Returns:
        ``(1, C, 1, 1)``.
    """
    height, width = image.shape[2:]
    rows, columns = (max(1, side // _BORDER_SHARE) for side in (height, width))
    inside = torch.zeros(height, width, dtype=torch.bool, device=image.device)
    inside[rows : height - rows, columns : width - columns] = True
    return image[:, :, ~inside].median(dim=2).values[:, :, None, None]


class _AnswerAbove(nn.Module):
    """Probabilities of images that are given as what they have above a ground, so that 0 covers a place."""

    def __init__(
        self, network: nn.Module, ground: Tensor, metadata: Tensor | None, temperature: float
    ) -> None:
        super().__init__()
        self.network, self.ground, self.metadata, self.temperature = network, ground, metadata, temperature

    def forward(self, above: Tensor) -> Tensor:
        metadata = None if self.metadata is None else self.metadata.expand(len(above), -1)  # (B, F)
        logits = self.network(above.as_subclass(Tensor) + self.ground, metadata=metadata)  # (B, K)
        return _probabilities(logits, self.temperature)  # (B, K)


def _probabilities(logits: Tensor, temperature: float) -> Tensor:
    """As :func:`shared_nets.transforms.lesion_calibration.calibrated_probabilities`, for tensors."""
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)  # (B, 2)
    return torch.softmax(logits.double() / temperature, dim=1)


def _inputs(
    data: Mapping[Hashable, Any], image_key: str, metadata_key: str, network: nn.Module
) -> tuple[Tensor, Tensor | None]:
    """Give image ``(1, 3, S, S)`` and metadata ``(1, F)``, as plain tensors where the network is."""
    device = next(network.parameters(), torch.empty(0)).device
    image = torch.as_tensor(data[image_key]).as_subclass(Tensor)[None].to(device)
    given = data.get(metadata_key)
    metadata = None if given is None else torch.as_tensor(given).as_subclass(Tensor)[None].to(device)
    return image, metadata
