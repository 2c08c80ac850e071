"""Every bundle keeps the rules of the collection, and its weights are small and the ones it names."""

from __future__ import annotations

import pytest

from tools.bundle_rules import (
    MAX_WEIGHTS_OF_ALL_BUNDLES_BYTES,
    bundle_folders,
    bundle_problems,
)


def test_bundle_breaks_no_rule(bundle):
    assert bundle_problems(bundle) == []


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
