"""Fingerprints: was this result made from the same input, by the same bundle in the same configuration?"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared_nets.data.study_folder import PHOTOGRAPH_SUFFIXES
from shared_nets.runtime.checks import check_weights, file_sha256, read_metadata
from shared_nets.runtime.provenance import BundleProvenance

_PATHS = ("image", "mask", "clinical")
_READ_WHOLE_BYTES = 2**20
_READ_PHOTOGRAPH_BYTES = 2**26  # photographs of one camera may have the same name and size


def canonical_sha256(content: Any) -> str:
    """Hash JSON values so that equal values have equal hashes, 64 hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def input_sha256(study: Mapping[str, Any]) -> str:
    """Hash what a study is made from.

    A file counts by its name and size, a folder by the names and sizes of its files, and a file of up to
    1 MiB (a photograph: 64 MiB) that the study names itself by its content too. Reading every pixel would
    take as long as the work itself, so a large file whose content changes but not its size goes unseen.
    Where the files lie does not count: a folder that is mounted elsewhere is the same input.

    Args:
        study: an item as :func:`shared_nets.data.studies.list_studies` makes it.

    Returns:
        64 hexadecimal digits.
    """
    parts = {
        key: _files(value) if key in _PATHS and isinstance(value, str | os.PathLike) else value
        for key, value in study.items()
    }
    return canonical_sha256(parts)


def describe_run(
    bundle_root: str | Path,
    *,
    overlays: Sequence[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe what decides the bytes of every result of a run, beside the studies.

    Args:
        bundle_root: folder of the bundle.
        overlays: config files laid over ``inference.json``, in their order.
        overrides: values of the configuration; a file that one names counts by its content.

    Returns:
        JSON-able: ``bundle, bundle_version, config_sha256, weights_sha256, packages``.

    Raises:
        InputRefused: ``WEIGHTS_MISMATCH``.
    """
    root = Path(bundle_root)
    metadata = read_metadata(root)
    check_weights(root, metadata)
    values = dict(overrides or {})
    files = {name: Path(v) for name, v in values.items() if isinstance(v, str) and Path(v).is_file()}
    weights = {**{name: root / name for name in metadata.get("weights", {})}, **files}
    laid_over = [json.loads(Path(path).read_text(encoding="utf-8")) for path in overlays]
    knobs = {"overlays": laid_over, "overrides": values | {name: path.name for name, path in files.items()}}
    return BundleProvenance(bundle_root=root, weights=weights, knobs=knobs)()


def _files(path: str | os.PathLike[str]) -> list[list[Any]]:
    """Name, size and, of small files, content: one row a file, in the order of the names."""
    top = Path(path)
    try:
        if top.is_dir():
            files = sorted(file for file in top.rglob("*") if file.is_file())
            return [[file.relative_to(top).as_posix(), file.stat().st_size] for file in files]
        size = top.stat().st_size
        is_photograph = top.suffix.lower() in PHOTOGRAPH_SUFFIXES
        limit = _READ_PHOTOGRAPH_BYTES if is_photograph else _READ_WHOLE_BYTES
        return [[top.name, size, file_sha256(top) if size <= limit else None]]
    except OSError:  # not there, or not readable: the bundle will refuse it by its code
        return [[top.name, None]]
