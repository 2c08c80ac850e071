"""Which bundle, which weights, which configuration and which libraries made a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shared_nets import __version__
from shared_nets.runtime.checks import file_sha256, read_metadata

_PACKAGES = (
    "monai", "torch", "numpy", "pydicom", "nibabel", "SimpleITK", "scikit-image", "scipy", "pillow",
    "tabpfn",
)  # fmt: skip


class BundleProvenance:
    """Describe the bundle for the provenance of its results.

    Args:
        bundle_root: folder of the bundle.
        weights: weight files that take part, by the name that the result shall give them; ``None`` for one
            that does not.
        knobs: values of the configuration that decide and that a command line may have changed.
    """

    def __init__(
        self, *, bundle_root: str | Path, weights: Mapping[str, str | Path | None], knobs: Mapping[str, Any]
    ) -> None:
        self.bundle_root = Path(bundle_root)
        self.weights = {name: Path(path) for name, path in weights.items() if path is not None}
        self.knobs = dict(knobs)

    def __call__(self) -> dict[str, Any]:
        """Return ``bundle, bundle_version, config_sha256, weights_sha256, packages`` of the provenance."""
        metadata = read_metadata(self.bundle_root)
        return {
            "bundle": metadata["name"],
            "bundle_version": metadata["version"],
            "config_sha256": config_sha256(
                sorted((self.bundle_root / "configs").glob("*.json")), knobs=self.knobs
            ),
            "weights_sha256": {name: file_sha256(path) for name, path in sorted(self.weights.items())},
            "packages": {"shared_nets": __version__, **{name: version(name) for name in _PACKAGES}},
        }


def config_sha256(files: Sequence[Path], *, knobs: Mapping[str, Any]) -> str:
    """Hash configuration files and knobs, so that equal configurations have equal hashes.

    A released bundle names the copy of this package that it carries; it counts as the package itself.

    Args:
        files: JSON files, in a fixed order.
        knobs: values that override them.

    Returns:
        64 hexadecimal digits; white space and the order of keys do not matter.
    """
    parts = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in files}
    canonical = json.dumps({"files": parts, "knobs": dict(knobs)}, sort_keys=True, separators=(",", ":"))
    own_name = __name__.partition(".")[0]
    canonical = canonical.replace(f'"{own_name}.', '"shared_nets.')
    return hashlib.sha256(canonical.encode()).hexdigest()
