"""Hold a bundle to the rules of this collection, without loading MONAI: files, metadata, card, weights, JSON.

Used by ``python -m tools.verify_bundle`` and by the tests; each rule yields one sentence a breach.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tools.config_rules import config_problems, read_config

REPOSITORY = Path(__file__).resolve().parents[1]
SCHEMA = Path(__file__).with_name("templates") / "meta_schema_20240725.json"

#: The sections of every model card, in this order.
CARD_SECTIONS = (
    "At a glance",
    "Run it",
    "Input",
    "Output",
    "Data",
    "Evaluation",
    "Limits and known failures",
    "Provenance",
    "References",
)
CARD_STATUS = "Research use only. Not a medical device."
MAX_CARD_LINES = 150
MAX_WEIGHT_FILE_BYTES = 8_000_000
MAX_WEIGHTS_OF_ALL_BUNDLES_BYTES = 40_000_000

_INSIDE_MODELS = re.compile(r"models/[\w.-]+")
_TASKS = ("segmentation", "classification", "detection", "generation", "pretraining")
_NEEDED_FILES = (
    *("LICENSE", "large_files.yml", "models/model.pt"),
    *("configs/metadata.json", "configs/logging.conf", "docs/README.md", "docs/data_license.txt"),
)
_ALLOWED_SUFFIXES = {
    ".json",
    ".conf",
    ".md",
    ".txt",
    ".yml",
    ".png",
    ".csv",
    ".pt",
    ".ckpt",
    ".npz",
    ".safetensors",
}
#: What ``exports`` of the metadata may name: formats in which the network gives the same numbers.
EXPORT_FORMATS = ("onnx",)

_VERSION_KEYS = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}


def bundle_folders(root: Path = REPOSITORY) -> list[Path]:
    """Find every bundle of a repository, sorted by name."""
    return sorted(path for path in (root / "bundles").glob("*/") if any(path.rglob("*.*")))


def bundle_problems(bundle: Path) -> list[str]:
    """Check everything about a bundle that needs no network built.

    Args:
        bundle: its folder.

    Returns:
        One sentence a breach; empty when all is well.
    """
    metadata, unreadable = read_config(bundle / "configs" / "metadata.json")
    large_files, malformed = read_large_files(bundle)
    return [
        *_file_problems(bundle, large_files),
        *unreadable,
        *malformed,
        *_metadata_problems(bundle, metadata),
        *_weight_problems(bundle, metadata, large_files),
        *_card_problems(bundle, metadata),
        *config_problems(bundle / "configs"),
    ]


def read_large_files(bundle: Path) -> tuple[dict[str, str], list[str]]:
    """Read ``large_files.yml``: what is too large for the repository and for a release.

    Args:
        bundle: folder of the bundle.

    Returns:
        The sha256 of each file by its path in the bundle, and the breaches.
    """
    path = bundle / "large_files.yml"
    if not path.is_file():
        return {}, []  # named among the missing files
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = content["large_files"]
    except (yaml.YAMLError, TypeError, KeyError):
        return {}, [f"{path.name} must be YAML with the list large_files."]
    files: dict[str, str] = {}
    problems = []
    for entry in entries or ():
        facts = entry if isinstance(entry, dict) else {}
        name, digest = str(facts.get("path", "")), str(facts.get("hash_val", ""))
        if not _INSIDE_MODELS.fullmatch(name):
            problems.append(f"{path.name}: path must name a file in models/, got {name!r}.")
        elif not str(facts.get("url", "")).startswith("https://"):
            problems.append(f"{path.name}: url of {name} must start with https://, got {facts.get('url')}.")
        elif facts.get("hash_type") != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", digest):
            problems.append(f"{path.name}: {name} must have hash_type sha256 and its 64 digits in hash_val.")
        else:
            files[name] = digest
    return files, problems


def name_problems(name: str) -> list[str]:
    """Check the name of a bundle; MONAI Label reads the task from its end."""
    if re.fullmatch(rf"[a-z][a-z0-9]*(_[a-z0-9]+)*_({'|'.join(_TASKS)})", name):
        return []
    return [f"the name must be snake_case and end in one of {', '.join(_TASKS)}, got {name}."]


def sha256_of(path: Path) -> str:
    """Give the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_problems(bundle: Path, large_files: dict[str, str]) -> Iterator[str]:
    """A bundle holds JSON, prose and weights; all behaviour is in the package."""
    yield from name_problems(bundle.name)
    for name in _NEEDED_FILES:
        path = bundle / name
        if not path.is_file():
            if name not in large_files:
                yield f"{name} is missing."
        elif not path.stat().st_size:
            yield f"{name} is empty."
    for path in sorted(bundle.rglob("*")):
        name = path.relative_to(bundle).as_posix()
        if path.is_dir():
            if path.name in {"scripts", "__pycache__"}:
                yield f"{name}/ must not be in a bundle: code belongs in shared_nets."
        elif path.suffix not in _ALLOWED_SUFFIXES and name != "LICENSE":
            yield f"{name} must not be in a bundle: it holds JSON, prose and weights only."


def _metadata_problems(bundle: Path, metadata: dict[str, Any]) -> Iterator[str]:
    """The published schema, the names that Label and Deploy look for, and versions that agree with ours."""
    if metadata.get("name") != bundle.name:
        yield f"metadata.json: name must be that of the folder, {bundle.name}, got {metadata.get('name')}."
    exports = metadata.get("exports")
    if not isinstance(exports, list) or not set(map(str, exports)) <= set(EXPORT_FORMATS):
        yield f"metadata.json: exports must be a list of {', '.join(EXPORT_FORMATS)} or empty, got {exports}."
    validator = jsonschema.Draft201909Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for error in validator.iter_errors(metadata):
        yield f"metadata.json: {'::'.join(map(str, error.absolute_path)) or 'the file'}: {error.message}."
    formats = metadata.get("network_data_format", {})
    for kind, wanted in (("inputs", "image"), ("outputs", "pred")):
        if (first := next(iter(formats.get(kind, {})), None)) != wanted:
            yield f"metadata.json: the first of {kind} must be named {wanted}, got {first}."
    if metadata.get("version") not in metadata.get("changelog", {}):
        yield "metadata.json: changelog must say what is new in version."
    pinned = pinned_versions()
    wanted_versions = {_VERSION_KEYS[key]: metadata.get(key) for key in _VERSION_KEYS}
    wanted_versions |= metadata.get("required_packages_version", {})
    for package, version in wanted_versions.items():
        if (pin := pinned.get(package.lower())) != version:
            said = f"be {pin} as in requirements.txt" if pin else "stand in requirements.txt"
            yield f"metadata.json: the version of {package} must {said}, got {version}."


def pinned_versions() -> dict[str, str]:
    """Read which version of each package the repository uses, by its name in lower case."""
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {name.strip().lower(): version.strip() for name, version in pairs}


def _weight_problems(bundle: Path, metadata: dict[str, Any], large_files: dict[str, str]) -> Iterator[str]:
    """Every file of ``models/`` is small or fetched, and stands with its sha256 in the metadata."""
    stated = metadata.get("weights", {})
    found = {
        path.relative_to(bundle).as_posix(): path
        for path in sorted((bundle / "models").rglob("*"))
        if path.is_file()
    }
    for name in sorted(stated.keys() - found.keys() - large_files.keys()):
        yield f"metadata.json: weights names {name}, which is not there."
    for name, digest in large_files.items():
        if digest != (said := stated.get(name, {}).get("sha256")):
            yield f"metadata.json: the sha256 of {name} must be {digest} as in large_files.yml, got {said}."
    for name, path in found.items():
        if path.stat().st_size > MAX_WEIGHT_FILE_BYTES and name not in large_files:
            yield f"{name} must have at most {MAX_WEIGHT_FILE_BYTES} bytes, got {path.stat().st_size}."
        if name not in stated:
            yield f"metadata.json: weights must name {name} with its sha256."
        elif (digest := sha256_of(path)) != (said := stated[name].get("sha256")):
            yield f"metadata.json: the sha256 of {name} must be {digest}, got {said}."


def _card_problems(bundle: Path, metadata: dict[str, Any]) -> Iterator[str]:
    """The model card says the same things in the same order as every other one."""
    path = bundle / "docs" / "README.md"
    if not path.is_file():
        return  # named among the missing files
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if len(lines) > MAX_CARD_LINES:
        yield f"docs/README.md must have at most {MAX_CARD_LINES} lines, got {len(lines)}."
    outside_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    sections = tuple(re.findall(r"^## (.+?)\s*$", outside_code, flags=re.MULTILINE))
    if sections != CARD_SECTIONS:
        yield f"docs/README.md must have the sections {', '.join(CARD_SECTIONS)}, got {', '.join(sections)}."
    if CARD_STATUS not in outside_code.partition("\n## ")[0]:
        yield f"docs/README.md must say before its first section: {CARD_STATUS}"
    if placeholder := re.search(r"\bTODO\b|\bTBD\b|\bFIXME\b|lorem ipsum|\?\?\?", text, flags=re.IGNORECASE):
        yield f"docs/README.md must hold no placeholder, got {placeholder.group()}."
    for name, weights in metadata.get("weights", {}).items():
        if str(weights.get("sha256"))[:12] not in text:
            yield f"docs/README.md must state the sha256 of {name}, at least its first 12 digits."
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", outside_code):
        if not (path.parent / target).exists():
            yield f"docs/README.md links to {target}, which is not there."
