"""Export a bundle's network to ONNX, and keep the file only when ONNX Runtime gives the same numbers.

    python -m tools.export_onnx FOLDER --output model.onnx

Numbers may differ by at most 1e-4, relative to the largest of them where that is above 1. What a bundle's
``metadata.json`` names under ``exports`` was proved so, and ``tools.verify_bundle`` proves it again.
Needs the extra ``onnx``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.utils import convert_to_onnx
from torch import Tensor, nn

from shared_nets.refusals import InputRefused
from shared_nets.runtime.checks import load_weights, read_metadata
from tools.network_rules import first_line, parser_of, quiet

MAX_DIFFERENCE = 1e-4
_SEEDS = (1, 2)


class NotEqualError(RuntimeError):
    """The exported network does not give the numbers of the original."""


def export_onnx(bundle: Path, output: Path) -> float:
    """Export the network of a bundle with its weights, for the input that its metadata state, one at a time.

    Args:
        bundle: folder of the bundle.
        output: the ONNX file; it appears only when its numbers are equal.

    Returns:
        The largest difference seen, relative to the largest number where that is above 1.

    Raises:
        ImportError: the packages of the extra ``onnx`` are not installed.
        InputRefused: the weights do not fit the network.
        NotEqualError: the numbers differ by more than :data:`MAX_DIFFERENCE`.
        RuntimeError: torch cannot export the network.
        ValueError: the metadata leave a size of the input open.
    """
    for name in ("onnx", "onnxruntime", "onnxscript"):
        if find_spec(name) is None:
            raise ImportError(f"{name} must be installed to export to ONNX: pip install 'shared_nets[onnx]'.")
    network: nn.Module = parser_of(bundle, "inference.json").get_parsed_content("network_def").eval()
    load_weights(network, bundle / "models" / "model.pt")
    shape = _input_shape(read_metadata(bundle))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        file = Path(folder) / output.name
        _convert(network, _random(shape, seed=0), file)
        difference = max(difference_from(network, file, _random(shape, seed=seed)) for seed in _SEEDS)
        if not difference <= MAX_DIFFERENCE:
            raise NotEqualError(
                f"the ONNX network of {bundle.name} must give numbers within {MAX_DIFFERENCE:g}, "
                f"got a difference of {difference:g}; nothing was kept."
            )
        file.replace(output)
    return difference


def difference_from(network: nn.Module, file: Path, image: Tensor) -> float:
    """Compare a network with its ONNX file, run by ONNX Runtime on the CPU.

    Args:
        network: in evaluation mode.
        file: the ONNX file, from ``image`` to ``pred``.
        image: the input of both.

    Returns:
        The largest difference, relative to the largest number where that is above 1.
    """
    import onnxruntime

    with torch.no_grad():
        wanted = network(image).numpy()
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = session.run(["pred"], {"image": image.numpy()})
    return float(np.abs(wanted - found).max() / max(1.0, float(np.abs(wanted).max())))


def export_problems(bundle: Path) -> list[str]:
    """Check that every export which the metadata declare can be made and is equal.

    Args:
        bundle: folder of the bundle.

    Returns:
        One sentence a breach.
    """
    if "onnx" not in read_metadata(bundle).get("exports", ()):
        return []
    try:
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(bundle, Path(folder) / "model.onnx")
    except (ImportError, InputRefused, RuntimeError, ValueError) as error:
        return [f"metadata.json: exports names onnx, but {first_line(error)}"]
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Export; 1 when the file cannot be made or is not equal."""
    parser = argparse.ArgumentParser(prog="python -m tools.export_onnx", description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, metavar="FOLDER")
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file")
    options = parser.parse_args(arguments)
    try:
        difference = export_onnx(options.bundle.resolve(), options.output)
    except (ImportError, InputRefused, RuntimeError, ValueError) as error:
        print(f"{options.bundle.name} cannot be exported: {first_line(error)}", file=sys.stderr)
        return 1
    print(f"{options.output}: largest difference from the original {difference:.1e}")
    return 0


def _convert(network: nn.Module, image: Tensor, file: Path) -> None:
    with quiet():
        convert_to_onnx(
            network,
            [image],
            input_names=["image"],
            output_names=["pred"],
            filename=str(file),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _input_shape(metadata: dict[str, Any]) -> tuple[int, ...]:
    """The shape ``(1, C, …)`` of the first input."""
    facts = metadata["network_data_format"]["inputs"]["image"]
    sizes = facts["spatial_shape"]
    if not all(isinstance(size, int) for size in sizes):
        raise ValueError(f"spatial_shape of image must be numbers to export the network, got {sizes}.")
    return (1, int(facts["num_channels"]), *sizes)


def _random(shape: tuple[int, ...], *, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


if __name__ == "__main__":
    sys.exit(main())
