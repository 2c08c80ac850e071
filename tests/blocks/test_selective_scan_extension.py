"""How the C++ extension is compiled, cached and left out, and that threads and processors do not matter."""

from __future__ import annotations

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from shared_nets.blocks import selective_scan_extension as extension
from shared_nets.blocks.selective_scan import scan_backend_in_use, selective_scan

needs_extension = pytest.mark.skipif(
    extension.extension_problem() is not None,
    reason=f"the C++ extension cannot be used: {extension.extension_problem()}",
)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """A user's cache without a library, seen by this process and those it starts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SHARED_NETS_SCAN", raising=False)
    extension._load_once.cache_clear()
    yield tmp_path / "shared_nets"
    extension._load_once.cache_clear()


def inputs(length: int = 70) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    names = {"u": (2, 200, length), "delta": (2, 200, length), "z": (2, 200, length), "D": (200,)}
    values = {name: torch.randn(shape, generator=g) for name, shape in names.items()}
    projections = {name: torch.randn(2, 5, length, generator=g) for name in ("B", "C")}
    return values | projections | {"A": -5 * torch.rand(200, 5, generator=g)}


def output_and_gradients(**options) -> list[torch.Tensor]:
    leaves = {name: x.requires_grad_() for name, x in inputs().items()}
    y = selective_scan(**leaves, delta_softplus=True, **options)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), list(leaves.values()))]


@needs_extension
def test_library_is_compiled_once_and_leaves_nothing_else_behind(empty_cache):
    assert extension.extension_problem() is None
    (library,) = empty_cache.iterdir()
    before = library.stat().st_mtime_ns
    extension._load_once.cache_clear()
    assert extension.extension_problem() is None
    assert [path.stat().st_mtime_ns for path in empty_cache.iterdir()] == [before]
    assert empty_cache.stat().st_mode & 0o077 == 0  # nobody else puts a library there


@needs_extension
def test_processes_that_compile_at_once_do_not_break_each_other(empty_cache):
    code = """
import torch
from shared_nets.blocks.selective_scan import selective_scan
x, projection = torch.ones(1, 4, 3), torch.ones(1, 2, 3)
print(float(selective_scan(x, x, -torch.ones(4, 2), projection, projection, backend="extension").sum()))
"""
    with ThreadPoolExecutor(3) as pool:
        done = list(
            pool.map(
                lambda _: subprocess.run(
                    [sys.executable, "-c", code], capture_output=True, text=True, check=True
                ),
                range(3),
            )
        )
    e = 2.718281828459045
    expected = 4 * 2 * (1 + (1 + 1 / e) + (1 + 1 / e + 1 / e**2))  # channels, states, three tokens
    assert [float(process.stdout) for process in done] == pytest.approx([expected] * 3, rel=1e-6)
    assert len(list(empty_cache.iterdir())) == 1


def test_machine_without_compiler_scans_in_torch_and_says_so_once(empty_cache, monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level(logging.INFO, extension.__name__):
        assert scan_backend_in_use() == "torch"
        assert scan_backend_in_use() == "torch"
    assert [record.getMessage() for record in caplog.records] == [
        "The selective scan runs without its C++ extension: no C++ compiler (c++, g++ or clang++) was found"
    ]
    with pytest.raises(RuntimeError, match=r"extension .* must be usable, got: no C\+\+ compiler"):
        selective_scan(**inputs(), backend="extension")


@needs_extension
def test_source_that_does_not_compile_is_no_reason_to_stop(empty_cache, monkeypatch, tmp_path):
    broken = tmp_path / "broken.cpp"
    broken.write_text("this is no C++", encoding="utf-8")
    monkeypatch.setattr(extension, "_SOURCE", broken)
    assert "error" in extension.extension_problem()
    assert scan_backend_in_use() == "torch"
    assert list(empty_cache.iterdir()) == []


@needs_extension
def test_cache_that_cannot_be_written_is_no_reason_to_stop(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    extension._load_once.cache_clear()
    try:
        assert extension.extension_problem() is not None
    finally:
        extension._load_once.cache_clear()


@needs_extension
def test_number_of_threads_does_not_change_a_bit():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = output_and_gradients(backend="extension")
        torch.set_num_threads(3)
        together = output_and_gradients(backend="extension")
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@needs_extension
def test_code_for_processors_without_avx512_gives_the_same_numbers(monkeypatch):
    expected = output_and_gradients(backend="torch")
    portable = extension.load_library("SCAN_PORTABLE")
    monkeypatch.setattr(extension, "_load_once", lambda: portable)
    for actual, value in zip(output_and_gradients(backend="extension"), expected, strict=True):
        assert (actual - value).abs().max() <= 1e-5 * value.abs().max()
