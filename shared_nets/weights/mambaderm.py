"""Name map for checkpoints that the published training of MambaDerm v1 writes.

They hold ``{"model_state_dict": …, "optimizer_state_dict": …, …}``; the light size nests everything below
``model.``. A network trained on images alone is taken whole. One trained with metadata reads them through a
single vector, where ours has a token for every value, so that its attention and head mean nothing here: of
such a file the trunk is taken, as a start for training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from shared_nets.weights.conversion import (
    Conversion,
    Dropped,
    Target,
    WeightsMismatch,
    convert_state_dict,
)

_TABULAR = "tabular_encoder."
_DROPPED_WITH_TABULAR = (
    (_TABULAR, "encodes metadata as one vector; ours has a token for every value"),
    ("fusion.cross_attn.", "attends to one vector, so that its weights are always 1"),
    ("classifier.", "starts from image and metadata vector together"),
)
_STEP_PROJECTION = re.compile(r"^mamba_layers\.0\.ssm_block\.ssm_forward\.dt_proj\.weight$")


def from_mambaderm_v1(
    checkpoint: Mapping[str, Any], *, expected: Mapping[str, tuple[int, ...]]
) -> Conversion:
    """Convert a checkpoint of MambaDerm v1 for a network on images alone.

    Args:
        checkpoint: what the file holds, or the weights alone.
        expected: shape for each of our names, of a network without metadata.

    Returns:
        Our weights, and the account. From a file with metadata the classifier is left out of both: load it
        with ``strict=False`` and train.

    Raises:
        WeightsMismatch: the weights are not exactly those of the network, among others because the file was
            made by the published fallback scan, whose time steps have rank 1.
    """
    branch = checkpoint.get("model_state_dict")
    state_dict, left_out = checkpoint, {}
    if isinstance(branch, Mapping):
        state_dict = branch
        left_out = {
            other: "beside 'model_state_dict' in the checkpoint"
            for other in checkpoint
            if other != "model_state_dict"
        }
    names = {name: name.removeprefix("model.") for name in state_dict}
    _refuse_fallback({names[name]: value for name, value in state_dict.items()}, expected)
    with_metadata = any(name.startswith(_TABULAR) for name in names.values())
    wanted = {
        name: shape
        for name, shape in expected.items()
        if not (with_metadata and name.startswith("classifier."))
    }

    def target_of(name: str) -> Target | Dropped:
        for prefix, reason in _DROPPED_WITH_TABULAR if with_metadata else ():
            if names[name].startswith(prefix):
                return Dropped(reason)
        return Target(names[name])

    return convert_state_dict(state_dict, target_of=target_of, expected=wanted, dropped=left_out)


def _refuse_fallback(state_dict: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Say why no weight of the fallback scan fits, before every shape is complained of."""
    name = next((name for name in expected if _STEP_PROJECTION.match(name)), None)
    value = state_dict.get(name or "")
    if name is None or not isinstance(value, Tensor) or value.ndim != 2:
        return
    rank, wanted = value.shape[1], expected[name][1]
    if rank == 1 != wanted:
        raise WeightsMismatch(
            [
                f"rank of time steps: {rank} in the file and {wanted} in the network. The file was made by "
                "the fallback scan of the published code, which is another model; only files made with "
                "mamba-ssm (rank = width / 16) can be converted"
            ]
        )
