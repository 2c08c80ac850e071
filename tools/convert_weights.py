"""Convert public weights to ours, and account for every name.

``python -m tools.convert_weights --source dinov2 --input FILE --output FILE [--dry-run]``
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from shared_nets.nets.mambaderm import mambaderm, mambaderm_lite
from shared_nets.nets.vision_transformer import (
    vit_base_patch14,
    vit_base_patch14_reg4,
    vit_base_patch16_amos,
    vit_base_patch16_dino,
    vit_small_patch14_reg4,
)
from shared_nets.nets.vmamba import vmamba_tiny, vmamba_tiny_s2l5
from shared_nets.refusals import EXIT_STATUS_REFUSED
from shared_nets.weights.checkpoint_file import encode_state_dict, read_checkpoint
from shared_nets.weights.conversion import Conversion, WeightsMismatch, expected_shapes
from shared_nets.weights.dino import from_dino, from_dinov2_student
from shared_nets.weights.huggingface_dinov2 import from_huggingface_dinov2
from shared_nets.weights.mambaderm import from_mambaderm_v1
from shared_nets.weights.vmamba import from_vmamba
from shared_nets.writers.atomic_file import write_atomically


class Source(NamedTuple):
    """A kind of public file: how its names are mapped, and the networks it may be for."""

    convert: Callable[..., Conversion]
    networks: tuple[Callable[[], nn.Module], ...]


_DINOV2_SIZES = (vit_small_patch14_reg4, vit_base_patch14_reg4, vit_base_patch14)
SOURCES: dict[str, Source] = {
    "dinov2": Source(from_dino, _DINOV2_SIZES),
    "huggingface": Source(from_huggingface_dinov2, _DINOV2_SIZES),
    "rad_dino": Source(from_huggingface_dinov2, (vit_base_patch14,)),
    "cxformer": Source(from_huggingface_dinov2, (vit_small_patch14_reg4, vit_base_patch14_reg4)),
    "dino": Source(from_dino, (vit_base_patch16_dino,)),
    "amos": Source(from_dinov2_student, (vit_base_patch16_amos,)),
    "vmamba": Source(from_vmamba, (vmamba_tiny, vmamba_tiny_s2l5)),
    "mambaderm_v1": Source(
        from_mambaderm_v1, (partial(mambaderm, num_classes=1), partial(mambaderm_lite, num_classes=1))
    ),
}


def convert_file(source: str, input_path: Path, output_path: Path | None) -> list[str]:
    """Convert one file of weights.

    Args:
        source: a key of :data:`SOURCES`.
        input_path: the public file.
        output_path: where our file goes; ``None`` only reports.

    Returns:
        The report: every weight and where it came from, what was dropped, network, and sha256 of the output.

    Raises:
        FileNotFoundError: there is no such input.
        ValueError: the file cannot be read safely, or does not fit a network.
    """
    network, conversion = _fit(SOURCES[source], read_checkpoint(input_path))
    content = encode_state_dict(conversion.state_dict)
    if output_path is not None:
        write_atomically(output_path, content)
    num_weights = sum(value.numel() for value in conversion.state_dict.values())
    return [
        *conversion.report(),
        f"network  {network}, {num_weights:,} parameters",
        f"sha256   {hashlib.sha256(content).hexdigest()}",
        f"output   {output_path if output_path is not None else 'not written (dry run)'}",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.convert_weights", description=__doc__)
    parser.add_argument("--source", required=True, choices=sorted(SOURCES), help="where the weights are from")
    parser.add_argument("--input", required=True, type=Path, help="public file, .pth or .safetensors")
    parser.add_argument("--output", required=True, type=Path, help="our file, .pt: a bare state dict")
    parser.add_argument("--dry-run", action="store_true", help="report, but write nothing")
    args = parser.parse_args(argv)
    try:
        report = convert_file(args.source, args.input, None if args.dry_run else args.output)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return EXIT_STATUS_REFUSED
    print("\n".join(report))
    return 0


def _fit(source: Source, checkpoint: Mapping[str, Any]) -> tuple[str, Conversion]:
    """Take the network that the weights fit, or complain about the one they come nearest to."""
    mismatches = []
    for make in source.networks:
        with torch.device("meta"):
            expected = expected_shapes(make())
        try:
            return _name(make), source.convert(checkpoint, expected=expected)
        except WeightsMismatch as mismatch:
            mismatches.append((_name(make), mismatch))
    name, nearest = min(mismatches, key=lambda item: len(item[1].problems))
    raise ValueError(f"{nearest}\n(compared with {name})") from nearest


def _name(make: Callable[[], nn.Module]) -> str:
    return make.func.__name__ if isinstance(make, partial) else make.__name__


if __name__ == "__main__":
    sys.exit(main())
