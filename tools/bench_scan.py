"""Speed and memory of the selective scan beside others: ``python -m tools.bench_scan [--quick]``.

One thread, all contenders of a table in one process and taking turns, medians of CPU time. Peers: the
definition of mamba-ssm's ``selective_scan_ref``, written out here because that package installs only where
CUDA is; transformers' slow path; mambapy's parallel scan.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from shared_nets.blocks.selective_scan import ScanBackend, selective_scan, set_scan_backend
from shared_nets.blocks.selective_scan_extension import extension_problem
from shared_nets.nets.mambaderm import mambaderm

CHANNELS, STATES = 384, 16
REFERENCE, TRANSFORMERS, MAMBAPY = "mamba-ssm's reference", "transformers, slow path", "mambapy"
TORCH, EXTENSION = "ours, plain torch", "ours, C++ extension"
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Goals = dict[str, int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_scan", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds, and no memory")
    parser.add_argument("--rounds", type=int, help="how often each contender runs")
    parser.add_argument("--peak", nargs=2, metavar=("NAME", "LENGTH"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if args.peak:
            print(_own_peak_mib(args.peak[0], int(args.peak[1])))
            return 0
        rounds = args.rounds or (3 if args.quick else 9)
        print(f"Selective scan, {CHANNELS} channels, {STATES} states, float32, one thread, {rounds} rounds")
        if problem := extension_problem():
            print(f"The C++ extension is left out: {problem}")
        _bench_scans(rounds)
        if not args.quick:
            _bench_memory()
        _bench_network(rounds)
    finally:
        torch.set_num_threads(threads)
    return 0


def reference_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Scan as ``selective_scan_ref`` of mamba-ssm is defined: all factors at once, then one step a token."""
    factors = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))  # (B, D, L, N)
    inputs = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)  # (B, D, L, N)
    state = u.new_zeros(u.shape[0], *A.shape)  # (B, D, N)
    outputs = []
    for t in range(u.shape[2]):
        state = factors[:, :, t] * state + inputs[:, :, t]
        outputs.append(torch.einsum("bdn,bn->bd", state, C[:, :, t]))
    return torch.stack(outputs, dim=2)


def _transformers_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan  # heavy, only to compare

    return mamba_selective_scan(u, delta, A, B, C)


def _mambapy_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    from mambapy.mamba import MambaBlock

    u, delta, B, C = (x.transpose(1, 2) for x in (u, delta, B, C))  # tokens before channels
    return MambaBlock.selective_scan(None, u, delta, A, B, C, u.new_zeros(u.shape[2])).transpose(1, 2)


def _ours(backend: ScanBackend) -> Scan:
    return lambda u, delta, A, B, C: selective_scan(u, delta, A, B, C, backend=backend)


def _scans() -> dict[str, Scan]:
    scans: dict[str, Scan] = {
        REFERENCE: reference_scan,
        TRANSFORMERS: _transformers_scan,
        MAMBAPY: _mambapy_scan,
        TORCH: _ours("torch"),
    }
    return scans if extension_problem() else scans | {EXTENSION: _ours("extension")}


def _make_inputs(batch: int, length: int, *, with_gradient: bool = False) -> Inputs:
    g = torch.Generator().manual_seed(0)
    u = torch.randn(batch, CHANNELS, length, generator=g)
    delta = 0.001 * 100 ** torch.rand(batch, CHANNELS, length, generator=g)  # as a block starts
    A = -torch.arange(1.0, STATES + 1).repeat(CHANNELS, 1)
    B, C = torch.randn(2, batch, STATES, length, generator=g)
    inputs = (u, delta, A, B, C)
    for x in inputs:
        x.requires_grad_(with_gradient)
    return inputs


def _bench_scans(rounds: int) -> None:
    forward: tuple[tuple[int, int, Goals], ...] = (
        (1, 784, {TORCH: 10, EXTENSION: 70}),
        (1, 3136, {TORCH: 16, EXTENSION: 70}),
        (8, 784, {TORCH: 8}),
    )
    for batch, length, goals in forward:
        inputs = _make_inputs(batch, length)
        with torch.inference_mode():
            _check(inputs)
            medians = _take_turns({name: _bind(scan, inputs) for name, scan in _scans().items()}, rounds)
        _print_table(f"forward, batch {batch}, {length} tokens", medians, REFERENCE, goals)
    both: tuple[tuple[int, set[str], str, Goals], ...] = (
        (784, set(), REFERENCE, {TORCH: 80}),
        # The backward pass of the first two is quadratic in the tokens: minutes.
        (3136, {REFERENCE, TRANSFORMERS}, MAMBAPY, {TORCH: 7, EXTENSION: 40}),
    )
    for length, left_out, peer, goals in both:
        inputs = _make_inputs(1, length, with_gradient=True)
        weight = torch.randn(1, CHANNELS, length)
        runs = {
            name: _bind_backward(scan, inputs, weight)
            for name, scan in _scans().items()
            if name not in left_out
        }
        medians = _take_turns(runs, min(rounds, 3))
        _print_table(f"forward and backward, batch 1, {length} tokens", medians, peer, goals)


def _bind(scan: Scan, inputs: Inputs) -> Callable[[], object]:
    return lambda: scan(*inputs)


def _bind_backward(scan: Scan, inputs: Inputs, weight: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(scan(*inputs), inputs, weight)


def _check(inputs: Inputs) -> None:
    """Refuse to time contenders that do not compute the same."""
    u, delta, A, B, C = (x.double() for x in inputs)
    expected = selective_scan(u, delta, A, B, C, backend="torch")
    for name, scan in _scans().items():
        error = float((scan(*inputs) - expected).abs().max() / expected.abs().max())
        if error > 1e-5:
            raise RuntimeError(f"{name} must be within 1e-5 of float64, got {error:.1e}.")


def _print_table(title: str, medians: dict[str, float], peer: str, goals: Goals) -> None:
    print(f"\n{title}: times as fast as {peer}")
    for name, seconds in medians.items():
        ratio, goal = medians[peer] / seconds, goals.get(name)
        said = f"   goal {goal}: {_verdict(goal, ratio)}" if goal else ""
        print(f"  {name:<26}{ratio:8.1f}{1000 * seconds:11.1f} ms{said}")


def _verdict(value: float, most: float) -> str:
    return "reached" if value <= most else "NOT reached"


def _bench_memory() -> None:
    length = 3136
    print(f"\nforward, batch 1, {length} tokens: memory beside the inputs, each in a process of its own")
    peaks = {}
    for name in _scans():
        command = [sys.executable, "-m", "tools.bench_scan", "--peak", name, str(length)]
        peaks[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        share = peaks[name] / peaks[REFERENCE]
        said = f"   goal 0.1: {_verdict(share, 0.1)}" if name in (TORCH, EXTENSION) else ""
        print(f"  {name:<26}{share:8.2f} of the reference's{peaks[name]:8.1f} MiB{said}")


def _own_peak_mib(name: str, length: int) -> float:
    """Measure in this fresh process what one scan adds to its memory at most."""
    with torch.inference_mode():
        _scans()[name](*_make_inputs(1, 8))  # libraries load
        inputs = _make_inputs(1, length)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = _memory_mib("VmRSS")
        _scans()[name](*inputs)
    return _memory_mib("VmHWM") - before


def _memory_mib(entry: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(entry))) / 1024


def _bench_network(rounds: int) -> None:
    """Time the whole network beside itself without any scan, and its growth with the image."""
    net = mambaderm().eval()
    backends: dict[str, ScanBackend | None] = {"without a scan": None, TORCH: "torch"}
    if not extension_problem():
        backends[EXTENSION] = "extension"
    seconds: dict[int, dict[str, float]] = {}
    for img_size in (224, 448):
        image = torch.randn(1, 3, img_size, img_size, generator=torch.Generator().manual_seed(0))
        runs = {name: _bind_network(net, image, backend) for name, backend in backends.items()}
        with torch.inference_mode():
            seconds[img_size] = _take_turns(runs, min(rounds, 5))
    print("\nmambaderm, batch 1: time over that without a scan (224 px), and at 448 px over 224 px")
    goals = {TORCH: 2.0, EXTENSION: 1.25}
    for name, value in seconds[224].items():
        ratio, growth = value / seconds[224]["without a scan"], seconds[448][name] / value
        goal = goals.get(name)
        said = f"   goals {goal} and 4.4: {_verdict(ratio, goal)} and {_verdict(growth, 4.4)}" if goal else ""
        print(f"  {name:<26}{ratio:8.2f}{growth:8.2f}{1000 * value:11.1f} ms{said}")


def _bind_network(net: torch.nn.Module, image: Tensor, backend: ScanBackend | None) -> Callable[[], object]:
    scan = "shared_nets.blocks.mamba.selective_scan"

    def run() -> object:
        set_scan_backend(backend or "auto")
        try:
            with nullcontext() if backend else mock.patch(scan, lambda u, *_, **__: u):
                return net(image)
        finally:
            set_scan_backend("auto")

    return run


def _take_turns(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Give every contender a turn a round, so that noise of the machine meets all alike; median CPU seconds.

    A turn is as many runs as fit a tenth of a second, at least one, after one that is not counted: what the
    contender before it left in the caches is not its fault.
    """
    runs: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(rounds + 1):
        for name, run in contenders.items():
            if runs.get(name, 2) > 1:
                run()
            count = runs.get(name, 1)
            start = time.process_time()
            for _ in range(count):
                run()
            mean = (time.process_time() - start) / count
            if index:
                seconds[name].append(mean)
            else:  # the first round warms up, and says how long a run is
                runs[name] = max(1, int(0.1 / mean))
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    sys.exit(main())
