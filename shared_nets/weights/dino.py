"""Name maps for weights in the layout of the DINO and DINOv2 repositories.

There are plain backbones (``blocks.0.attn.qkv.weight``), training checkpoints whose teacher is the result
(``teacher`` → ``backbone.…``), and training checkpoints of which the student's backbone was kept
(``model`` → ``student.backbone.…``). Blocks may be chunked: ``blocks.<chunk>.<index>.…``, where the index
counts through all chunks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from shared_nets.weights.conversion import Conversion, Dropped, Target, convert_state_dict

_CHUNKED_BLOCK = re.compile(r"^blocks\.\d+\.(?=\d+\.)")
_HEAD = re.compile(r"^(head|dino_head|ibot_head)\.")
_TRAINING_ONLY = re.compile(
    r"^(student\.(dino_head|ibot_head)|teacher|dino_loss|ibot_patch_loss|koleo_loss)\."
)


def from_dino(checkpoint: Mapping[str, Any], *, expected: Mapping[str, tuple[int, ...]]) -> Conversion:
    """Convert a backbone of DINO or DINOv2, alone or as the teacher of a training checkpoint.

    Args:
        checkpoint: what the file holds.
        expected: shape for each of our names.

    Returns:
        Our weights, and the account; heads and everything beside the teacher are dropped.

    Raises:
        WeightsMismatch: the weights are not exactly those of the network.
    """
    state_dict, dropped = _branch(checkpoint, "teacher")

    def target_of(name: str) -> Target | Dropped:
        if _HEAD.match(name):
            return Dropped("projection head of the self-supervised training")
        return Target(_plain(name.removeprefix("backbone.")))

    return convert_state_dict(state_dict, target_of=target_of, expected=expected, dropped=dropped)


def from_dinov2_student(
    checkpoint: Mapping[str, Any], *, expected: Mapping[str, tuple[int, ...]]
) -> Conversion:
    """Convert the student's backbone of a DINOv2 training checkpoint, the layout of the AMOS weights.

    Args:
        checkpoint: what the file holds: ``{"model": {"student.backbone.…": …}}``.
        expected: shape for each of our names.

    Returns:
        Our weights, and the account; heads, teacher, loss centres and optimiser are dropped.

    Raises:
        WeightsMismatch: the weights are not exactly those of the network.
    """
    state_dict, dropped = _branch(checkpoint, "model")

    def target_of(name: str) -> Target | Dropped:
        if _TRAINING_ONLY.match(name):
            return Dropped("head, teacher or loss of the self-supervised training")
        return Target(_plain(name.removeprefix("student.backbone.")))

    return convert_state_dict(state_dict, target_of=target_of, expected=expected, dropped=dropped)


def _plain(name: str) -> str:
    return _CHUNKED_BLOCK.sub("blocks.", name)


def _branch(checkpoint: Mapping[str, Any], key: str) -> tuple[Mapping[str, Any], dict[str, str]]:
    branch = checkpoint.get(key)
    if not isinstance(branch, Mapping):
        return checkpoint, {}
    return branch, {other: f"beside {key!r} in the checkpoint" for other in checkpoint if other != key}
