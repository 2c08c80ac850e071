"""Keep one odd batch from throwing a network off: bound the length of the gradient."""

from __future__ import annotations

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents


class ClipGradients:
    """Handler: shorten the gradient of all parameters together where it is too long.

    Args:
        network: whose parameters.
        max_norm: longest gradient, as Euclidean length.

    Raises:
        ValueError: ``max_norm`` is not above 0.
    """

    def __init__(self, network: torch.nn.Module, max_norm: float = 1.0) -> None:
        if not max_norm > 0:
            raise ValueError(f"max_norm must be above 0, got {max_norm}.")
        self.network = network
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _clip(self, engine: Engine) -> None:
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)
