"""Make a release of bundles: a zip that runs where ``shared_nets`` is not installed.

    python -m tools.package_bundle [FOLDER …] [--output dist]

Each bundle is verified first (``tools.verify_bundle``). Then ``NAME_vVERSION.zip`` holds the folder
``NAME/``: the bundle without what ``large_files.yml`` names, a private copy of ``shared_nets``
(``tools/carried_package.py``) that the configuration uses, LICENSE and requirements.txt. Beside it lie its
sha256 (``.zip.sha256``, for ``sha256sum --check``) and its bill of materials (``.cdx.json``, CycloneDX).

Equal sources give equal bytes: files are stored uncompressed in the order of their names, with one date, that
of ``SOURCE_DATE_EPOCH`` or else 1980-01-01, and one set of permissions.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import stat
import sys
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from shared_nets.writers.atomic_file import write_atomically
from tools.bundle_rules import REPOSITORY, bundle_folders, pinned_versions, read_large_files
from tools.carried_package import PACKAGE, carried_files, renamed_config_text
from tools.release_sbom import sbom_json
from tools.verify_bundle import verify

_ZIP_EPOCH = datetime(1980, 1, 1, tzinfo=UTC)
_IGNORED_FOLDERS = {"__pycache__", "eval", "train", "datasets"}  # what running a bundle in its folder leaves


class Release(NamedTuple):
    """The files of a release."""

    archive: Path
    checksum: Path
    sbom: Path


def package_bundle(bundle: Path, output_dir: Path, *, package: Path = REPOSITORY / PACKAGE) -> Release:
    """Package a bundle that has been verified.

    Args:
        bundle: its folder.
        output_dir: where the files of the release go.
        package: folder of the package that it carries.

    Returns:
        The files.

    Raises:
        ValueError: a file that the bundle names is another one, or something cannot be packaged.
    """
    created = release_date()
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    carried_name, code = carried_files(package)
    files = {
        **_bundle_files(bundle, carried_name),
        "LICENSE": (REPOSITORY / "LICENSE").read_bytes(),
        "requirements.txt": (REPOSITORY / "requirements.txt").read_bytes(),
        **code,
    }
    archive = _zip({f"{bundle.name}/{name}": content for name, content in files.items()}, created)
    name = f"{bundle.name}_v{metadata['version']}"
    release = Release(*(output_dir / f"{name}{suffix}" for suffix in (".zip", ".zip.sha256", ".cdx.json")))
    sbom = sbom_json(
        metadata,
        archive=archive,
        carried_name=carried_name,
        package_version=_version_of(code[f"{carried_name}/__init__.py"].decode()),
        requirements=pinned_versions(),
        created=created,
    )
    digest = hashlib.sha256(archive).hexdigest()
    write_atomically(release.archive, archive)
    write_atomically(release.checksum, f"{digest}  {release.archive.name}\n".encode())
    write_atomically(release.sbom, sbom.encode())
    return release


def release_date() -> datetime:
    """Say when a release is made: ``SOURCE_DATE_EPOCH``, or the first date that a zip can hold."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return _ZIP_EPOCH if epoch is None else max(_ZIP_EPOCH, datetime.fromtimestamp(int(epoch), UTC))


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify and package; 1 when a bundle breaks a rule, which is then not packaged."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.package_bundle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="a bundle; all without one")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "dist", help="folder of the release")
    options = parser.parse_args(arguments)
    broken = False
    for folder in (folder.resolve() for folder in options.folders or bundle_folders()):
        problems = verify(folder)
        for problem in problems:
            print(f"{folder.name}: {problem}", file=sys.stderr)
        broken |= bool(problems)
        if not problems:
            for path in package_bundle(folder, options.output):
                print(path)
    return int(broken)


def _bundle_files(bundle: Path, carried_name: str) -> dict[str, bytes]:
    """Everything of the bundle that is released, configurations for the copy of the package."""
    large_files, problems = read_large_files(bundle)
    if problems:
        raise ValueError(problems[0])
    files: dict[str, bytes] = {}
    for path in sorted(bundle.rglob("*")):
        name = path.relative_to(bundle).as_posix()
        if not path.is_file() or name.split("/")[0] in _IGNORED_FOLDERS:
            continue
        content = path.read_bytes()
        if name in large_files:
            if (found := hashlib.sha256(content).hexdigest()) != large_files[name]:
                raise ValueError(f"{name} must have the sha256 {large_files[name]}, got {found}.")
            continue
        is_config = name.startswith("configs/") and name.endswith(".json")
        files[name] = renamed_config_text(content.decode(), carried_name).encode() if is_config else content
    return files


def _zip(files: Mapping[str, bytes], created: datetime) -> bytes:
    """Store files; compression would make the bytes depend on the version of zlib."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=created.timetuple()[:6])
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, files[name])
    return target.getvalue()


def _version_of(source: str) -> str:
    """Read ``__version__`` of a package's ``__init__.py``."""
    found = re.search(r'^__version__ = "([^"]+)"$', source, flags=re.MULTILINE)
    if found is None:
        raise ValueError(f'{PACKAGE} must say __version__ = "…" in its __init__.py.')
    return found.group(1)


if __name__ == "__main__":
    sys.exit(main())
