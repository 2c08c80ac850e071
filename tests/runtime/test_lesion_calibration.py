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
from shared_nets.runtime.checks import file_sha256, load_calibration
from shared_nets.runtime.lesion_calibration import Calibrator, LesionOutputs
from shared_nets.transforms.lesion_calibration import (
    calibrated_probabilities,
    conformal_set,
    mahalanobis_score,
)
from shared_nets.transforms.lesion_saliency import LesionEmbeddingd

NAMES = ("a", "b", "c")


def outputs(num, *, seed, overconfidence=1.0, shift=0.0, prior=(0.0, 0.0, 0.0), split="validation"):
    """Outputs of a classifier that is honest up to a factor; embeddings lie around their class."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num, 3)) * 2 + np.array(prior)
    chance = calibrated_probabilities(logits, 1.0)
    labels = (chance.cumsum(axis=1) < rng.random((num, 1))).sum(axis=1)
    embeddings = rng.normal(size=(num, 4)) + 3 * np.eye(4)[labels] + shift
    return [
        {
            "pred": torch.tensor(overconfidence * z),
            "label": int(y),
            "embedding": torch.tensor(e),
            "split": split,
        }
        for z, y, e in zip(logits, labels, embeddings, strict=True)
    ]


def seen(handler, items, batch_size=50):
    engine = Engine(lambda engine, batch: batch)
    handler.attach(engine)
    engine.run([items[i : i + batch_size] for i in range(0, len(items), batch_size)])
    return handler


def fitted(validation, **options):
    options = {"class_names": NAMES, "malignant_classes": ["c"], **options}
    return seen(Calibrator(**options), [*outputs(1000, seed=0, split="training"), *validation])


def test_new_images_get_what_the_calibration_promises_class_by_class():
    """Class a is three times as frequent as the others together; c, say, is the grave one."""
    likely_a = {"overconfidence": 2.5, "prior": (3.0, 0.0, 0.0)}
    calibration, report = fitted(outputs(6000, seed=1, **likely_a)).fit()
    assert calibration.temperature == pytest.approx(2.5, rel=0.08)
    new = outputs(6000, seed=2, **likely_a)
    p = calibrated_probabilities(np.stack([item["pred"] for item in new]), calibration.temperature)
    labels = np.array([item["label"] for item in new])
    assert np.mean(labels == 0) > 0.7
    covered = np.array(
        [y in conformal_set(row, calibration.conformal_quantiles) for row, y in zip(p, labels, strict=True)]
    )
    for k in range(3):  # some 700 images of b and of c, in both draws: standard errors of 0.016
        assert covered[labels == k].mean() == pytest.approx(0.9, abs=0.045)
    kept = p.max(axis=1) >= calibration.min_confidence
    assert np.mean((p.argmax(axis=1) == labels)[kept]) == pytest.approx(0.9, abs=0.03)
    assert report["nll_after"] < report["nll_before"]
    assert report["ece_after"] < 0.5 * report["ece_before"]
    assert report["cross_fitted"]["set_coverage_c"] == pytest.approx(0.9, abs=0.03)
    assert report["cross_fitted"]["kept_accuracy"] == pytest.approx(0.9, abs=0.02)


def test_what_lies_beyond_the_limit_is_one_in_a_hundred_of_new_images_and_all_strange_ones():
    calibration, report = fitted(outputs(4000, seed=1)).fit()

    def beyond(items):
        scores = [
            mahalanobis_score(i["embedding"], calibration.ood_means, calibration.ood_precision) for i in items
        ]
        return np.mean(np.array(scores) > calibration.ood_limit)

    assert beyond(outputs(4000, seed=2)) == pytest.approx(0.01, abs=0.006)
    assert beyond(outputs(500, seed=3, shift=10.0)) == 1.0
    assert report["cross_fitted"]["beyond_ood_limit"] == pytest.approx(0.01, abs=0.004)


def test_a_class_with_too_few_images_is_in_every_set_and_the_report_says_so():
    common = [item for item in outputs(600, seed=1) if item["label"] != 2]
    rare = [item for item in outputs(600, seed=4) if item["label"] == 2][:8]
    calibration, report = fitted([*common, *rare]).fit()
    assert calibration.conformal_quantiles[2] == 1.0
    assert max(calibration.conformal_quantiles[:2]) < 1.0
    assert report["always_in_set"] == ["c"]
    assert report["num_calibration_by_class"]["c"] == 8
    assert report["cross_fitted"]["set_coverage_c"] == 1.0


def test_the_files_are_the_same_every_time_and_bound_to_weights_and_settings(tmp_path):
    weights, others = tmp_path / "model.pt", tmp_path / "others.pt"
    weights.write_bytes(b"some weights")
    others.write_bytes(b"other weights")
    for name in ("a", "b"):
        options = {"output_dir": tmp_path / name, "ckpt_path": weights, "made_with": {"num_views": 8}}
        fitted(outputs(400, seed=1), **options)
    for file in ("calibration.npz", "calibration.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    path = tmp_path / "a" / "calibration.npz"
    calibration = load_calibration(path, ckpt_path=weights)
    assert calibration.made_with == {"weights_sha256": file_sha256(weights), "num_views": 8}
    assert (calibration.class_names, calibration.num_calibration) == (NAMES, 400)
    report = json.loads((tmp_path / "a" / "calibration.json").read_text())
    assert report["temperature"] == calibration.temperature
    assert tuple(report["conformal_quantiles"].values()) == calibration.conformal_quantiles
    with pytest.raises(InputRefused, match=r"WEIGHTS_MISMATCH: .* was not fitted for the weights others"):
        load_calibration(path, ckpt_path=others)


def test_targets_with_more_columns_and_single_logits_are_understood():
    def two(items):
        for item in items:
            is_second = item["label"] > 0
            item["pred"] = item["pred"][:1] + 4.0 * (2 * is_second - 1)
            item["label"] = torch.tensor([float(is_second), 17.0])
        return items

    options = {"class_names": ("no", "yes"), "malignant_classes": ["yes"], "accuracy": 0.8}
    both = [*two(outputs(200, seed=3, split="training")), *two(outputs(400, seed=4))]
    calibration, _ = seen(Calibrator(**options), both).fit()
    assert calibration.ood_means.shape == (2, 4)
    assert len(calibration.conformal_quantiles) == 2


def test_refused_studies_are_counted_and_left_out():
    refused = {"study_id": "x", "refusal": InputRefused("INPUT_UNREADABLE", "m", "r")}
    handler = seen(LesionOutputs(), [*outputs(10, seed=0), refused])
    assert (len(handler), handler.num_refused) == (10, 1)
    assert len(seen(handler, outputs(5, seed=0))) == 5  # another run starts anew
    other = seen(LesionOutputs(split="training"), [*outputs(10, seed=0), {**refused, "split": "training"}])
    assert (len(other), other.num_refused) == (0, 1)


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
    studies = [
        {"study_id": str(i), "image": torch.randn(3, 2, 2), "label": i % 3, "split": "ab"[i // 6]}
        for i in range(12)
    ]
    handlers = [LesionOutputs(split="a"), LesionOutputs(split="b")]
    evaluator = StudyEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(StudyDataset(studies), batch_size=1, collate_fn=keep_as_list),
        network=network,
        postprocessing=Compose([LesionEmbeddingd("image", network=network)]),
        val_handlers=handlers,
    )
    evaluator.run()
    for handler, part in zip(handlers, (studies[:6], studies[6:]), strict=True):
        logits, labels, embeddings = handler.arrays()
        images = torch.stack([study["image"] for study in part])
        assert labels.tolist() == [0, 1, 2, 0, 1, 2]
        np.testing.assert_allclose(embeddings, network.forward_features(images).detach(), rtol=1e-5)
        np.testing.assert_allclose(logits, network(images).detach(), rtol=1e-5, atol=1e-6)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="must have seen images of the split training, got none"):
        Calibrator(class_names=NAMES, malignant_classes=["c"]).fit()
    with pytest.raises(
        ValueError, match=r"output must hold pred, label and embedding, lacks \['embedding'\]"
    ):
        seen(LesionOutputs(), [{"pred": torch.zeros(3), "label": 0}])
    with pytest.raises(ValueError, match="class_names must be 3 names, got 4"):
        fitted(outputs(50, seed=0), class_names=(*NAMES, "d"))
