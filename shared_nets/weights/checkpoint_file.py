"""Read public weights without running what a file says, and write ours as the same bytes each time."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a file of weights: safetensors by its suffix, otherwise torch's own format.

    Args:
        path: a ``.safetensors`` file, or one that ``torch.save`` wrote.

    Returns:
        What the file holds: names and weights, perhaps nested.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds other things than weights, or is damaged.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"path must be a file of weights, got {file}.")
    if file.suffix == ".safetensors":
        try:
            return dict(load_file(file))
        except SafetensorError as error:
            raise ValueError(
                f"path must be a safetensors file, got a damaged one: {file} ({error})."
            ) from error
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"path must hold tensors, numbers and text only, got {file}. It is damaged, or holds Python "
            "objects, which could run code when read. Where you trust it, save model.state_dict() alone, and "
            "convert that."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"path must be a file that torch.save wrote, got a damaged one: {file}.") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"path must hold a dictionary of weights, got a {type(content).__name__} in {file}.")
    return dict(content)


def encode_state_dict(state_dict: Mapping[str, Tensor]) -> bytes:
    """Write a bare state dict in torch's format, loadable with ``weights_only=True``.

    Args:
        state_dict: names and weights.

    Returns:
        The content of the file; equal weights in equal order give equal bytes.
    """
    buffer = io.BytesIO()  # a path would put its own name into the file
    torch.save(dict(state_dict), buffer)
    return buffer.getvalue()
