"""Verify bundles, offline: all that the CI of MONAI's model zoo checks, and the rules of this collection.

    python -m tools.verify_bundle [FOLDER …] [--quick]

Without a folder every bundle is verified. First what is read: files, metadata against MONAI's schema, weights
against their sha256, the card, expressions. Then, unless ``--quick``, what is only seen when the bundle is
built: MONAI's required properties, the network's input and output, weights key by key, exports that the
metadata declare. Exit status 1 when a rule is broken.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.bundle_rules import bundle_folders, bundle_problems


def verify(bundle: Path, *, quick: bool = False) -> list[str]:
    """Check a bundle.

    Args:
        bundle: its folder.
        quick: read it only; build nothing.

    Returns:
        One sentence a breach; empty when all is well. What cannot even be read is not built.
    """
    problems = bundle_problems(bundle)
    if problems or quick:
        return problems
    from tools.export_onnx import export_problems  # MONAI and torch are slow to import
    from tools.network_rules import network_problems

    return network_problems(bundle) or export_problems(bundle)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every breach, or one line a bundle that has none."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.verify_bundle", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="a bundle; all without one")
    parser.add_argument("--quick", action="store_true", help="read files only; build nothing")
    options = parser.parse_args(arguments)
    broken = False
    for folder in options.folders or bundle_folders():
        problems = verify(folder.resolve(), quick=options.quick)
        broken |= bool(problems)
        for problem in problems:
            print(f"{folder.resolve().name}: {problem}", flush=True)
        if not problems:
            print(f"{folder.resolve().name}: no rule is broken", flush=True)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
