"""The training of the small TabPFN: resumable to the bit, and its fast attention is the same attention."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from shared_nets.nets.tabpfn_embedder import TabPFNEmbedder, tabpfn_module
from tools import train_tabpfn_prior as tool


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "_TOKENS_PER_STEP", 500)
    monkeypatch.setattr(tool, "_VALIDATION_SHAPES", ((20, 10, 3),))
    monkeypatch.setattr(tool, "_VALIDATION_TASKS", 1)


def _options(folder: Path, steps: int) -> list[str]:
    sizes = ["--embed-dim", "16", "--depth", "1", "--num-heads", "2", "--num-buckets", "8"]
    files = ["--output", str(folder / "small.ckpt"), "--state", str(folder / "state.pt")]
    return [*files, *sizes, "--steps", str(steps)]


@pytest.mark.usefixtures("tiny")
def test_training_that_was_interrupted_ends_where_it_would_have(tmp_path, monkeypatch):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert tool.main(_options(whole, 4)) == 0
    with monkeypatch.context() as interruption:
        one_step = tool._Training._one_step

        def stop_after_two(training: tool._Training) -> float:
            if training.step == 2:
                training._save()
                raise KeyboardInterrupt
            return one_step(training)

        interruption.setattr(tool._Training, "_one_step", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            tool.main(_options(halves, 4))
    assert tool.main(_options(halves, 4)) == 0
    assert (whole / "small.ckpt").read_bytes() == (halves / "small.ckpt").read_bytes()
    record = json.loads((halves / "small.json").read_text(encoding="utf-8"))
    assert record["steps_done"] == 4
    assert record["options"]["seed"] == 0
    assert set(record["validation"]["r2"]) == {"tabpfn_small", "ridge", "extra_trees"}
    assert TabPFNEmbedder(checkpoint=halves / "small.ckpt").embed_dim == 16


@pytest.mark.parametrize("key_heads", [pytest.param(1, id="one key head"), pytest.param(3, id="as many")])
def test_the_fast_attention_agrees_with_the_packages_and_so_do_its_gradients(key_heads):
    torch.manual_seed(0)
    query = torch.randn(4, 7, 3, 8, requires_grad=True)
    key, value = (torch.randn(4, 5, key_heads, 8, requires_grad=True) for _ in range(2))
    plain = tabpfn_module("tabpfn.architectures.tabpfn_v2").scaled_dot_product_attention
    results = []
    for attention in (tool.cpu_attention, plain):
        mixed = attention(query, key, value)
        results.append((mixed, *torch.autograd.grad(mixed.square().sum(), (query, key, value))))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)  # float32, other order of sums


def test_the_learning_rate_warms_up_holds_and_ends_at_zero():
    factors = [tool.learning_rate_factor(step, 1000) for step in (0, 49, 99, 599, 800, 1000)]
    assert factors == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.5, 0.0])


def test_tables_start_small_and_grow():
    def largest(step: int) -> tuple[int, int]:
        shapes = [tool.task_shape(step, torch.Generator().manual_seed(seed)) for seed in range(200)]
        return max(s[1] for s in shapes), max(s[3] for s in shapes)

    assert largest(0) <= (60, 5)
    rows, features = largest(5000)
    assert 200 < rows <= 250
    assert 30 < features <= 40


def test_paths_must_be_given():
    with pytest.raises(SystemExit):
        tool.main([])
