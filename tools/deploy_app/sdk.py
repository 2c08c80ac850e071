"""Import the MONAI Deploy App SDK, wherever it lies, before or beside MONAI.

MONAI imports ``monai.deploy`` whenever it lies beside it. That costs every program time, and breaks those
that lack the CUDA runtime. So ``make deploy`` puts the SDK into an environment of its own, ``deploy`` inside
the one of this interpreter, where only this module finds it. In a container it lies beside MONAI as usual.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

_CUDA_RUNTIME = "cu13/lib/libcudart.so.13"
_STACK_BYTES = 32 << 20  # what holoscan asks for
INSTALL = "make deploy"


class DeployUnavailable(RuntimeError):
    """The SDK cannot be imported; the message says why and what to do."""


def side_packages() -> Path:
    """Name the folder in which ``make deploy`` puts the SDK."""
    return Path(sysconfig.get_path("purelib", vars={"base": str(Path(sys.prefix) / "deploy")}))


def is_installed() -> bool:
    """Say whether the SDK is there, without importing anything."""
    folders = [str(side_packages()), *sys.path]
    return any((Path(folder) / "monai" / "deploy").is_dir() for folder in folders)


def import_sdk() -> None:
    """Make ``monai.deploy.core`` importable, and import it.

    Raises:
        DeployUnavailable: the SDK, or a library that it needs, is not there.
    """
    if not is_installed():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise DeployUnavailable(
            f"MONAI Deploy is not installed for Python {version}: {INSTALL} (Linux, x86_64 or aarch64)."
        )
    os.environ.setdefault("HOLOSCAN_LOG_LEVEL", "ERROR")
    side = side_packages()
    if side.is_dir() and str(side) not in sys.path:
        sys.path.append(str(side))  # last: what both hold is taken from the environment around it
    _load_cuda_runtime()
    _allow_deep_stacks()
    try:
        monai = importlib.import_module("monai")
        if (side / "monai").is_dir() and str(side / "monai") not in monai.__path__:
            monai.__path__.append(str(side / "monai"))
        importlib.import_module("monai.deploy.core")
    except (ImportError, OSError, RuntimeError) as error:  # the last by tritonclient, of what it lacks
        raise DeployUnavailable(
            f"MONAI Deploy cannot be imported ({error}); try again: {INSTALL}."
        ) from error


def _load_cuda_runtime() -> None:
    """Load the library that holoscan links to, also where there is no GPU; a system's own serves as well."""
    spec = find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        library = Path(folder) / _CUDA_RUNTIME
        if library.is_file():
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            return


def _allow_deep_stacks() -> None:
    import resource  # only here, as Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft != resource.RLIM_INFINITY and soft < _STACK_BYTES:
        with contextlib.suppress(ValueError, OSError):  # not more than the system allows
            resource.setrlimit(resource.RLIMIT_STACK, (_STACK_BYTES, hard))
