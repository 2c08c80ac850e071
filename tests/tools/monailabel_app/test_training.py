"""Correct a mask, submit it, train, and see the change; the released weights stay what they are."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from scipy.ndimage import maximum_filter

REPOSITORY = Path(__file__).resolve().parents[3]
KIDNEY = "kidney_ct_segmentation"
RELEASED = REPOSITORY / "bundles" / KIDNEY / "models" / "model.pt"

pytestmark = pytest.mark.xdist_group("monailabel")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def submit(server, labels: np.ndarray, affine: np.ndarray, folder: Path) -> None:
    path = folder / "mask.nii.gz"
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), affine), path)
    with path.open("rb") as file:
        saved = requests.put(
            f"{server.url}/datastore/label", params={"image": "phantom"}, files={"label": file}, timeout=60
        )
    assert saved.status_code == 200, saved.text


def right_and_left(truth: Path) -> tuple[np.ndarray, np.ndarray]:
    """The phantom's kidneys as the app numbers them: 1 right, 2 left."""
    image = nib.load(truth)
    labels = np.asarray(image.dataobj)
    return np.where(labels == 2, 1, np.where(labels == 3, 2, 0)), image.affine


@pytest.fixture
def clean(server):
    """Take submitted masks and trained weights away at the end."""
    yield
    for tag in ("final", "original"):
        requests.delete(f"{server.url}/datastore/label", params={"id": "phantom", "tag": tag}, timeout=60)
    requests.delete(f"{server.url}/model/{KIDNEY}", timeout=60)


def test_training_without_a_submitted_mask_is_refused(server):
    response = requests.post(
        f"{server.url}/train/{KIDNEY}", params={"run_sync": "true"}, json={}, timeout=600
    )
    assert response.status_code == 422
    assert response.json()["detail"]["code"] == "INPUT_EMPTY"


def test_training_on_a_mask_with_other_labels_is_refused(server, clean, truth, tmp_path):
    labels, affine = right_and_left(truth)
    submit(server, 7 * labels, affine, tmp_path)
    response = requests.post(
        f"{server.url}/train/{KIDNEY}", params={"run_sync": "true"}, json={}, timeout=600
    )
    assert response.status_code == 422
    assert response.json()["detail"]["code"] == "MASK_LABELS_UNKNOWN"


def test_training_on_a_mask_of_another_place_is_refused(server, clean, truth, tmp_path):
    labels, affine = right_and_left(truth)
    affine = affine.copy()
    affine[2, 3] += 500.0
    submit(server, labels, affine, tmp_path)
    response = requests.post(
        f"{server.url}/train/{KIDNEY}", params={"run_sync": "true"}, json={}, timeout=600
    )
    assert response.json()["detail"]["code"] == "MASK_GEOMETRY_MISMATCH"


def test_trained_weights_are_used_told_of_and_given_up_again(server, clean, truth, tmp_path):
    before = sha256(RELEASED)
    submit(server, *right_and_left(truth), tmp_path)
    knobs = {"max_epochs": 1, "epoch_length": 2}
    response = requests.post(
        f"{server.url}/train/{KIDNEY}", params={"run_sync": "true"}, json=knobs, timeout=600
    )
    assert response.status_code == 200, response.text
    facts = response.json()
    own = server.work / "model" / KIDNEY / "model.pt"
    assert (facts["labels"], facts["started_from_sha256"], facts["sha256"]) == (1, before, sha256(own))
    info = requests.get(f"{server.url}/info/", timeout=60).json()
    assert info["train_stats"][KIDNEY] == facts

    result = server.infer(KIDNEY, image="phantom", output="json").json()["result"]
    assert result["provenance"]["weights_sha256"]["model"] == facts["sha256"] != before
    assert "trained further on this server, submitted masks: 1" in result["statements"][-1]
    assert sha256(RELEASED) == before

    requests.delete(f"{server.url}/model/{KIDNEY}", timeout=60)
    result = server.infer(KIDNEY, image="phantom", output="json").json()["result"]
    assert result["provenance"]["weights_sha256"]["model"] == before
    assert "on this server" not in " ".join(result["statements"])


def test_weights_that_a_client_sends_must_fit_and_never_touch_the_bundle(server, clean):
    before = sha256(RELEASED)
    requests.put(f"{server.url}/model/{KIDNEY}", files={"file": ("model.pt", b"no weights")}, timeout=60)
    response = server.infer(KIDNEY, image="phantom", output="json")
    assert response.status_code == 422
    assert response.json()["detail"]["code"] == "WEIGHTS_MISMATCH"
    assert sha256(RELEASED) == before


@pytest.mark.slow
def test_training_in_the_background_brings_the_outline_nearer_to_the_submitted_one(
    server, clean, truth, tmp_path
):
    labels, affine = right_and_left(truth)
    submit(
        server, maximum_filter(labels, 3), affine, tmp_path
    )  # 5 mm more on every side than the network draws
    knobs = {"max_epochs": 3, "epoch_length": 12, "learning_rate": 0.001}
    started = requests.post(f"{server.url}/train/{KIDNEY}", json=knobs, timeout=600)
    assert started.status_code == 200, started.text
    for _ in range(1200):
        task = requests.get(f"{server.url}/train/", timeout=60).json()
        if task["status"] not in ("SUBMITTED", "RUNNING"):
            break
        time.sleep(0.5)
    assert task["status"] == "DONE", task["details"]
    facts = requests.get(f"{server.url}/info/", timeout=60).json()["train_stats"][KIDNEY]
    assert facts["dice_after"] > facts["dice_before"]
