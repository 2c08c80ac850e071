"""Name map for public VMamba checkpoints: ``{"model": …, "model_ema": …, …}``, or the weights alone.

Files of the channel-first layout keep linear layers as they are or as 1 × 1 convolutions; both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from shared_nets.weights.conversion import Conversion, Dropped, Target, convert_state_dict

_LINEAR = (".op.in_proj.weight", ".op.out_proj.weight", ".mlp.fc1.weight", ".mlp.fc2.weight")


def from_vmamba(checkpoint: Mapping[str, Any], *, expected: Mapping[str, tuple[int, ...]]) -> Conversion:
    """Convert a VMamba of the layout that the tiny files of 2024 have.

    Args:
        checkpoint: what the file holds.
        expected: shape for each of our names.

    Returns:
        Our weights, and the account; optimiser, averaged weights and, for a network without a classifier, the
        classifier are dropped.

    Raises:
        WeightsMismatch: the weights are not exactly those of the network.
    """
    branch = checkpoint.get("model")
    state_dict, dropped = checkpoint, {}
    if isinstance(branch, Mapping):
        state_dict = branch
        dropped = {other: "beside 'model' in the checkpoint" for other in checkpoint if other != "model"}

    def target_of(name: str) -> Target | Dropped:
        if name.startswith("classifier.head.") and name not in expected:
            return Dropped("classifier on top of the trunk")
        return Target(name)

    plain = {name: _as_matrix(name, value) for name, value in state_dict.items()}
    return convert_state_dict(plain, target_of=target_of, expected=expected, dropped=dropped)


def _as_matrix(name: str, value: Any) -> Any:
    is_convolution = isinstance(value, Tensor) and value.ndim == 4 and value.shape[2:] == (1, 1)
    return value.flatten(1) if is_convolution and name.endswith(_LINEAR) else value
