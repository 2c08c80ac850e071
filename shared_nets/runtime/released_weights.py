"""What holds for the weights that a bundle was released with, and what is said of a user's own instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shared_nets.runtime.checks import file_sha256, read_metadata

OWN_WEIGHTS = (
    "The weights are not those that the bundle was released with: what they learned from, and for whom they "
    "hold, is not known here."
)
CALIBRATION_FILE = "calibration.npz"


def statements_about(
    ckpt_path: str | Path, *, bundle_root: str | Path, released: Sequence[str], name: str = "models/model.pt"
) -> tuple[str, ...]:
    """Give the sentences about a bundle's weights only where these are the weights that run.

    Args:
        ckpt_path: of the weights that run.
        bundle_root: folder of the bundle.
        released: sentences about the weights that the metadata name.
        name: of those weights in the metadata.

    Returns:
        ``released``, or for all other weights that nothing is known of them.
    """
    stated = read_metadata(bundle_root).get("weights", {}).get(name, {}).get("sha256")
    path = Path(ckpt_path)
    is_released = path.is_file() and file_sha256(path) == stated
    return tuple(released) if is_released else (OWN_WEIGHTS,)


def calibration_beside(ckpt_path: str | Path) -> str | None:
    """Find the calibration of weights: a calibration is kept in their folder.

    Args:
        ckpt_path: of the weights.

    Returns:
        Path of ``calibration.npz`` there; ``None`` where there is none, so that results are not calibrated
        and say so.
    """
    path = Path(ckpt_path).with_name(CALIBRATION_FILE)
    return str(path) if path.is_file() else None
