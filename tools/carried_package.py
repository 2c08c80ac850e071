"""Make the private copy of ``shared_nets`` that a released bundle carries.

The copy's name is made from its content, and replaces ``shared_nets`` in its imports and in the bundle's
configuration. A copy under the plain name would not do: Python keeps one package of a name in a process, so
the second bundle would silently run the code of the first. An import hook would have to guess, for every
import, which bundle asks. With a name of its own a copy is an ordinary package for MONAI, MONAI Label and
MONAI Deploy, which put a bundle's folder on the path, and equal copies are loaded once.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from pathlib import Path
from typing import Any

PACKAGE = "shared_nets"
_SUFFIXES = {".py", ".json", ".cpp"}
_DIGITS = 12
_OWN_IMPORT = re.compile(rf"from\s+{PACKAGE}(?=[.\s])")
_OWN_NAME = re.compile(rf"{PACKAGE}(\.\w+)+")


def carried_files(package: Path) -> tuple[str, dict[str, bytes]]:
    """Copy a package under a private name.

    Args:
        package: folder ``shared_nets``.

    Returns:
        The private name, and the content of each file by its path under that name, sorted.

    Raises:
        ValueError: the folder holds a file of another kind, or a module that cannot be renamed.
    """
    originals = _source_files(package)
    digest = hashlib.sha256()
    for path, content in originals.items():
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    name = f"{PACKAGE}_{digest.hexdigest()[:_DIGITS]}"
    files = {
        f"{name}/{path}": renamed_source(content.decode(), name, path).encode()
        if path.endswith(".py")
        else content
        for path, content in originals.items()
    }
    return name, files


def renamed_source(source: str, name: str, path: str = "source") -> str:
    """Rename the package in the imports of a module, and in texts that are nothing but a dotted name.

    Args:
        source: Python.
        name: what ``shared_nets`` is called instead.
        path: of the module, for the message.

    Returns:
        The source, with its lines where they were.

    Raises:
        ValueError: it says ``import shared_nets…``, which binds a name that is then used all over.
    """
    lines = [line.encode() for line in source.splitlines(keepends=True)]  # ast counts bytes
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    places: set[tuple[int, int]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(item.name.split(".")[0] == PACKAGE for item in node.names):
            raise ValueError(
                f"{path}:{node.lineno} must say from {PACKAGE} … import, got {ast.unparse(node)}."
            )
        is_import = isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == PACKAGE
        is_name = (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
            and _OWN_NAME.fullmatch(node.value) is not None
        )
        if isinstance(node, ast.ImportFrom | ast.Constant) and (is_import or is_name):
            places.add((node.lineno - 1, node.col_offset))
    for number, column in sorted(places, reverse=True):
        before, after = lines[number][:column], lines[number][column:]
        lines[number] = before + after.replace(PACKAGE.encode(), name.encode(), 1)
    return b"".join(lines).decode()


def renamed_config(content: Any, name: str) -> Any:
    """Rename the package in every ``_target_`` of a configuration.

    Args:
        content: JSON values.
        name: what ``shared_nets`` is called instead.

    Returns:
        The configuration that uses the copy.
    """
    if isinstance(content, list):
        return [renamed_config(item, name) for item in content]
    if not isinstance(content, dict):
        return content
    renamed = {key: renamed_config(value, name) for key, value in content.items()}
    target = renamed.get("_target_")
    if isinstance(target, str) and target.startswith(f"{PACKAGE}."):
        renamed["_target_"] = name + target.removeprefix(PACKAGE)
    return renamed


def renamed_config_text(text: str, name: str) -> str:
    """Rename the package in the text of a JSON file, whose formatting is kept.

    Args:
        text: JSON.
        name: what ``shared_nets`` is called instead.

    Returns:
        JSON that means :func:`renamed_config` of it.

    Raises:
        ValueError: it does not: a ``_target_`` is written in another way.
    """
    renamed = re.sub(rf'("_target_"\s*:\s*"){PACKAGE}(?=\.)', rf"\g<1>{name}", text)
    if json.loads(renamed) != renamed_config(json.loads(text), name):
        raise ValueError(
            f'every "_target_" of {PACKAGE} must be written without escapes, got one that is not.'
        )
    return renamed


def _source_files(package: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for path in sorted(package.rglob("*"), key=lambda path: path.relative_to(package).as_posix()):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        if path.suffix not in _SUFFIXES:
            raise ValueError(
                f"{package.name} must hold {', '.join(sorted(_SUFFIXES))} only, got {path.name}."
            )
        files[path.relative_to(package).as_posix()] = path.read_bytes()
    return files
