"""What must hold before a bundle runs: its packages, its weights, and every key of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared_nets.refusals import InputRefused
from shared_nets.transforms.calibration_file import read_calibration
from shared_nets.types import LesionCalibration

#: Name, among what a calibration was made with, of the hash of the weights that it belongs to.
CALIBRATED_WEIGHTS = "weights_sha256"


def file_sha256(path: str | Path) -> str:
    """Return the sha256 of a file, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_metadata(bundle_root: str | Path) -> dict[str, Any]:
    """Read a bundle's ``configs/metadata.json``."""
    return json.loads((Path(bundle_root) / "configs" / "metadata.json").read_text(encoding="utf-8"))


def check_packages(metadata: dict[str, Any]) -> None:
    """Check that what the bundle needs is installed, in the version it was made with.

    Major and minor version must be equal; a patch may be newer.

    Args:
        metadata: content of ``metadata.json``.

    Raises:
        InputRefused: ``PACKAGES_MISMATCH`` naming every package that is missing or differs.
    """
    required = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata.get("required_packages_version", {}),
    }
    wrong = []
    for name, wanted in required.items():
        try:
            have = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name} {wanted} is not installed")
            continue
        if _release(have)[:2] != _release(wanted)[:2] or _release(have) < _release(wanted):
            wrong.append(f"{name} is {have}, not {wanted}")
    if wrong:
        raise InputRefused(
            "PACKAGES_MISMATCH",
            "; ".join(wrong) + ".",
            "Install the versions that requirements.txt names: pip install -r requirements.txt.",
        )


def check_weights(bundle_root: str | Path, metadata: dict[str, Any], *, makes: Sequence[str] = ()) -> None:
    """Check every weight file that the metadata names against its sha256.

    Args:
        bundle_root: folder of the bundle.
        metadata: content of ``metadata.json``; ``weights`` maps a path in the bundle to its ``sha256``.
        makes: paths that the run is there to make, and that are not checked.

    Raises:
        InputRefused: ``WEIGHTS_MISMATCH`` when a file is missing or differs.
    """
    for name, facts in metadata.get("weights", {}).items():
        if name in makes:
            continue
        path = Path(bundle_root) / name
        if not path.is_file():
            raise InputRefused(
                "WEIGHTS_MISMATCH",
                f"The weights {name} are missing.",
                "Get the bundle again, or give --ckpt_path.",
            )
        if file_sha256(path) != facts["sha256"]:
            raise InputRefused(
                "WEIGHTS_MISMATCH",
                f"{name} is not the file that the bundle was released with (its sha256 differs).",
                "Get the bundle again; give weights of your own a path of their own with --ckpt_path.",
            )


def load_weights(network: nn.Module, ckpt_path: str | Path) -> None:
    """Load a bare state dict, every key or none.

    Args:
        network: gets the weights.
        ckpt_path: file with a bare state dict.

    Raises:
        InputRefused: ``WEIGHTS_MISMATCH`` when the file is missing, holds anything but tensors, or does not
            have exactly the network's keys and shapes.
    """
    path = Path(ckpt_path)
    remedy = "Give the weights of this network, as a bare state dict, with --ckpt_path."
    if not path.is_file():
        raise InputRefused("WEIGHTS_MISMATCH", f"There are no weights {path.name}.", remedy)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for what is not a safe checkpoint
        raise InputRefused(
            "WEIGHTS_MISMATCH", f"{path.name} cannot be read as plain tensors: {error}.", remedy
        ) from error
    try:
        network.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputRefused("WEIGHTS_MISMATCH", f"{path.name} does not fit: {error}.", remedy) from error


def prepare_bundle(
    network: nn.Module,
    *,
    bundle_root: str | Path,
    ckpt_path: str | Path,
    other_files: Mapping[str, str | Path | None] | None = None,
    makes: Sequence[str] = (),
) -> None:
    """Check packages and weights, then load the weights into the network.

    Args:
        network: gets the weights.
        bundle_root: folder of the bundle.
        ckpt_path: file with a bare state dict.
        other_files: further files that the bundle reads, by the name of the knob that points to them;
            ``None`` for one that it does without.
        makes: weight files, by their path in the bundle, that the run is there to make anew.

    Raises:
        InputRefused: ``PACKAGES_MISMATCH`` or ``WEIGHTS_MISMATCH``.
    """
    metadata = read_metadata(bundle_root)
    check_packages(metadata)
    check_weights(bundle_root, metadata, makes=makes)
    for knob, path in (other_files or {}).items():
        if path is not None and not Path(path).is_file():
            raise InputRefused(
                "WEIGHTS_MISMATCH",
                f"There is no file {Path(path).name}, which {knob} points to.",
                f"Give its path with --{knob}; the bundle's card says where it comes from.",
            )
    load_weights(network, ckpt_path)


def load_calibration(path: str | Path | None, *, ckpt_path: str | Path) -> LesionCalibration | None:
    """Read a calibration, and check that it was fitted for the weights it shall be used with.

    Args:
        path: of the calibration; ``None`` for weights that have none.
        ckpt_path: of the weights.

    Returns:
        The calibration, or ``None``.

    Raises:
        InputRefused: as :func:`shared_nets.transforms.calibration_file.read_calibration`, or
            ``WEIGHTS_MISMATCH`` where it belongs to other weights.
    """
    if path is None:
        return None
    calibration = read_calibration(path)
    if calibration.made_with.get(CALIBRATED_WEIGHTS) != file_sha256(ckpt_path):
        raise InputRefused(
            "WEIGHTS_MISMATCH",
            f"{Path(path).name} was not fitted for the weights {Path(ckpt_path).name}.",
            "Fit a calibration for these weights with calibrate.json, and give it with --calibration_path.",
        )
    return calibration


def _release(text: str) -> tuple[int, ...]:
    """Leading numbers of a version, at least three: ``2.13.0+cpu`` → (2, 13, 0), ``5.4`` → (5, 4, 0)."""
    found = re.match(r"\d+(\.\d+)*", text)
    parts = [int(part) for part in found.group().split(".")] if found else []
    return (*parts, *[0] * (3 - len(parts)))
