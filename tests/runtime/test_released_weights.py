"""What is said of a bundle's weights is said of no others, and a calibration lies beside its weights."""

from __future__ import annotations

import hashlib
import json

import pytest

from shared_nets.runtime.released_weights import OWN_WEIGHTS, calibration_beside, statements_about

SAID = ["The weights learned from drawn photographs."]


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").write_bytes(b"weights")
    weights = {"models/model.pt": {"sha256": hashlib.sha256(b"weights").hexdigest()}}
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"weights": weights}))
    return tmp_path


def test_statements_hold_for_the_weights_of_the_bundle_wherever_they_lie(bundle):
    assert statements_about(bundle / "models" / "model.pt", bundle_root=bundle, released=SAID) == (SAID[0],)
    (bundle / "copy.pt").write_bytes(b"weights")
    assert statements_about(bundle / "copy.pt", bundle_root=bundle, released=SAID) == (SAID[0],)


def test_of_other_weights_nothing_is_known(bundle):
    (bundle / "own.pt").write_bytes(b"others")
    assert statements_about(bundle / "own.pt", bundle_root=bundle, released=SAID) == (OWN_WEIGHTS,)
    assert statements_about(bundle / "nowhere.pt", bundle_root=bundle, released=SAID) == (OWN_WEIGHTS,)


def test_a_calibration_is_found_beside_its_weights_only(bundle):
    (bundle / "models" / "calibration.npz").touch()
    assert calibration_beside(bundle / "models" / "model.pt") == str(bundle / "models" / "calibration.npz")
    assert calibration_beside(bundle / "own.pt") is None
