"""Let a lesion network that reads metadata start from one that was trained on photographs alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from shared_nets.weights.conversion import WeightsMismatch

_METADATA_PARTS = ("tabular_encoder.", "fusion.cross_attn.")
_FIRST_LAYER = "classifier.0.weight"
_LAST_LAYER = ("classifier.8.weight", "classifier.8.bias")
_ATTENTION_OUTPUT = ("fusion.cross_attn.out_proj.weight", "fusion.cross_attn.out_proj.bias")


def start_from_image_weights(network: nn.Module, state_dict: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Copy the weights of an image network into one that also reads metadata, or into another of its kind.

    The network then says of an image what the other one said, whatever the metadata: what they would add
    starts at zero (the output of the attention, and the classifier's columns for the class token), and is
    learned from there. Where the number of classes differs, the last layer starts at random.

    Args:
        network: a :class:`shared_nets.nets.lesion_network.LesionNetwork`, changed in place.
        state_dict: of a network of the same size without metadata.

    Returns:
        Names of the weights that start at random or at zero.

    Raises:
        WeightsMismatch: the networks differ in more than metadata and classes; nothing is changed then.
    """
    started: dict[str, Tensor] = {}
    problems: list[str] = []
    ours = network.state_dict()
    problems += [f"unexpected: {name}" for name in state_dict if name not in ours]
    fresh: list[str] = []
    for name, value in ours.items():
        given = state_dict.get(name)
        if name.startswith(_METADATA_PARTS):
            fresh.append(name)
            if given is not None:
                problems.append(f"of metadata, which an image network has not: {name}")
            elif name in _ATTENTION_OUTPUT:
                started[name] = torch.zeros_like(value)
        elif given is None:
            problems.append(f"missing: {name}")
        elif given.shape == value.shape:
            started[name] = given
        elif name == _FIRST_LAYER and value.shape == (given.shape[0], 2 * given.shape[1]):
            started[name] = torch.cat([given, torch.zeros_like(given)], dim=1)  # (E, 2 E)
        elif name in _LAST_LAYER and value.shape[1:] == given.shape[1:]:
            fresh.append(name)
        else:
            problems.append(
                f"shape: {name} is {tuple(given.shape)} in the file and {tuple(value.shape)} in the network"
            )
    if problems:
        raise WeightsMismatch(problems)
    network.load_state_dict({**ours, **started})
    return tuple(fresh)
