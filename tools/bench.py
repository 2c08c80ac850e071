"""Run every benchmark, one after the other, and say at the end which ran: what ``make bench`` calls.

    python -m tools.bench [--quick] [NAME …]

A benchmark is a file ``tools/bench_<name>.py`` with a command line of its own; no list names them. Each runs
in a process of its own, so that none warms the caches or the memory of another.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_TOOLS = Path(__file__).resolve().parent


def find_benchmarks(folder: Path = _TOOLS) -> dict[str, Path]:
    """Find the benchmarks, by their names without ``bench_``, in the order of the alphabet."""
    return {path.stem.removeprefix("bench_"): path for path in sorted(folder.glob("bench_*.py"))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them, print what they print under their names, and return 1 when one failed."""
    benchmarks = find_benchmarks()
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, where a benchmark knows how")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(benchmarks)}; all without one"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in benchmarks]:
        parser.error(f"NAME must be one of {', '.join(benchmarks)}, got {', '.join(unknown)}.")

    lines, failed = [], False
    for name in options.names or benchmarks:
        path = benchmarks[name]
        quick = ["--quick"] if options.quick and '"--quick"' in path.read_text(encoding="utf-8") else []
        print(f"\n=== {name}: python -m tools.{path.stem} {' '.join(quick)}".rstrip(), flush=True)
        start = time.monotonic()
        status = subprocess.run(
            [sys.executable, "-m", f"tools.{path.stem}", *quick], cwd=_TOOLS.parent
        ).returncode
        failed |= status != 0
        outcome = "ran" if status == 0 else f"failed with exit status {status}"
        lines.append(f"{name:<12} {outcome}, {time.monotonic() - start:.0f} s")
    print("\n=== summary", *lines, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
