"""The rules of the house that no linter knows: import arrows, file length, safe loading, no machine paths."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MAX_LINES = 400
#: Folders of shared_nets that may import from another one; every other folder is a leaf.
ARROWS = {"nets": {"blocks"}, "handlers": {"writers"}}
#: Files that every folder may import.
VOCABULARY = {"types", "refusals"}
ON_TOP = "runtime"
#: Heavy or optional packages, and the only files that may import each, at first use.
HEAVY_PACKAGES = {
    "tabpfn": {"shared_nets/nets/tabpfn_embedder.py"},
    "transformers": set(),
    "mamba_ssm": {"shared_nets/blocks/selective_scan_cuda.py"},
    "peft": {"shared_nets/blocks/lora_adapters.py"},
    "h5py": {"shared_nets/data/hdf5_photographs.py"},
    "highdicom": {
        "shared_nets/data/mask_reader.py",
        "shared_nets/writers/dicom_kidney.py",
        "shared_nets/writers/dicom_lesion.py",
        "shared_nets/writers/dicom_measurements.py",
        "shared_nets/writers/dicom_pdf.py",
        "shared_nets/writers/dicom_picture.py",
        "shared_nets/writers/dicom_report.py",
        "shared_nets/writers/dicom_seg.py",
    },
}
NETWORK_PACKAGES = {"socket", "ssl", "http", "urllib", "ftplib", "requests", "httpx", "aiohttp"}
TEXT_SUFFIXES = {".py", ".json", ".md", ".txt", ".toml", ".yml", ".yaml", ".conf", ".cfg", ".sh", ""}
MACHINE_PATH = re.compile(r"""(?<![\w.:/@)}>])/(?:home|root|work|workspace|Users|mnt|scratch|tmp)/\w""")
REGISTRY_HOST = re.compile(r"\bpypi\.org|\bpythonhosted\.org|\bdownload\.pytorch\.org|\bconda\.anaconda\.org")


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def text_files() -> list[Path]:
    """Find what a reader of the repository sees; caches and environments are not part of it."""
    roots = [REPOSITORY / name for name in ("bundles", "docs", "shared_nets", "tests", "tools", ".ci")]
    files = [path for root in roots for path in root.rglob("*")]
    files += [path for path in REPOSITORY.iterdir() if path.name != ".git"]
    return [
        path
        for path in files
        if path.is_file() and path.suffix in TEXT_SUFFIXES and "__pycache__" not in path.parts
    ]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Give every imported name in full, wherever in the file it is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node


def broken_arrow(importer: Path, imported: str) -> str | None:
    """Say which arrow an import breaks, ``None`` when it breaks none.

    ``importer`` is relative to the repository, ``imported`` a dotted name.
    """
    package, *inside = importer.with_suffix("").parts
    target, *target_inside = imported.split(".")
    if package == "shared_nets" and target in {"tools", "bundles", "tests"}:
        return f"{importer} imports {imported}: the package knows neither tools nor bundles"
    if package == "tools" and target in {"bundles", "tests"}:
        return f"{importer} imports {imported}: tools know only the package"
    if package != "shared_nets" or target != "shared_nets" or not target_inside:
        return None
    folder, other = inside[0], target_inside[0]
    if other in VOCABULARY or other == folder or folder == ON_TOP or other in ARROWS.get(folder, set()):
        return None
    return f"{importer} imports {imported}: {folder} may import {_allowed(folder)} only"


def _allowed(folder: str) -> str:
    return ", ".join(sorted(VOCABULARY | ARROWS.get(folder, set()) | {folder}))


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """Give every call of one of ``names``, written as in the source: ``torch.load``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
            yield node


def unsafe_loads(tree: ast.AST) -> list[int]:
    """Find the lines that load what could run code."""
    unsafe = [
        *(node for node in calls(tree, "torch.load") if not _says(node, "weights_only", True)),
        *(node for node in calls(tree, "np.load", "numpy.load") if _says(node, "allow_pickle", True)),
        *calls(tree, "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "dill.load"),
    ]
    return sorted(node.lineno for node in unsafe)


def _says(call: ast.Call, name: str, value: object) -> bool:
    return any(
        keyword.arg == name and isinstance(keyword.value, ast.Constant) and keyword.value.value is value
        for keyword in call.keywords
    )


def lines_with(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_every_import_follows_the_arrows():
    broken = [
        broken_arrow(path.relative_to(REPOSITORY), name)
        for path in python_files("shared_nets", "tools")
        for name, _ in imports(parsed(path))
    ]
    assert sorted({problem for problem in broken if problem}) == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        pytest.param("shared_nets/blocks/mlp.py", "shared_nets.nets.vit.Vit", id="block imports a network"),
        pytest.param("shared_nets/writers/json.py", "shared_nets.handlers.x", id="writer imports a handler"),
        pytest.param("shared_nets/data/reader.py", "shared_nets.transforms.x", id="leaf imports a leaf"),
        pytest.param("shared_nets/nets/vit.py", "shared_nets.runtime.run", id="network imports the runtime"),
        pytest.param("shared_nets/types.py", "shared_nets.data.x", id="vocabulary imports a folder"),
        pytest.param("shared_nets/data/reader.py", "tools.demo", id="package imports a tool"),
        pytest.param("tools/demo.py", "bundles.x", id="tool imports a bundle"),
    ],
)
def test_arrow_against_the_rule_is_found(importer, imported):
    assert broken_arrow(Path(importer), imported) is not None


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("shared_nets/nets/vit.py", "shared_nets.blocks.mlp.Mlp"),
        ("shared_nets/handlers/result.py", "shared_nets.writers.result_json"),
        ("shared_nets/data/reader.py", "shared_nets.data.grid"),
        ("shared_nets/writers/json.py", "shared_nets.types.CKDResult"),
        ("shared_nets/runtime/run.py", "shared_nets.transforms.x"),
        ("tools/demo.py", "shared_nets.runtime.run"),
    ],
)
def test_arrow_along_the_rule_is_allowed(importer, imported):
    assert broken_arrow(Path(importer), imported) is None


@pytest.mark.parametrize("package", HEAVY_PACKAGES)
def test_heavy_package_is_imported_in_its_files_only_and_at_first_use(package):
    found = defaultdict(list)
    for path in python_files("shared_nets"):
        for name, node in imports(parsed(path)):
            if name.split(".")[0] == package:
                found[path.relative_to(REPOSITORY).as_posix()].append(node)
    assert set(found) <= HEAVY_PACKAGES[package]
    for name, nodes in found.items():
        at_import = [node.lineno for node in nodes if node in parsed(REPOSITORY / name).body]
        assert not at_import, f"{name} imports {package} when it is imported itself, lines {at_import}"


def test_no_python_file_is_longer_than_400_lines():
    lengths = {
        path.relative_to(REPOSITORY).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files("shared_nets", "tools", "tests")
    }
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_every_file_of_package_and_tools_says_first_what_it_is_for():
    files = python_files("shared_nets", "tools")
    silent = [path.relative_to(REPOSITORY) for path in files if not ast.get_docstring(parsed(path))]
    assert silent == []


def test_package_logs_and_never_prints():
    found = {
        path.relative_to(REPOSITORY).as_posix(): [call.lineno for call in calls(parsed(path), "print")]
        for path in python_files("shared_nets")
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_nothing_loads_what_could_run_code():
    found = {
        path.relative_to(REPOSITORY).as_posix(): unsafe_loads(parsed(path))
        for path in python_files("shared_nets", "tools")  # a test may pickle what it made itself
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("code", "is_unsafe"),
    [
        ("torch.load(path, weights_only=True)", False),
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("torch.load(path, weights_only=flag)", True),
        ("numpy.load(path, allow_pickle=True)", True),
        ("pickle.loads(data)", True),
    ],
)
def test_load_that_could_run_code_is_found(code, is_unsafe):
    assert bool(unsafe_loads(ast.parse(code))) is is_unsafe


def test_no_text_names_a_path_of_one_machine():
    assert lines_with(MACHINE_PATH, text_files()) == []


def test_no_text_names_the_host_of_a_package_registry():
    assert lines_with(REGISTRY_HOST, text_files()) == []


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        pytest.param("/".join(["open('", "home", "me/x')"]), True, id="home"),
        pytest.param("/".join(["see ", "Users", "me"]), True, id="users"),
        pytest.param("bundle_root/models", False, id="part of a word"),
        pytest.param("$B/scratch/x", False, id="below a variable"),
    ],
)
def test_machine_path_is_found(text, is_found):
    assert bool(MACHINE_PATH.search(text)) is is_found


def test_package_imports_nothing_that_reaches_a_network():
    found = {
        (path.relative_to(REPOSITORY).as_posix(), name)
        for path in python_files("shared_nets")
        for name, _ in imports(parsed(path))
        if name.split(".")[0] in NETWORK_PACKAGES
    }
    assert found == set()
