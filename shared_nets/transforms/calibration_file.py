"""The calibration of a lesion classifier as a file beside its weights: a NumPy archive without pickles."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from shared_nets.refusals import InputRefused
from shared_nets.types import LesionCalibration

_NUMBERS = ("temperature", "coverage", "ood_limit", "min_confidence")


def calibration_bytes(calibration: LesionCalibration) -> bytes:
    """Encode a calibration; the same one gives the same bytes at any time.

    Args:
        calibration: what was fitted.

    Returns:
        The content of an ``.npz`` file.
    """
    buffer = io.BytesIO()
    parts = asdict(calibration) | {"made_with": json.dumps(calibration.made_with, sort_keys=True)}
    np.savez(buffer, allow_pickle=False, **{name: np.asarray(part) for name, part in parts.items()})
    return buffer.getvalue()


def read_calibration(path: str | Path) -> LesionCalibration:
    """Read a calibration, and check that its parts belong together.

    Args:
        path: of the file.

    Returns:
        The calibration.

    Raises:
        InputRefused: ``INPUT_NOT_FOUND``, or ``INPUT_UNREADABLE`` where it is none.
    """
    name = Path(path).name
    try:
        with np.load(path, allow_pickle=False) as content:
            parts = {field.name: content[field.name] for field in fields(LesionCalibration)}
        calibration = LesionCalibration(
            conformal_quantiles=tuple(float(q) for q in parts["conformal_quantiles"]),
            num_calibration=int(parts["num_calibration"]),
            ood_means=np.ascontiguousarray(parts["ood_means"], dtype=np.float32),
            ood_precision=np.ascontiguousarray(parts["ood_precision"], dtype=np.float32),
            class_names=tuple(str(name) for name in parts["class_names"]),
            made_with=dict(json.loads(str(parts["made_with"]))),
            **{number: float(parts[number]) for number in _NUMBERS},
        )
        _check(calibration)
    except FileNotFoundError as error:
        raise InputRefused(
            "INPUT_NOT_FOUND", f"There is no calibration {name}.", "Check the path, or fit one."
        ) from error
    except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise InputRefused(
            "INPUT_UNREADABLE",
            f"{name} is no calibration of a lesion classifier: {error}",
            "Take the file that was released with the weights, or fit it again.",
        ) from error
    return calibration


def _check(calibration: LesionCalibration) -> None:
    num_classes, embed_dim = len(calibration.class_names), calibration.ood_precision.shape[-1]
    if len(calibration.conformal_quantiles) != num_classes:
        raise ValueError(
            f"conformal_quantiles must be {num_classes}, one a class, "
            f"got {len(calibration.conformal_quantiles)}."
        )
    if calibration.ood_means.shape != (num_classes, embed_dim):
        raise ValueError(
            f"ood_means must have shape ({num_classes}, {embed_dim}), got {calibration.ood_means.shape}."
        )
    if calibration.ood_precision.shape != (embed_dim, embed_dim):
        raise ValueError(f"ood_precision must be square, got {calibration.ood_precision.shape}.")
    numbers = np.array([getattr(calibration, number) for number in _NUMBERS])
    quantiles = np.array(calibration.conformal_quantiles)
    arrays = (numbers, quantiles, calibration.ood_means, calibration.ood_precision)
    if not all(np.isfinite(values).all() for values in arrays) or calibration.temperature <= 0.0:
        raise ValueError("every number must be finite and the temperature positive.")
