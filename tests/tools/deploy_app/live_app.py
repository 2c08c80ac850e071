"""Run the MONAI Deploy application live: several runs in one process of its own, as its start is slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
_DRIVER = """
import contextlib, io, json, sys
from tools.deploy_app.__main__ import main
for arguments in json.loads(sys.stdin.read()):
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = ended.code
    print("\\nDONE " + json.dumps([status, said.getvalue(), complained.getvalue()]), flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run left: its exit status, and what it wrote to stdout and stderr."""

    status: int
    said: str
    complained: str


def run_application(*command: str, environment: Mapping[str, str] | None = None) -> Run:
    """Start one application as a user does, without a GPU.

    Args:
        command: what follows the interpreter; ``-m tools.deploy_app`` and its arguments, or a packaged one.
        environment: variables beside those of this process.
    """
    done = subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **(environment or {})},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return Run(status=done.returncode, said=done.stdout, complained=done.stderr)


def run_applications(calls: Sequence[Sequence[str]]) -> list[Run]:
    """Run the application once for each list of arguments, one after the other in one process."""
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER],
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        input=json.dumps(list(calls)),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    lines = [line.removeprefix("DONE ") for line in done.stdout.splitlines() if line.startswith("DONE ")]
    assert len(lines) == len(calls), done.stderr[-3000:]
    return [Run(status=s, said=out, complained=err) for s, out, err in map(json.loads, lines)]
