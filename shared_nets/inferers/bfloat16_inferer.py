"""Run a network in bfloat16 where the processor computes it faster, with float32 in and out."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor


class BFloat16Inferer(Inferer):
    """Call the network under autocast to bfloat16.

    MONAI's own ``amp`` of trainers and evaluators is for CUDA only; bfloat16 has the range of float32 and
    needs no scaling of the loss.

    Args:
        is_enabled: ``False`` computes in float32.
    """

    def __init__(self, is_enabled: bool = True) -> None:
        super().__init__()
        self.is_enabled = is_enabled

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Give ``network(inputs, …)`` as float32."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.is_enabled):
            return network(inputs, *args, **kwargs).float()
