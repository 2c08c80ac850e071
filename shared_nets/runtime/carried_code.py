"""Run a bundle by the code that it carries, where it carries any.

A released bundle holds a private copy of this package, under a name that is made from the copy's content
(``shared_nets_0123456789ab``) and that its configuration uses. So bundles of different releases live in one
process, each with its own code, and bundles of one release share theirs. Nobody's ``sys.path`` changes.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from shared_nets.refusals import CODES, InputRefused
from shared_nets.runtime.bundle import BundleRuntime

_CARRIED_NAME = re.compile(r"shared_nets_[0-9a-f]{12}")
_OWN_NAME = __name__.partition(".")[0]


def carried_package(bundle_root: str | Path) -> str | None:
    """Say which package a bundle carries.

    Args:
        bundle_root: folder of the bundle.

    Returns:
        Its name; ``None`` for a bundle that uses the installed package.

    Raises:
        ValueError: it carries several.
    """
    found = [path.parent.name for path in Path(bundle_root).glob("*/__init__.py")]
    names = sorted(name for name in found if _CARRIED_NAME.fullmatch(name))
    if len(names) > 1:
        raise ValueError(f"bundle_root must carry one package, got {', '.join(names)}; unpack it anew.")
    return names[0] if names else None


def open_bundle(bundle_root: str | Path, **options: Any) -> BundleRuntime:
    """Load a bundle for many runs, with its own code where it carries some.

    Carried code is run: take released bundles from people you trust.

    Args:
        bundle_root: folder of the bundle.
        options: as :class:`shared_nets.runtime.bundle.BundleRuntime` takes them.

    Returns:
        A runtime; a carried package's own class of that name where there is one.

    Raises:
        InputRefused: packages or weights are not those of the bundle.
    """
    name = carried_package(bundle_root)
    if name is None or name == _OWN_NAME:
        return BundleRuntime(bundle_root, **options)
    _import_carried(name, Path(bundle_root).resolve() / name)
    module = importlib.import_module(f"{name}.runtime.bundle")
    with refusals_of_carried_code():
        runtime: BundleRuntime = module.BundleRuntime(bundle_root, **options)
    return runtime


def module_of(runtime: BundleRuntime, name: str) -> ModuleType:
    """Give a module of the code that a bundle is run by; its results are no business of another copy's.

    Args:
        runtime: what :func:`open_bundle` gave.
        name: of the module inside the package: ``writers.kidney_nifti``.

    Returns:
        The module, of the carried package where there is one.
    """
    package = type(runtime).__module__.partition(".")[0]
    return importlib.import_module(f"{package}.{name}")


@contextmanager
def refusals_of_carried_code() -> Iterator[None]:
    """Raise what another copy of this package refuses as a refusal of this one.

    Raises:
        InputRefused: of this package, with the code, message and remedy of the other one.
    """
    try:
        yield
    except Exception as error:
        refusal = _refusal_of_another_copy(error)
        if refusal is None:
            raise
        raise InputRefused(**refusal.as_dict()) from error


def _import_carried(name: str, folder: Path) -> None:
    if name in sys.modules:
        return  # the name stands for the content
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} must be a package that Python can load.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _refusal_of_another_copy(error: BaseException) -> Any:
    """Find a refusal among an error and its causes; ``None`` when there is none, or it is of this copy."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, InputRefused):
        package, _, module = type(seen).__module__.partition(".")
        is_refusal = type(seen).__name__ == InputRefused.__name__ and module == "refusals"
        if is_refusal and package.startswith("shared_nets") and getattr(seen, "code", None) in CODES:
            return seen
        seen = seen.__cause__
    return None
