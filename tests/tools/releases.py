"""Releases for tests: of the repository as it is, and of a later state of its code."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tools.bundle_rules import REPOSITORY
from tools.package_bundle import Release, package_bundle


def package(name: str, output: Path, bundle: Path | None = None, **options) -> Release:
    """Package a bundle of the repository, or one that takes its place."""
    return package_bundle(bundle or REPOSITORY / "bundles" / name, output, **options)


def unpack(release: Release, folder: Path) -> Path:
    """Unpack a release into a folder; the bundle's own folder in it."""
    with zipfile.ZipFile(release.archive) as archive:
        archive.extractall(folder)
        return folder / archive.namelist()[0].partition("/")[0]


def changed_code(folder: Path, changes: Mapping[str, tuple[str, str]]) -> Path:
    """Copy the package and change it, as a later release would.

    Args:
        folder: where the copy goes, as ``shared_nets``.
        changes: by file of the package, the words to replace and those that take their place.
    """
    code = shutil.copytree(
        REPOSITORY / "shared_nets", folder / "shared_nets", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name, (old, new) in changes.items():
        replace(code / name, old, new)
    return Path(code)


def replace(path: Path, old: str, new: str) -> None:
    """Replace words that a file must hold."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
