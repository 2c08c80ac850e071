"""The handler that fits a calibration: through an evaluator, and on outputs whose truth is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader
from monai.transforms import Compose
from torch import nn

from shared_nets.data.studies import StudyDataset
from shared_nets.engines.study_evaluator import StudyEvaluator, keep_as_list
from shared_nets.refusals import InputRefused
from shared_nets.runtime.lesion_calibration import Calibrator, LesionOutputs
from shared_nets.transforms.calibration_file import read_calibration
from shared_nets.transforms.lesion_calibration import (
    calibrated_probabilities,
    conformal_set,
    mahalanobis_score,
)
from shared_nets.transforms.lesion_saliency import LesionEmbeddingd

NAMES = ("a", "b", "c")


def outputs(num, *, seed, overconfidence=1.0, shift=0.0):
    """Outputs of a classifier that is honest up to a factor; embeddings lie around their class."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num, 3)) * 2
    chance = calibrated_probabilities(logits, 1.0)
    labels = (chance.cumsum(axis=1) < rng.random((num, 1))).sum(axis=1)
    embeddings = rng.normal(size=(num, 4)) + 3 * np.eye(4)[labels] + shift
    return [
        {"pred": torch.tensor(overconfidence * z), "label": int(y), "embedding": torch.tensor(e)}
        for z, y, e in zip(logits, labels, embeddings, strict=True)
    ]


def seen(handler, items, batch_size=50):
    engine = Engine(lambda engine, batch: batch)
    handler.attach(engine)
    engine.run([items[i : i + batch_size] for i in range(0, len(items), batch_size)])
    return handler


@pytest.fixture
def calibrator():
    training = seen(LesionOutputs(), outputs(1000, seed=0))
    return seen(Calibrator(class_names=NAMES, training=training), outputs(4000, seed=1, overconfidence=2.5))


def test_new_images_get_what_the_calibration_promises(calibrator):
    """4,000 images to fit on and 4,000 new ones: standard errors are below 0.008."""
    calibration, figures = calibrator.fit()
    assert calibration.temperature == pytest.approx(2.5, rel=0.06)
    new = outputs(4000, seed=2, overconfidence=2.5)
    p = calibrated_probabilities(np.stack([item["pred"] for item in new]), calibration.temperature)
    labels = np.array([item["label"] for item in new])
    covered = [
        y in conformal_set(row, calibration.conformal_quantile) for row, y in zip(p, labels, strict=True)
    ]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)
    kept = p.max(axis=1) >= calibration.min_confidence
    assert np.mean((p.argmax(axis=1) == labels)[kept]) == pytest.approx(0.9, abs=0.03)
    assert 0.1 < kept.mean() < 0.95

    def beyond(items):
        scores = [
            mahalanobis_score(i["embedding"], calibration.ood_means, calibration.ood_precision) for i in items
        ]
        return np.mean(np.array(scores) > calibration.ood_limit)

    assert beyond(new) == pytest.approx(0.01, abs=0.006)
    assert beyond(outputs(500, seed=3, shift=10.0)) == 1.0
    assert figures["nll_after"] < figures["nll_before"]
    assert figures["ece_after"] < 0.5 * figures["ece_before"]


def test_the_file_is_the_same_every_time_and_says_what_was_fitted(calibrator, tmp_path):
    first = calibrator.write(tmp_path / "a.npz", tmp_path / "a.json")
    second = calibrator.write(tmp_path / "b.npz")
    assert first.read_bytes() == second.read_bytes()
    calibration = read_calibration(first)
    assert (calibration.class_names, calibration.num_calibration) == (NAMES, 4000)
    assert json.loads((tmp_path / "a.json").read_text())["temperature"] == calibration.temperature


def test_targets_with_more_columns_and_single_logits_are_understood():
    items = [
        {**item, "pred": item["pred"][:1], "label": torch.tensor([float(item["label"] > 0), 17.0])}
        for item in outputs(400, seed=4)
    ]
    for item in items:
        item["pred"] = item["pred"] + 1.5 * (2 * item["label"][0] - 1)
    handler = Calibrator(class_names=("no", "yes"), training=seen(LesionOutputs(), items), accuracy=0.8)
    calibration, _ = seen(handler, items).fit()
    assert calibration.ood_means.shape == (2, 4)


def test_refused_studies_are_counted_and_left_out():
    refused = {"study_id": "x", "refusal": InputRefused("INPUT_UNREADABLE", "m", "r")}
    handler = seen(LesionOutputs(), [*outputs(10, seed=0), refused])
    assert (len(handler), handler.num_refused) == (10, 1)
    assert len(seen(handler, outputs(5, seed=0))) == 5  # another run starts anew


class TinyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(12, 5), nn.Linear(5, 3)

    def forward_features(self, image, metadata=None):
        return self.embed(image.flatten(1))

    def forward(self, image, metadata=None):
        return self.head(self.forward_features(image, metadata))


def test_label_and_embedding_reach_it_through_the_study_evaluator():
    torch.manual_seed(0)
    network = TinyNet()
    studies = [{"study_id": str(i), "image": torch.randn(3, 2, 2), "label": i % 3} for i in range(6)]
    handler = LesionOutputs()
    evaluator = StudyEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(StudyDataset(studies), batch_size=1, collate_fn=keep_as_list),
        network=network,
        postprocessing=Compose([LesionEmbeddingd("image", network=network)]),
        val_handlers=[handler],
    )
    evaluator.run()
    logits, labels, embeddings = handler.arrays()
    images = torch.stack([study["image"] for study in studies])
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_allclose(embeddings, network.forward_features(images).detach(), rtol=1e-5)
    np.testing.assert_allclose(logits, network(images).detach(), rtol=1e-5, atol=1e-6)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="the evaluator must be run before a calibration is fitted"):
        Calibrator(class_names=NAMES, training=LesionOutputs()).fit()
    with pytest.raises(
        ValueError, match=r"output must hold pred, label and embedding, lacks \['embedding'\]"
    ):
        seen(LesionOutputs(), [{"pred": torch.zeros(3), "label": 0}])
    trained = seen(LesionOutputs(), outputs(50, seed=0))
    with pytest.raises(ValueError, match="class_names must be 3 names, got 2"):
        seen(Calibrator(class_names=("a", "b"), training=trained), outputs(50, seed=0)).fit()
