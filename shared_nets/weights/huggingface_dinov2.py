"""Name map between Hugging Face's DINOv2 models, with or without registers, and ours.

Hugging Face keeps query, key and value apart; ours are the rows of one weight, in that order. Public files
say ``attention.attention.query``; a model in memory says ``attention.q_proj`` in recent versions. Both are
read, and the names of the files are written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from shared_nets.weights.conversion import Conversion, Dropped, Target, WeightsMismatch, convert_state_dict

_MODEL_PREFIX = re.compile(r"^(dinov2|dinov2_with_registers)\.")
_LAYER = re.compile(r"^encoder\.layer\.(\d+)\.(.+?)(\.weight|\.bias|)$")
_BLOCK = re.compile(r"^blocks\.(\d+)\.(.+?)(\.weight|\.bias|)$")

_OUTSIDE_LAYERS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_INSIDE_LAYERS = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_QKV = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
_NAMES_IN_MEMORY = {
    "attention.q_proj": _QKV[0],
    "attention.k_proj": _QKV[1],
    "attention.v_proj": _QKV[2],
    "attention.o_proj": "attention.output.dense",
}
_TO_OUTSIDE = {ours: theirs for theirs, ours in _OUTSIDE_LAYERS.items()}
_TO_INSIDE = {ours: theirs for theirs, ours in _INSIDE_LAYERS.items()}


def from_huggingface_dinov2(
    state_dict: Mapping[str, Any], *, expected: Mapping[str, tuple[int, ...]]
) -> Conversion:
    """Convert a ``Dinov2Model`` or ``Dinov2WithRegistersModel``: DINOv2, RAD-DINO, CXformer.

    Args:
        state_dict: Hugging Face's names and weights, from a file or from a model in memory.
        expected: shape for each of our names.

    Returns:
        Our weights, and the account; a classifier on top is dropped.

    Raises:
        WeightsMismatch: the weights are not exactly those of the network.
    """
    return convert_state_dict(state_dict, target_of=_target_of, expected=expected)


def to_huggingface_dinov2(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert our weights to the names of Hugging Face's files, for ``from_pretrained``.

    Args:
        state_dict: our names and weights.

    Returns:
        Hugging Face's names and weights, contiguous, same dtype.

    Raises:
        WeightsMismatch: a name has no counterpart there.
    """
    converted: dict[str, Tensor] = {}
    unknown = []
    for name, value in state_dict.items():
        block = _BLOCK.match(name)
        if name in _TO_OUTSIDE:
            converted[_TO_OUTSIDE[name]] = value.detach().clone()
        elif block and block[2] == "attn.qkv":
            for theirs, part in zip(_QKV, value.detach().chunk(3), strict=True):
                converted[f"encoder.layer.{block[1]}.{theirs}{block[3]}"] = part.clone()
        elif block and block[2] in _TO_INSIDE:
            converted[f"encoder.layer.{block[1]}.{_TO_INSIDE[block[2]]}{block[3]}"] = value.detach().clone()
        else:
            unknown.append(f"unexpected: {name}")
    if unknown:
        raise WeightsMismatch(unknown)
    return converted


def _target_of(name: str) -> Target | Dropped:
    if name.startswith("classifier."):
        return Dropped("classifier on top of the backbone")
    name = _MODEL_PREFIX.sub("", name)
    if name in _OUTSIDE_LAYERS:
        return Target(_OUTSIDE_LAYERS[name])
    layer = _LAYER.match(name)
    if layer is None:
        return Target(name)  # not a name of ours either, and so refused
    index, inner, leaf = layer.groups()
    inner = _NAMES_IN_MEMORY.get(inner, inner)
    if inner in _QKV:
        return Target(f"blocks.{index}.attn.qkv{leaf}", _QKV.index(inner), len(_QKV))
    return Target(f"blocks.{index}.{_INSIDE_LAYERS.get(inner, inner)}{leaf}")
