"""From a point estimate to a predictive distribution, by the network's stored out-of-fold residuals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor


class PredictiveQuantilesInferer(SimpleInferer):
    """Append the quantiles of the predictive distribution to a regression network's first logit.

    The network carries ``log_residual_quantiles``, ``(Q,)`` ascending: quantiles of observed minus predicted,
    from people that the network had not seen when it predicted them. Adding them to a prediction gives the
    quantiles of what may be observed.

    Shape letters: B batch, Q quantiles, K further logits (stages).
    """

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Run the network.

        Args:
            inputs: images as the network takes them, ``(B, …)``.
            network: regression or multitask network; one without ``log_residual_quantiles`` (a classifier)
                passes its logits through.
            args: passed to the network.
            kwargs: passed to the network.

        Returns:
            ``(B, 1 + Q + K)``: the estimate, its quantiles ascending, then the further logits.
        """
        logits = super().__call__(inputs, network, *args, **kwargs)  # (B, 1 + K)
        residuals = getattr(network, "log_residual_quantiles", None)
        if residuals is None:
            return logits
        quantiles = logits[:, :1] + residuals.to(logits)[None]  # (B, Q)
        return torch.cat([logits[:, :1], quantiles, logits[:, 1:]], dim=1)  # (B, 1 + Q + K)
