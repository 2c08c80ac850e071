"""Say in one screen what is installed, what is missing and how to get it, and what this machine can run.

    python -m tools.doctor [--json]

Exit status 1 when bundles will not run: a package, a file of weights or memory is missing or wrong. Optional
parts that are missing do not count.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from tools.doctor_checks import Check, all_checks

REPOSITORY = Path(__file__).resolve().parents[1]
_MARKS = {"ok": "ok", "optional": "--", "note": "  ", "broken": "!!"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Look, and print the report; 1 when something is broken."""
    parser = argparse.ArgumentParser(prog="python -m tools.doctor", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    checks = all_checks(REPOSITORY)
    is_well = all(check.status != "broken" for check in checks)
    if options.json:
        report = {"ok": is_well, "checks": [asdict(check) for check in checks]}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(as_text(checks))
    return int(not is_well)


def as_text(checks: Sequence[Check]) -> str:
    """Write the report for people.

    Args:
        checks: in the order of their parts.

    Returns:
        Lines: ``ok`` is well, ``--`` is optional and missing, ``!!`` is broken; the remedy follows an arrow.
    """
    width = max(len(check.name) for check in checks)
    lines = []
    for part, group in groupby(checks, key=lambda check: check.part):
        lines.append(part)
        for check in group:
            remedy = f"  → {check.remedy}" if check.remedy else ""
            lines.append(f"  {_MARKS[check.status]} {check.name:<{width}}  {check.said}{remedy}")
    number = sum(check.status == "broken" for check in checks)
    lines.append(
        f"{number} broken; see the lines with !!" if number else "Nothing is broken: bundles run here."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
