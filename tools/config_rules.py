"""Rules for the JSON of a bundle, checked on the text alone: how it reads, and that overlays fit their base.

Used by ``python -m tools.verify_bundle`` and by the contract tests; each rule yields one sentence a breach.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.expression_rules import expression_problems, import_problem

#: Where a known section stands; names that are not here (knobs) may stand anywhere.
KEY_ORDER = (
    *("_desc_", "imports"),
    *("bundle_root", "dataset_dir", "output_dir", "ckpt_path"),
    "device",
    *("network_def", "network", "loss", "optimizer", "lr_scheduler"),
    *("preprocessing", "dataset", "dataloader", "inferer", "postprocessing"),
    *("handlers", "trainer", "evaluator"),
    *("train", "validate"),
    *("initialize", "run", "finalize"),
)
BASES = ("inference.json", "train.json")
MAX_COLUMNS = 110
MAX_EXPRESSIONS = 25

_MONAI_WORDS = {"_target_", "_desc_", "_requires_", "_disabled_", "_mode_"}
_IMPORT_STATEMENT = re.compile(r"^\$\s*(import|from)\s")
_HASH_REFERENCE = re.compile(r"[@%][\w:]*#")
_OTHER_FILE = re.compile(r"%[^%\s]*\.(json|ya?ml)\b")
_REPOSITORY = Path(__file__).resolve().parents[1]


def read_config(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read one JSON file.

    Args:
        path: the file.

    Returns:
        Its content, empty when it cannot be read, and the breaches: no JSON object, or a repeated key.
    """
    repeated: list[str] = []

    def keep_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated.extend(sorted({name for name in names if names.count(name) > 1}))
        return dict(pairs)

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=keep_unique)
    except (OSError, ValueError) as error:
        return {}, [f"{path.name} must be readable JSON, got: {error}"]
    if not isinstance(content, dict):
        return {}, [f"{path.name} must hold one JSON object, got {type(content).__name__}."]
    return content, [f"{path.name} must hold each key once, got {name!r} twice." for name in repeated]


def config_problems(folder: Path) -> list[str]:
    """Check every configuration of a bundle but its metadata.

    Args:
        folder: the bundle's ``configs``.

    Returns:
        One sentence a breach; empty when all is well.
    """
    problems = [f"configs/{name} is missing." for name in BASES if not (folder / name).is_file()]
    configs: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        if path.name != "metadata.json":
            configs[path.name], unreadable = read_config(path)
            problems += unreadable
            problems += [f"{path.name}: {problem}" for problem in _reading_problems(path, configs[path.name])]
    for name, config in configs.items():
        if name not in BASES:
            problems += [f"{name}: {problem}" for problem in _overlay_problems(config, configs)]
    return problems


def overlay_bases(config: dict[str, Any]) -> list[str]:
    """Say which bases an overlay is for: those its ``_desc_`` names."""
    return [base for base in BASES if base in str(config.get("_desc_", ""))]


def _reading_problems(path: Path, config: dict[str, Any]) -> Iterator[str]:
    """Rules that one file meets or breaks by itself."""
    if next(iter(config), None) != "_desc_":
        yield "the first key must be _desc_, saying what the file is for."
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if '"$' in line and len(line) > MAX_COLUMNS:
            yield f"line {number} holds an expression and must fit {MAX_COLUMNS} columns, got {len(line)}."
    number = sum(isinstance(value, str) and value.startswith("$") for _, _, value in _walk(config))
    if number > MAX_EXPRESSIONS:
        yield f"the file must hold at most {MAX_EXPRESSIONS} expressions, got {number}."
    yield from _order_problems("the file", config)
    for section in ("train", "validate"):
        if isinstance(config.get(section), dict):
            yield from _order_problems(section, config[section])
    yield from _start_problems(config)
    for where, key, value in _walk(config):
        if key.startswith("_") and key not in _MONAI_WORDS:
            yield f"{where} must not start with _; a comment is called _desc_."
        if "#" in key:
            yield f"{where} must join its parts with ::, not with #."
        if key == "_target_":
            yield from _target_problems(where, value)
        if isinstance(value, str) and key != "_desc_":
            yield from _text_problems(where, value)


def _order_problems(name: str, section: dict[str, Any]) -> Iterator[str]:
    known = [key for key in section if key in KEY_ORDER]
    if known != (wanted := sorted(known, key=KEY_ORDER.index)):
        yield f"{name} must have its keys in the order {', '.join(wanted)}, got {', '.join(known)}."


def _start_problems(config: dict[str, Any]) -> Iterator[str]:
    """Nothing is built in ``initialize``: MONAI puts a released bundle's code on the path in ``run`` only."""
    for number, item in enumerate(config.get("initialize", ())):
        names = re.findall(r"@([\w:]+)", item) if isinstance(item, str) else []
        if isinstance(item, dict) or any(isinstance(config.get(name.split("::")[0]), dict) for name in names):
            yield f"initialize::{number} must not build a component; make it an item of run."


def _text_problems(where: str, value: str) -> Iterator[str]:
    if where.startswith("imports::"):
        if problem := import_problem(value):
            yield f"{where} {problem}"
    elif _IMPORT_STATEMENT.match(value):
        yield f"{where} must not import; imports have their own section."
    elif value.startswith("$"):
        yield from (f"{where} {problem}" for problem in expression_problems(value[1:]))
    if re.search(r"https?:|ftp:", value):
        yield f"{where} must not hold a network address."
    if _HASH_REFERENCE.search(value):
        yield f"{where} must join the parts of a reference with ::, not with #."
    if _OTHER_FILE.search(value):
        yield f"{where} must not quote another file with %: it is looked up in the current directory."
    if re.search(r"(^|::)(pre|post)processing(::|$)", where) and "bundle_root" in value:
        yield f"{where} must not use bundle_root: MONAI Label and Deploy run it elsewhere."
    if re.match(r"(/(?!/)\w|[A-Za-z]:\\)", value):
        yield f"{where} must not be a path of one machine, got {value}."


def _target_problems(where: str, value: Any) -> Iterator[str]:
    """A component of ours is named in full, and its file defines it."""
    target = str(value)
    if not target.startswith("shared_nets"):
        if target.split(".")[0] in {"scripts", "bundles", "tools", "tests"}:
            yield f"{where} must name something that is installed, got {target}."
        return
    module, _, name = target.rpartition(".")
    source = _REPOSITORY / (module.replace(".", "/") + ".py")
    if not source.is_file():
        # a class method: shared_nets.a.b.Class.method
        module, _, name = module.rpartition(".")
        source = _REPOSITORY / (module.replace(".", "/") + ".py")
    if not source.is_file() or name not in _defined_names(source):
        yield f"{where} must name a function or class of shared_nets, got {target}."


def _defined_names(source: Path) -> set[str]:
    nodes = ast.parse(source.read_text(encoding="utf-8")).body
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _overlay_problems(config: dict[str, Any], configs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """An overlay sets what its base has, and addresses no list item by its number."""
    bases = overlay_bases(config)
    if not bases:
        yield "an overlay's _desc_ must name its base, inference.json or train.json."
    for path in (key.removeprefix("+") for key in config if key != "_desc_"):
        parts = path.split("::")
        if any(part.isdigit() for part in parts):
            yield f'{path} must not address a list item by its number; switch it with "_disabled_".'
            continue
        for base in bases:
            found: Any = configs.get(base, {})
            for part in parts:
                found = found.get(part, _MISSING) if isinstance(found, dict) else _MISSING
            if found is _MISSING:
                yield f"{path} must exist in {base}, which has no such entry."


def _walk(value: Any, where: str = "") -> Iterator[tuple[str, str, Any]]:
    """Visit every entry, as its path, its last key and its value."""
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = ((str(number), item) for number, item in enumerate(value))
    for key, item in pairs:
        path = f"{where}::{key}" if where else key
        yield path, key, item
        yield from _walk(item, path)


_MISSING = object()
