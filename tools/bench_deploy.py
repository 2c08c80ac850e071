"""Measure what the MONAI Deploy application costs over the runtime: the same study through both, by turns.

    python -m tools.bench_deploy [--quick] [--image SERIES]

Each runs in a process of its own, from its start to its end, and writes the same files; the application also
writes a PDF. Both have one thread, as what waiting threads burn would hide the difference. Processor time
stands beside the time on the wall, which other work on the machine makes longer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tools.demo_data import series_or_phantom
from tools.deploy_app.sdk import INSTALL, is_installed

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLE = "kidney_ct_segmentation"
ROUNDS, QUICK_ROUNDS = 5, 1
_RUNTIME = """
import sys
from shared_nets.runtime.carried_code import open_bundle
root, image, out = sys.argv[1:]
(outcome,) = open_bundle(root).run([{"study_id": "study", "image": image}], output_dir=out)
raise SystemExit(outcome.refusal is not None)
"""


class Cost(NamedTuple):
    """What a process took, seconds, and the most memory it held, MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also where MONAI Deploy is not installed, which is said."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench_deploy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--image", type=Path, help="another series than the demo's")
    options = parser.parse_args(arguments)
    if not is_installed():
        print(f"MONAI Deploy is not installed, so nothing is measured: {INSTALL}")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        image = (options.image or series_or_phantom(folder)).resolve()
        _compare(image, folder, QUICK_ROUNDS if options.quick else ROUNDS)
    return 0


def _compare(image: Path, folder: Path, rounds: int) -> None:
    root = str(REPOSITORY / "bundles" / BUNDLE)
    runtime = ["-c", _RUNTIME, root, str(image), str(folder / "runtime")]
    app = ["-m", "tools.deploy_app", "--bundle", BUNDLE, "-i", str(image), "-o", str(folder / "app")]
    app += ["--study_id", "study"]
    pairs = [(_run(runtime), _run(app)) for _ in range(rounds + 1)][1:]  # the first one fills the caches
    written, expected = (folder / name / "study" / "result.json" for name in ("app", "runtime"))
    if written.read_bytes() != expected.read_bytes():
        raise ValueError("the application must give the runtime's result, got another.")
    print(f"{BUNDLE} on {image.name}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"{f'median of {rounds}':14s}{'runtime':>10s}{'app':>10s}{'app costs':>12s}")
    for name, unit in (("wall_s", "s"), ("cpu_s", "s"), ("peak_mib", "MiB")):
        took = [(getattr(alone, name), getattr(within, name)) for alone, within in pairs]
        medians = [statistics.median(side) for side in zip(*took, strict=True)]
        cost = statistics.median(within - alone for alone, within in took)
        words = {"wall_s": "wall", "cpu_s": "processor", "peak_mib": "peak memory"}[name]
        print(f"{words:14s}{medians[0]:10.2f}{medians[1]:10.2f}{cost:+12.2f} {unit}")


def _run(command: Sequence[str]) -> Cost:
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    complaint = process.stderr.read() if process.stderr is not None else b""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"status must be 0, got {process.returncode}:\n{complaint.decode()[-3000:]}")
    return Cost(time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


if __name__ == "__main__":
    sys.exit(main())
