"""The benchmark's contenders compute the same, and one that does not is refused rather than timed."""

from __future__ import annotations

import pytest
import torch

from tools import bench_scan


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(bench_scan, "CHANNELS", 8)
    monkeypatch.setattr(bench_scan, "STATES", 4)


def test_reference_is_the_recurrence_worked_out_by_hand():
    one, two = torch.ones(1, 1, 2), torch.full((1, 1, 2), 2.0)
    rate = torch.full((1, 1), -torch.log(torch.tensor(2.0)).item())  # a step of 1 halves the state
    # states 1 · 2 · 1 = 2 and 2 / 2 + 2 = 3, seen through C = 2
    assert bench_scan.reference_scan(one, one, rate, two, two).flatten().tolist() == pytest.approx([4, 6])


def test_contenders_agree(monkeypatch):
    pytest.importorskip("mambapy", reason="the extra 'dev' is not installed")
    bench_scan._check(bench_scan._make_inputs(2, 20))


def test_contender_that_computes_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(bench_scan, "_scans", lambda: {"wrong": lambda u, *_: u})
    with pytest.raises(RuntimeError, match="wrong must be within 1e-5 of float64"):
        bench_scan._check(bench_scan._make_inputs(1, 5))


def test_every_contender_has_a_turn_a_round():
    calls = []
    medians = bench_scan._take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert list(medians) == ["a", "b"]
    assert {call for call in calls} == {"a", "b"}
    assert all(seconds >= 0 for seconds in medians.values())


def test_network_without_a_scan_is_another_one_and_leaves_the_scan_in_place():
    torch.manual_seed(0)
    net = bench_scan.mambaderm(depth=1, embed_dim=16, stem_dims=(8,), num_heads=2).eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        without = bench_scan._bind_network(net, image, None)()
        plain = bench_scan._bind_network(net, image, "torch")()
        assert not torch.allclose(without, plain, atol=1e-4)
        torch.testing.assert_close(plain, net(image), rtol=1e-4, atol=1e-5)
