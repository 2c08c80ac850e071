"""The figures of photograph with metadata, on a small file whose images show their class by brightness."""

import json

import numpy as np
import pytest
import torch

from shared_nets.nets.mambaderm import MambaDerm
from shared_nets.runtime.lesion_fusion import FusionRecipe
from tools import evaluate_lesion_metadata as tool

SIZE = {
    "img_size": 8, "stem_dims": [8], "stem_depths": [1], "stem_strides": [4], "embed_dim": 16, "depth": 1,
    "d_state": 4, "scan_backend": "torch",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A bundle, weights and DermaMNIST with 600, 100 and 200 images."""
    folder = tmp_path_factory.mktemp("derm")
    config = {
        "metadata_schema": None,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "schema": {
            "_target_": "shared_nets.transforms.lesion_schema.lesion_schema",
            "_disabled_": "$@metadata_schema is None",
            "name": "@metadata_schema",
        },
        "network_def": {
            "_target_": "shared_nets.nets.mambaderm.MambaDerm",
            "num_classes": 7,
            "metadata_schema": "@schema",
            **SIZE,
        },
        "prepare_batch": {
            "augmentation": {"_target_": "shared_nets.transforms.dermoscopy_batch.RandomDermoscopyBatch"}
        },
    }
    (folder / "configs").mkdir()
    (folder / "configs" / "train.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    torch.save(MambaDerm(num_classes=7, **SIZE).state_dict(), folder / "model.pt")
    rng = np.random.default_rng(0)
    parts = {}
    for split, number in (("train", 600), ("val", 100), ("test", 200)):
        labels = rng.integers(0, 7, number)
        noise = rng.integers(0, 10, (number, 8, 8, 3))
        parts[f"{split}_images"] = (30 * labels[:, None, None, None] + noise).astype(np.uint8)
        parts[f"{split}_labels"] = labels.astype(np.uint8)[:, None]
    np.savez(folder / "dermamnist.npz", **parts)
    return folder


@pytest.fixture(scope="module", autouse=True)
def short():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, "RECIPE", FusionRecipe(max_epochs=1))
        patch.setattr(tool, "NUM_VIEWS", 1)
        patch.setattr(tool, "LEAVES", (4,))
        patch.setattr(tool, "TREES", (20, 40))
        yield


def run(files, name):
    paths = {"npz": "dermamnist.npz", "bundle": ".", "weights": "model.pt", "output": name}
    options = [text for key, path in paths.items() for text in (f"--{key}", str(files / path))]
    assert tool.main([*options, "--seeds", "2", "--draws", "20"]) == 0
    return json.loads((files / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def report(files):
    return run(files, "first.json")


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(1)
    return {split: rng.integers(0, 7, number) for split, number in (("train", 50), ("val", 20), ("test", 30))}


def test_report_says_synthetic_first_and_holds_every_model_and_goal(report):
    assert next(iter(report)) == "synthetic"
    assert tool.table(report).startswith("synthetic task")
    assert report["n"] == {"train": 600, "val": 100, "test": 200}
    told = {f"image and metadata, told {name}" for name in ("age", "sex", "anatomical_site", "nothing")}
    assert set(report["models"]) == told | {tool.IMAGE, tool.BOTH, tool.EMPTY, tool.LOGISTIC, tool.BOOSTING}
    assert len(report["differences"]) == 5
    assert len(report["goals"]) == 3
    for model in report["models"].values():
        value, low, high = model["auc"]
        assert low <= value <= high
        assert value == pytest.approx(np.mean(model["auc_of_seeds"]), abs=1e-4)
    assert [len(report["models"][name]["auc_of_seeds"]) for name in (tool.BOTH, tool.BOOSTING)] == [2, 1]
    first, other = (report["models"][name]["auc"][0] for name in (tool.BOTH, tool.IMAGE))
    assert report["differences"][f"{tool.BOTH} − {tool.IMAGE}"][0] == pytest.approx(first - other, abs=2e-4)


def test_same_seed_gives_the_same_figures(files, report):
    again = run(files, "second.json")
    assert {**again, "cpu_seconds": 0} == {**report, "cpu_seconds": 0}


def test_parts_of_the_split_get_people_of_their_own(labels):
    experiment = tool.make_experiment({split: np.zeros(9, np.int64) for split in labels}, seed=0)
    assert not torch.equal(experiment.rows["train"].nan_to_num(), experiment.rows["test"].nan_to_num())


def test_rows_hold_nothing_but_what_is_told(labels):
    experiment = tool.make_experiment(labels, seed=0)
    rows = experiment.only("test", "sex")
    assert rows[:, 0].isnan().all()
    assert torch.equal(rows[:, 1], experiment.rows["test"][:, 1])
    assert not rows[:, 2].any()
    assert not experiment.only("test", "nothing").nan_to_num().any()


def test_metadata_alone_say_less_than_the_rules(labels):
    experiment = tool.make_experiment(
        {"train": np.tile(labels["train"], 40), **{s: np.tile(labels[s], 20) for s in ("val", "test")}},
        seed=0,
    )
    scores, chosen = tool.plain_scores(experiment, seed=0)
    assert set(chosen) == {tool.LOGISTIC, tool.BOOSTING}
    rules = tool.auc(experiment.target("test"), experiment.tasks["test"].by_rule.astype(float))
    for parts in scores.values():
        assert 0.5 < tool.auc(experiment.target("test"), parts["test"][0]) < rules


def test_an_unusable_file_ends_in_exit_status_3(files, capsys):
    assert tool.main(["--npz", str(files / "none.npz"), "--bundle", str(files)]) == 3
    assert "There is no none.npz" in capsys.readouterr().err
