"""Ask a network about flipped and turned views of an image, as a lesion has no top and no left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

_ROWS, _COLUMNS = 2, 3
#: Views by how many are asked for: axes that are flipped, and whether rows and columns are then exchanged.
VIEWS: dict[int, tuple[tuple[tuple[int, ...], bool], ...]] = {
    1: (((), False),),
    2: (((), False), ((_COLUMNS,), False)),
    4: (((), False), ((_COLUMNS,), False), ((_ROWS,), False), ((_ROWS, _COLUMNS), False)),
}
VIEWS[8] = (*VIEWS[4], *((axes, True) for axes, _ in VIEWS[4]))


class DihedralViewsInferer(Inferer):
    """Average the logits of the views of an image under the symmetries of a square.

    The mean of logits, not of probabilities, so that what follows (a temperature, a softmax) takes it for the
    network's answer; its softmax is the normalised geometric mean of the views' probabilities. With all eight
    views the answer is the same for an image and for its mirror image and quarter turns, up to rounding. A
    calibration holds for the number of views that it was fitted with.

    Args:
        num_views: 1, the image itself; 2, and its mirror image; 4, and both upside down; 8, and all of them
            turned by a quarter, which takes square images.
    """

    def __init__(self, num_views: int = 1) -> None:
        super().__init__()
        if num_views not in VIEWS:
            raise ValueError(f"num_views must be one of {sorted(VIEWS)}, got {num_views}.")
        self.num_views = num_views

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Run the network on every view, one after the other.

        Args:
            inputs: images, ``(B, C, H, W)``.
            network: gives logits, ``(B, K)``.
            args: passed to the network.
            kwargs: passed to the network.

        Returns:
            Mean logits, ``(B, K)``.

        Raises:
            ValueError: eight views of images that are not square.
        """
        if self.num_views > 4 and inputs.shape[_ROWS] != inputs.shape[_COLUMNS]:
            raise ValueError(f"inputs must be square for 8 views, got {tuple(inputs.shape[2:])}.")
        answers = []
        for axes, is_turned in VIEWS[self.num_views]:
            view = inputs.flip(axes) if axes else inputs
            answers.append(network(view.transpose(_ROWS, _COLUMNS) if is_turned else view, *args, **kwargs))
        return torch.stack(answers).mean(dim=0)  # (B, K)
