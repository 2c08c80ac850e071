"""Measure MONAI Label with the bundles: start, requests beside the runtime alone, memory over it.

    python -m tools.bench_label [--quick] [--image SERIES]

The demo's CT series goes by turns through a live server and through the runtime in a process of its own,
which writes nothing but result.json; both have loaded the same bundles, and both results must be equal.
Processor time stands beside the time on the wall, which other work on the machine makes longer.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import requests

from shared_nets.runtime.bundle import BundleRuntime
from tools.demo_data import series_or_phantom

REPOSITORY = Path(__file__).resolve().parents[1]
#: What each bundle is asked beside the series; age and sex are made up.
REQUESTS: dict[str, dict[str, Any]] = {
    "kidney_ct_segmentation": {},
    "ckd_staging_classification": {"clinical": {"age": 65, "sex": "female"}},
}
ROUNDS, QUICK_ROUNDS = 5, 1
START_LIMIT_S, REQUEST_LIMIT_S = 600.0, 1800.0


class Cost(NamedTuple):
    """What something took, seconds."""

    wall_s: float
    cpu_s: float


class Server(NamedTuple):
    """A server that answers."""

    url: str
    process: psutil.Process
    start: Cost


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also where MONAI Label is not installed, which is said."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench_label",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--image", type=Path, help="another series than the demo's")
    parser.add_argument("--runtime", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.runtime is not None:
        _serve_runtime(options.image, Path(options.runtime))
        return 0
    if importlib.util.find_spec("monailabel") is None:
        print("MONAI Label is not installed, so nothing is measured: make label")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        image = (options.image or series_or_phantom(Path(temporary))).resolve()
        _compare(image, Path(temporary), QUICK_ROUNDS if options.quick else ROUNDS)
    return 0


def _compare(image: Path, folder: Path, rounds: int) -> None:
    costs: dict[tuple[str, str], list[Cost]] = {}
    with _label_server(image, folder) as server, _runtime_alone(image, folder) as alone:
        for _ in range(rounds + 1):  # the first one loads the bundle
            for name in REQUESTS:
                expected, cost = _ask_runtime(alone, name)
                costs.setdefault((name, "runtime"), []).append(cost)
                got, cost = _ask_label(server, name, image)
                costs.setdefault((name, "label"), []).append(cost)
                if got != expected:
                    raise ValueError(
                        f"{name} must give the runtime's result through MONAI Label, got another."
                    )
        label_mib, alone_mib = _peak_mib(server.process.pid), _peak_mib(alone.pid)
        busy = psutil.getloadavg()[0]
    print(f"{image.name}, {psutil.cpu_count()} processors, load {busy:.1f}")
    print(f"start to /info: {server.start.wall_s:.1f} s on the wall, {server.start.cpu_s:.1f} s of processor")
    print(f"\n{'median of ' + str(rounds) + ', s':32s}{'runtime':>16s}{'MONAI Label':>16s}{'Label is':>16s}")
    print(f"{'':32s}{'wall':>9s}{'cpu':>7s}{'wall':>9s}{'cpu':>7s}{'wall':>9s}{'cpu':>7s}")
    for name in REQUESTS:
        runtime, label = costs[name, "runtime"], costs[name, "label"]
        _print_row(f"{name}, first", runtime[:1], label[:1])
        _print_row(name, runtime[1:], label[1:])
    print(f"\npeak memory: runtime {alone_mib:.0f} MiB, MONAI Label {label_mib:.0f} MiB", end="")
    print(f", {label_mib - alone_mib:+.0f} MiB")


def _print_row(name: str, runtime: Sequence[Cost], label: Sequence[Cost]) -> None:
    """Print medians; what Label is to the runtime is the median of the rounds, whose load both share."""
    times = [statistics.median(took) for side in (runtime, label) for took in zip(*side, strict=True)]
    rounds = [
        [has / had for has, had in zip(*pair, strict=True)] for pair in zip(label, runtime, strict=True)
    ]
    ratios = [statistics.median(ratio) for ratio in zip(*rounds, strict=True)]
    numbers = f"{times[0]:9.2f}{times[1]:7.2f}{times[2]:9.2f}{times[3]:7.2f}"
    print(f"{name:32s}{numbers}{ratios[0]:7.2f} ×{ratios[1]:5.2f} ×")


@contextmanager
def _label_server(image: Path, folder: Path) -> Iterator[Server]:
    """Start a server on a free port, without images of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    (folder / "studies").mkdir()
    log = folder / "server.log"
    command = [sys.executable, "-m", "tools.monailabel_app", "--studies", str(folder / "studies")]
    command += ["--work", str(folder / "work"), "--readable", str(image), "--port", port]
    start = time.monotonic()
    with log.open("wb") as output:
        popen = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT)
    process, url = psutil.Process(popen.pid), f"http://127.0.0.1:{port}"
    try:
        while not _answers(url):
            if popen.poll() is not None or time.monotonic() - start > START_LIMIT_S:
                raise RuntimeError(f"The server did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)
        yield Server(url, process, Cost(time.monotonic() - start, _cpu_s(process)))
    finally:
        popen.terminate()
        popen.wait(timeout=60)


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/info/", timeout=START_LIMIT_S).ok
    except requests.ConnectionError:
        return False


def _ask_label(server: Server, name: str, image: Path) -> tuple[dict[str, Any], Cost]:
    """Ask as a viewer does, for result and mask."""
    form = {"params": json.dumps({**REQUESTS[name], "study_id": "study"})}
    query = {"image": str(image), "output": "all"}
    start, start_cpu = time.monotonic(), _cpu_s(server.process)
    response = requests.post(f"{server.url}/infer/{name}", params=query, data=form, timeout=REQUEST_LIMIT_S)
    cost = Cost(time.monotonic() - start, _cpu_s(server.process) - start_cpu)
    response.raise_for_status()
    body = response.content
    begin = body.index(b"{")  # of the first part, JSON
    answer: dict[str, Any] = json.JSONDecoder().raw_decode(body[begin:].decode("utf-8", "ignore"))[0]
    result: dict[str, Any] = answer["result"]
    return result, cost


@contextmanager
def _runtime_alone(image: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tools.bench_label", "--image", str(image), "--runtime", str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, stdin=pipe, stdout=pipe) as popen:
        try:
            yield popen
        finally:
            popen.terminate()


def _ask_runtime(alone: subprocess.Popen[str], name: str) -> tuple[dict[str, Any], Cost]:
    if alone.stdin is None or alone.stdout is None:
        raise ValueError("alone must have pipes, got none.")
    alone.stdin.write(f"{name}\n")
    alone.stdin.flush()
    for line in alone.stdout:  # libraries may print too
        if line.startswith("{"):
            answer = json.loads(line)
            return answer["result"], Cost(*answer["cost"])
    raise RuntimeError("The runtime ended before it answered.")


def _serve_runtime(image: Path, folder: Path) -> None:
    """Run the bundle of every name on standard input, and print result and cost as a line of JSON."""
    runtimes: dict[str, BundleRuntime] = {}
    for line in sys.stdin:
        name = line.strip()
        start, start_cpu = time.monotonic(), time.process_time()
        if name not in runtimes:
            runtimes[name] = BundleRuntime(REPOSITORY / "bundles" / name)
            runtimes[name].content("study_results").forms = ()
        study: Mapping[str, Any] = {"study_id": "study", "image": str(image), **REQUESTS[name]}
        (outcome,) = runtimes[name].run([study], output_dir=folder / "runtime")
        cost = Cost(time.monotonic() - start, time.process_time() - start_cpu)
        if outcome.refusal is not None:
            raise outcome.refusal
        result = json.loads(Path(outcome.files["result.json"]).read_text(encoding="utf-8"))
        print(json.dumps({"result": result, "cost": cost}), flush=True)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


if __name__ == "__main__":
    raise SystemExit(main())
