"""What ``python -m tools.doctor`` looks at, with Python's own library only: it runs where nothing else does.

No check changes anything or asks a network; none says the name of a host or of a user, or a path outside the
repository.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from tools.deploy_app.sdk import INSTALL, is_installed

MIN_PYTHON = (3, 11)
#: Packages that an extra needs and cannot name in pyproject.toml, and how they are installed.
_BESIDE_EXTRAS = {"label": ("monailabel==0.8.5", "pip install --no-deps monailabel==0.8.5")}
_EXTRAS_ARE_FOR = {
    "dev": "tests and lint",
    "label": "MONAI Label",
    "onnx": "export to ONNX",
    "release": "release zips",
    "isic": "photographs in HDF5",
    "cuda": "the fast scan on CUDA",
    "ray": "worklists on Ray",
}
#: Program, what needs it, and Debian's package.
_PROGRAMS = (
    ("dciodvfy", "tests of DICOM files", "dicom3tools"),
    ("dsrdump", "tests of DICOM reports", "dcmtk"),
    ("chromium", "tests of HTML pages", "chromium"),
    ("Orthanc", "tests against a PACS", "orthanc orthanc-dicomweb"),
    ("c++", "the compiled selective scan; without it a slower one", "g++"),
)
#: What a task takes, GB of main memory and of disk: inference as measured on the demo's scan (1.04 GB) with
#: room to spare, the others by estimate.
_TASKS = (
    ("inference", 1.5, 0.5),
    ("MONAI Label", 3.0, 1.0),
    ("training of the small sizes", 4.0, 2.0),
    ("the published sizes", 16.0, 10.0),
)
_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report.

    Args:
        part: heading under which it stands.
        name: what was looked at.
        status: ``ok``; ``optional`` where something is missing that is not needed; ``note`` for what is
            neither good nor bad; ``broken`` where bundles will not run.
        said: what was found.
        remedy: what to do; empty when nothing is to be done.
    """

    part: str
    name: str
    status: Literal["ok", "optional", "note", "broken"]
    said: str
    remedy: str = ""


def all_checks(repository: Path) -> list[Check]:
    """Look at everything.

    Args:
        repository: its folder.

    Returns:
        The checks in the order of the report.
    """
    return [
        *python_checks(),
        *package_checks(repository / "requirements.txt"),
        *weight_checks(
            sorted(path.parents[1] for path in repository.glob("bundles/*/configs/metadata.json"))
        ),
        *machine_checks(repository),
        *demo_checks(),
        *extra_checks(repository / "pyproject.toml"),
        deploy_check(),
        *program_checks(),
    ]


def python_checks() -> Iterator[Check]:
    """Is this a Python that the package runs on, and one of its own?"""
    number = ".".join(map(str, sys.version_info[:3]))
    is_new = sys.version_info[:2] >= MIN_PYTHON
    wanted = ".".join(map(str, MIN_PYTHON))
    yield Check(
        part="Python",
        name="python",
        status="ok" if is_new else "broken",
        said=f"{number}, {'the system’s own' if sys.prefix == sys.base_prefix else 'in a venv'}",
        remedy="" if is_new else f"Use Python {wanted} or newer: make test PYTHON=python{wanted}.",
    )


def package_checks(requirements: Path) -> Iterator[Check]:
    """Is every package of the list installed, in its minor version, with the same or a newer patch?"""
    wanted = _pins(requirements.read_text(encoding="utf-8").splitlines())
    remedy = "pip install -r requirements.txt"
    wrong = []
    for name, number in wanted.items():
        have = _installed(name)
        if have is None or not _fits(have, number):
            said = f"{number} is missing" if have is None else f"is {have}, must be {number}"
            wrong.append(Check(part="Packages", name=name, status="broken", said=said, remedy=remedy))
    yield from wrong
    if not wrong:
        said = f"all {len(wanted)} are installed in the versions of requirements.txt"
        yield Check(part="Packages", name="requirements", status="ok", said=said)


def weight_checks(bundles: Sequence[Path]) -> Iterator[Check]:
    """Is every file of weights the one that its bundle was made with?"""
    if not bundles:
        yield Check(
            part="Weights", name="bundles", status="broken", said="there are none", remedy="Clone anew."
        )
    for bundle in bundles:
        try:
            metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
            stated = {name: facts["sha256"] for name, facts in metadata["weights"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            said, remedy = "metadata.json cannot be read", "git checkout this folder"
            yield Check(part="Weights", name=bundle.name, status="broken", said=said, remedy=remedy)
            continue
        yield _weights_of(bundle, stated)


def machine_checks(repository: Path) -> Iterator[Check]:
    """What is there to work with, and what does it suffice for?"""
    memory, free = _memory_gb(), shutil.disk_usage(repository).free / _GB
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    known = "unknown" if memory is None else f"{memory:.1f} GB"
    said = f"{_count(cores, 'core')}, {known} of memory, {free:.1f} GB free on disk"
    yield Check(part="Machine", name="cores, memory, disk", status="ok", said=said)
    yield _gpu_check()
    for task, need_memory, need_disk in _TASKS:
        lacks = [
            *([f"{need_memory:g} GB of memory"] if memory is not None and memory < need_memory else []),
            *([f"{need_disk:g} GB on disk"] if free < need_disk else []),
        ]
        said = f"needs {' and '.join(lacks)}" if lacks else "can run here"
        is_needed = task == _TASKS[0][0]
        status: Any = "ok" if not lacks else "broken" if is_needed else "optional"
        yield Check(part="Machine", name=task, status=status, said=said)


def demo_checks() -> Iterator[Check]:
    """Are the real scans of the demo and the tests here already?"""
    part, name = "Demo data", "real scans"
    try:
        demo_data = importlib.import_module("tools.demo_data")
    except ImportError as error:
        yield Check(part=part, name=name, status="note", said=f"not looked for: {error.name} is missing")
        return
    root = demo_data.cache_folder()
    here = [key for key, scan in demo_data.SCANS.items() if (root / scan.archive.folder_name).is_dir()]
    is_whole = len(here) == len(demo_data.SCANS)
    yield Check(
        part=part,
        name=name,
        status="ok" if is_whole else "optional",
        said=f"{len(here)} of {len(demo_data.SCANS)} are cached",
        remedy="" if is_whole else "python -m tools.demo_data",
    )


def extra_checks(pyproject: Path) -> Iterator[Check]:
    """Which optional parts are installed, and how are the others?"""
    extras = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extra, packages in extras.items():
        beside, command = _BESIDE_EXTRAS.get(extra, (None, ""))
        wanted = _pins([*packages, *([beside] if beside else [])])
        missing = [name for name in wanted if _installed(name) is None]
        use = _EXTRAS_ARE_FOR.get(extra, extra)
        yield Check(
            part="Optional",
            name=f"[{extra}]",
            status="optional" if missing else "ok",
            said=f"{use}: {_count(len(missing), 'package')} of {len(wanted)} missing" if missing else use,
            remedy=" && ".join(filter(None, [f"pip install -e '.[{extra}]'", command])) if missing else "",
        )


def deploy_check() -> Check:
    """Is MONAI Deploy there? It is no extra, as MONAI would import it everywhere."""
    is_there = is_installed()
    status: Any = "ok" if is_there else "optional"
    said = "MONAI Deploy" if is_there else "MONAI Deploy is missing"
    return Check(part="Optional", name="deploy", status=status, said=said, remedy="" if is_there else INSTALL)


def program_checks(which: Callable[[str], str | None] = shutil.which) -> Iterator[Check]:
    """Which programs of others are installed?

    Args:
        which: finds a program.
    """
    for program, use, package in _PROGRAMS:
        is_there = which(program) is not None
        remedy = "" if is_there else f"apt-get install {package}"
        status: Any = "ok" if is_there else "optional"
        yield Check(part="Optional", name=program, status=status, said=use, remedy=remedy)


def _weights_of(bundle: Path, stated: Mapping[str, str]) -> Check:
    found = {name: _sha256(bundle / name) for name in stated}
    large = bundle / "large_files.yml"
    fetched = large.read_text(encoding="utf-8") if large.is_file() else ""
    to_fetch = [name for name, digest in found.items() if digest is None and f"path: {name}\n" in fetched]
    wrong = [
        f"{name} {'is missing' if found[name] is None else 'is another file'}"
        for name, digest in stated.items()
        if found[name] != digest and name not in to_fetch
    ]
    well = f"{_count(len(stated) - len(to_fetch), 'file')} as released"
    if wrong:
        said, remedy = ", ".join(wrong), f"git checkout bundles/{bundle.name}/models"
        return Check(part="Weights", name=bundle.name, status="broken", said=said, remedy=remedy)
    if to_fetch:
        said, remedy = f"{well}, {', '.join(to_fetch)} not fetched", "fetch what large_files.yml names"
        return Check(part="Weights", name=bundle.name, status="optional", said=said, remedy=remedy)
    return Check(part="Weights", name=bundle.name, status="ok", said=well)


def _gpu_check() -> Check:
    try:
        torch = importlib.import_module("torch")
        names = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    except (ImportError, OSError, RuntimeError) as error:
        return Check(
            part="Machine", name="CUDA", status="note", said=f"not looked for: {type(error).__name__}"
        )
    if not names:
        return Check(part="Machine", name="CUDA", status="note", said="no device: everything runs on the CPU")
    said = ", ".join(f"{device.name} with {device.total_memory / _GB:.0f} GB" for device in names)
    return Check(part="Machine", name="CUDA", status="ok", said=said)


def _memory_gb() -> float | None:
    """Memory that can be had now, within the limit of a container; ``None`` where nobody says."""
    found = []
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        if line := re.search(r"^MemAvailable:\s+(\d+) kB", text, flags=re.MULTILINE):
            found.append(int(line.group(1)) * 1024)
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass  # another system, or no limit
    return min(found) / _GB if found else None


def _pins(lines: Sequence[str]) -> dict[str, str]:
    """Give the version of each package by its name: ``dicomweb-client[gcp]==0.61.2``."""
    found = (re.match(r"([\w.-]+)(?:\[[^\]]*\])?==([\w.+-]+)", line.strip()) for line in lines)
    return {match.group(1): match.group(2) for match in found if match}


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _fits(have: str, wanted: str) -> bool:
    """Decide as :func:`shared_nets.runtime.checks.check_packages`, which needs torch to be imported."""
    release, least = (tuple(map(int, re.findall(r"\d+", text.split("+")[0])[:3])) for text in (have, wanted))
    return release[:2] == least[:2] and release >= least


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
