"""Every bundle keeps the rules of the collection, and its weights are small, safe and the ones it names."""

from __future__ import annotations

import pytest
import torch

from tools.check_bundle import (
    MAX_WEIGHTS_OF_ALL_BUNDLES_BYTES,
    bundle_folders,
    bundle_problems,
)


def test_bundle_breaks_no_rule(bundle):
    assert bundle_problems(bundle) == []


def test_weights_load_without_running_code(bundle):
    paths = [path for path in (bundle / "models").rglob("*") if path.suffix in {".pt", ".ckpt"}]
    assert paths, "a bundle ships weights that run offline"
    for path in paths:
        torch.load(path, map_location="cpu", weights_only=True)


def test_model_weights_are_a_bare_state_dict(bundle):
    state = torch.load(bundle / "models" / "model.pt", map_location="cpu", weights_only=True)
    assert {type(value) for value in state.values()} <= {torch.Tensor, torch.nn.Parameter}
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())


def test_weights_of_all_bundles_together_stay_small():
    sizes = {
        path: path.stat().st_size
        for bundle in bundle_folders()
        for path in (bundle / "models").rglob("*")
        if path.is_file()
    }
    assert sum(sizes.values()) <= MAX_WEIGHTS_OF_ALL_BUNDLES_BYTES, sizes


def test_sockets_are_blocked_where_a_test_asks_for_it(no_network):
    import urllib.request

    with pytest.raises(AssertionError, match="the network was asked for"):
        urllib.request.urlopen("http://127.0.0.1:9/", timeout=1)
