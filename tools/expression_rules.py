"""Which Python expressions the JSON of a bundle may hold: short ones that can do no harm.

MONAI evaluates every text that starts with ``$``. What it may say is a list of what is allowed, not of what
is forbidden: references, arithmetic, a few functions of Python, and a few names of torch, numpy and MONAI.
Everything else gets a name in ``shared_nets``, where it is read, typed and tested.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

_REFERENCE = re.compile(r"[@%][\w:]+")
#: Functions and words of Python without effects.
_BUILTINS = frozenset(
    {
        *(
            "abs",
            "all",
            "any",
            "bool",
            "dict",
            "enumerate",
            "float",
            "int",
            "len",
            "list",
            "max",
            "min",
            "range",
        ),
        *("reversed", "round", "set", "sorted", "str", "sum", "tuple", "zip"),
    }
)
#: What MONAI offers to every expression, under these names, and what the section ``imports`` may add.
_MODULES = {
    "torch": "torch",
    "np": "numpy",
    "numpy": "numpy",
    "monai": "monai",
    "pathlib": "pathlib",
    "math": "math",
}
_ALLOWED_NAMES = re.compile(
    r"torch\.(device|cuda\.(is_available|device_count)|bool|tensor|inf|b?float\d+|u?int\d+)"
    r"|numpy\.(bool|inf|float\d+|u?int\d+)"
    r"|monai\.utils\.set_determinism"
    r"|monai\.handlers\.(from_engine|stopping_fn_from_metric|stopping_fn_from_loss)"
    r"|pathlib\.Path"
    r"|math\.\w+"
)
#: Methods that reach a disk or start something, whatever they are called on.
_FORBIDDEN_METHODS = frozenset(
    {
        *(
            "chmod",
            "exec",
            "hardlink_to",
            "mkdir",
            "open",
            "popen",
            "read_bytes",
            "read_text",
            "rename",
            "rmdir",
        ),
        *("symlink_to", "system", "touch", "unlink", "write_bytes", "write_text"),
    }
)


def import_problem(text: str) -> str | None:
    """Check an entry of the section ``imports``.

    Args:
        text: ``$import pathlib``.

    Returns:
        What is wrong with it; ``None`` when nothing is.
    """
    found = re.fullmatch(r"\$\s*import (\w+)", text)
    if found and found.group(1) in _MODULES:
        return None
    return f"must import one of {', '.join(sorted(_MODULES))}, got {text}."


def expression_problems(text: str) -> Iterator[str]:
    """Check an expression.

    Args:
        text: without its ``$``.

    Returns:
        What is wrong with it, one sentence a breach.
    """
    try:
        tree = ast.parse(_REFERENCE.sub("_reference", text).strip(), mode="eval")
    except SyntaxError:
        yield "must be a Python expression."
        return
    bound = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    known = bound | _BUILTINS | _MODULES.keys() | {"_reference"}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            yield "must not use lambda; give the logic a name in shared_nets."
        elif isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
            yield "must be a plain expression; give the logic a name in shared_nets."
        elif isinstance(node, ast.Attribute) and (
            node.attr.startswith("_") or node.attr in _FORBIDDEN_METHODS
        ):
            yield f"must not use {node.attr}; give the logic a name in shared_nets."
        elif isinstance(node, ast.Name) and node.id not in known:
            yield f"must not use {node.id}; give the logic a name in shared_nets."
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner:
            yield from _module_problems(node)


def _module_problems(node: ast.expr) -> Iterator[str]:
    """What is taken from a module must be on the list: ``torch.hub.load`` is not."""
    name = ast.unparse(node)
    root, _, rest = name.partition(".")
    if root in _MODULES and isinstance(_root(node), ast.Name):
        full = f"{_MODULES[root]}.{rest}"
        if not _ALLOWED_NAMES.fullmatch(full):
            yield f"must not use {name}; give the logic a name in shared_nets."


def _root(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node
