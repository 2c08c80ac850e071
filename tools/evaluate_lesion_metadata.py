"""Does a photograph with metadata tell more than either alone, and cost nothing without? A synthetic task.

    python -m tools.evaluate_lesion_metadata --npz dermamnist.npz --weights MODEL.pt --output FIGURES.json

DermaMNIST has no metadata. People and answers are made up by open rules (shared_nets.data.lesion_rules), so
every figure here is synthetic: it says whether the network joins what it is given, and nothing of patients.

The bundle's network, with and without metadata, starts from the given weights. The trunk (stem and Mamba
layers) stays as it is and is asked once an image; gate, attention, tabular part and head are trained on the
official training images, several times from other seeds. Beside them stand models of the metadata alone: the
same network before one empty image, logistic regression and gradient boosting. What scikit-learn's models may
choose, the validation images chose; the network's recipe was settled on them, too. Figures are of the 2,005
test images: the mean AUC over the seeds, with 95 % bootstrap intervals over images. Images of one lesion may
lie on both sides of DermaMNIST's split, so all photographs look better than they are, for every model alike.

Takes some five minutes of one core (measured: 255 s of CPU time).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from monai.bundle import ConfigParser
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor

from shared_nets.data.dermamnist import SPLITS, read_dermamnist
from shared_nets.data.lesion_rules import LesionTask, draw_lesion_task
from shared_nets.metrics.bootstrap import Interval, bootstrap_interval, paired_bootstrap_interval
from shared_nets.metrics.threshold_curve import ThresholdCurve
from shared_nets.nets.lesion_network import LesionNetwork
from shared_nets.refusals import EXIT_STATUS_REFUSED, InputRefused
from shared_nets.runtime.lesion_fusion import FusionRecipe, fit_fusion, fused_logits, tokens_of
from shared_nets.runtime.lesion_statistics import metadata_statistics
from shared_nets.transforms.lesion_metadata import parse_lesion_metadata
from shared_nets.transforms.lesion_schema import LesionSchema, lesion_schema
from shared_nets.weights.checkpoint_file import read_checkpoint
from shared_nets.weights.lesion_metadata import start_from_image_weights

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "mambaderm_classification"
SCHEMA = "dermoscopy_clinic"
NUM_VIEWS = 4
#: What gradient boosting may choose from.
LEAVES, TREES = (4, 8, 16, 32), (25, 50, 100, 200, 400)
#: Settled on the validation images.
RECIPE = FusionRecipe(max_epochs=8, batch_size=128, learning_rate=1e-3, weight_decay=0.05)
MODALITY_DROPOUT_RATE = 0.3
#: More than this the network must not lose without metadata.
MAX_LOSS = 0.01

IMAGE, BOTH = "image alone", "image and metadata"
DROPPED = f"{BOTH}, told nothing"
EMPTY = "metadata alone, the network before an empty image"
LOGISTIC = "metadata alone, logistic regression"
BOOSTING = "metadata alone, gradient boosting"
FloatArray = npt.NDArray[np.float64]
Images = dict[str, npt.NDArray[np.uint8]]  # by part of the split: (N, S, S, 3)
Scores = dict[str, list[FloatArray]]  # by part of the split: (N,) of each seed


class Tokens(NamedTuple):
    """What the trunk says of changed training images, of the other images, and of an empty one."""

    views: list[Tensor]
    kept: dict[str, Tensor]
    empty: Tensor

    def without_image(self) -> Tokens:
        """Put the empty image in every place."""
        like = {split: self.empty.expand_as(value) for split, value in self.kept.items()}
        return Tokens([self.empty.expand_as(self.views[0])], like, self.empty)


@dataclass(frozen=True)
class Experiment:
    """What every model is given: by part of the split, rows ``(N, F)`` and answers ``(N,)``.

    ``statistics`` are mean and standard deviation of the numbers that are told of the training images.
    """

    schema: LesionSchema
    statistics: tuple[FloatArray, FloatArray]
    tasks: dict[str, LesionTask]
    rows: dict[str, Tensor]

    def target(self, split: str) -> FloatArray:
        """Answers as 0 and 1, ``(N,)``."""
        return self.tasks[split].target.astype(np.float64)

    def only(self, split: str, name: str) -> Tensor:
        """Rows in which nothing but the named value is known, ``(N, F)``; "nothing" for none."""
        rows = self.rows[split].clone()
        for column, other in enumerate(self.schema.names):
            if other != name:
                rows[:, column] = float("nan") if column < self.schema.num_numbers else 0.0
        return rows


def main(arguments: list[str] | None = None) -> int:
    """Compute, print and maybe write the figures; return 0, or 3 where the input is refused."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.evaluate_lesion_metadata",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--npz", type=Path, required=True, help="dermamnist.npz")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="folder of the bundle")
    parser.add_argument("--weights", type=Path, help="image weights (default: those of the bundle)")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic task and of all training")
    parser.add_argument("--seeds", type=int, default=3, help="how often each network is trained")
    parser.add_argument("--draws", type=int, default=2000, help="bootstrap draws")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    started = time.process_time()
    weights = options.weights or options.bundle / "models" / "model.pt"
    try:
        parts = read_dermamnist(options.npz)
    except InputRefused as refusal:
        print(refusal, file=sys.stderr)
        return EXIT_STATUS_REFUSED
    experiment = make_experiment({split: part.labels for split, part in parts.items()}, seed=options.seed)
    scores = network_scores(
        experiment,
        {split: part.images for split, part in parts.items()},
        options.bundle,
        read_checkpoint(weights),
        seeds=range(options.seed, options.seed + options.seeds),
    )
    peers, chosen = plain_scores(experiment, seed=options.seed)
    report = {
        "synthetic": "people and answers are made up, by the rules of shared_nets/data/lesion_rules.py",
        "command": "python -m tools.evaluate_lesion_metadata --npz dermamnist.npz --weights MODEL.pt "
        f"--seed {options.seed} --seeds {options.seeds}",
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "trained": "gate, attention, tabular part and head; stem and Mamba layers as given",
        "recipe": asdict(RECIPE) | {"views": NUM_VIEWS, "modality_dropout_rate": MODALITY_DROPOUT_RATE},
        "chosen_on_validation": chosen,
        **figures(experiment, scores | peers, draws=options.draws),
    }
    report["cpu_seconds"] = round(time.process_time() - started)
    print(table(report))
    if options.output:
        options.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def make_experiment(labels: dict[str, npt.NDArray[np.int64]], *, seed: int) -> Experiment:
    """Draw people and answers for each part of the split, and encode what is told of them."""
    schema = lesion_schema(SCHEMA)
    tasks = {
        split: draw_lesion_task(labels[split], seed=[seed, number]) for number, split in enumerate(SPLITS)
    }
    rows = {
        split: torch.from_numpy(
            np.stack([schema.encode(parse_lesion_metadata(told, schema).used) for told in task.clinical])
        )
        for split, task in tasks.items()
    }
    told = [{"clinical": person} for person in tasks["train"].clinical]
    return Experiment(schema, metadata_statistics(told, schema), tasks, rows)


def network_for(model: str, bundle: Path) -> tuple[LesionNetwork, ConfigParser]:
    """Build the bundle's network for one logit, and read its configuration."""
    config = ConfigParser()
    config.read_config(bundle / "configs" / "train.json")
    config["metadata_schema"] = None if model == IMAGE else SCHEMA
    config["network_def::num_classes"] = 1
    config["network_def::modality_dropout_rate"] = MODALITY_DROPOUT_RATE if model == BOTH else 0.0
    return config.get_parsed_content("network_def"), config


def kept_tokens(network: LesionNetwork, config: ConfigParser, images: Images) -> Tokens:
    """Ask the trunk about every image as it is, about the training images as they may be, and about none."""
    mean, std = (torch.tensor(config[name]).reshape(1, -1, 1, 1) for name in ("mean", "std"))
    change = config.get_parsed_content("prepare_batch::augmentation")
    views = [
        tokens_of(network, images["train"], lambda x: (change(x) - mean) / std) for _ in range(NUM_VIEWS)
    ]
    empty = tokens_of(network, np.zeros_like(images["train"][:1]), torch.zeros_like)  # of the mean colour
    kept = {split: tokens_of(network, images[split], lambda x: (x - mean) / std) for split in ("val", "test")}
    return Tokens(views, kept, empty)


def network_scores(
    experiment: Experiment, images: Images, bundle: Path, weights: dict[str, Any], *, seeds: range
) -> dict[str, Scores]:
    """Train the networks from every seed, and let them answer."""
    tokens: Tokens | None = None
    scores: dict[str, Scores] = {}
    rows = experiment.rows
    target = torch.from_numpy(experiment.target("train"))
    for seed in seeds:
        for model in (IMAGE, BOTH, EMPTY):
            torch.manual_seed(seed)
            network, config = network_for(model, bundle)
            start_from_image_weights(network, weights)
            if network.tabular_encoder is not None:
                network.tabular_encoder.set_statistics(*map(torch.from_numpy, experiment.statistics))
            if tokens is None:
                tokens = kept_tokens(network, config, images)
            seen = tokens.without_image() if model == EMPTY else tokens
            known = None if model == IMAGE else rows["train"]
            fit_fusion(network, seen.views, known, target, recipe=RECIPE, seed=seed)
            told = {model: {split: None if model == IMAGE else rows[split] for split in seen.kept}}
            if model == BOTH:
                told |= {
                    f"{BOTH}, told {name}": {split: experiment.only(split, name) for split in seen.kept}
                    for name in (*experiment.schema.names, "nothing")
                }
            for name, answers in told.items():
                for split, known_of_split in answers.items():
                    logits = fused_logits(network, seen.kept[split], known_of_split)
                    scores.setdefault(name, {}).setdefault(split, []).append(logits)
            print(f"trained from seed {seed}: {model}", file=sys.stderr, flush=True)
    return scores


def plain_scores(experiment: Experiment, *, seed: int) -> tuple[dict[str, Scores], dict[str, str]]:
    """Fit models of the metadata alone; the validation images choose among their settings."""
    scores: dict[str, Scores] = {}
    chosen: dict[str, str] = {}
    rows = {split: value.numpy() for split, value in experiment.rows.items()}
    for name, candidates in plain_models(experiment.schema, seed).items():
        best = -1.0
        for settings, model in candidates.items():
            model.fit(rows["train"], experiment.target("train"))
            answers = {split: model.predict_proba(rows[split])[:, 1] for split in ("val", "test")}
            if (found := auc(experiment.target("val"), answers["val"])) > best:
                best, chosen[name] = found, settings
                scores[name] = {split: [answer] for split, answer in answers.items()}
    return scores, chosen


def plain_models(schema: LesionSchema, seed: int) -> dict[str, dict[str, Any]]:
    """Give models of the metadata alone, by name and settings."""
    numbers, words = list(range(schema.num_numbers)), list(range(schema.num_numbers, len(schema.names)))
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore"), words),
    )
    return {
        LOGISTIC: {
            f"C {c:g}": make_pipeline(columns, LogisticRegression(C=c, max_iter=1000))
            for c in (0.01, 0.1, 1.0, 10.0)
        },
        BOOSTING: {
            f"{leaves} leaves, {trees} trees": HistGradientBoostingClassifier(
                max_leaf_nodes=leaves,
                max_iter=trees,
                learning_rate=0.05,
                categorical_features=words,
                early_stopping=False,
                random_state=seed,
            )
            for leaves in LEAVES
            for trees in TREES
        },
    }


def auc(observed: FloatArray, predicted: FloatArray) -> float:
    """Area under the curve of answers 0 and 1, ``(N,)`` each."""
    return ThresholdCurve(observed > 0.5, predicted).auc()


def figures(experiment: Experiment, scores: dict[str, Scores], *, draws: int) -> dict[str, Any]:
    """Compute the AUC of every model, the differences that matter, and what they say of the goals."""
    observed = experiment.target("test")

    def minus(first: str, other: str) -> Interval:
        return paired_bootstrap_interval(
            auc, observed, scores[first]["test"], scores[other]["test"], num_draws=draws
        )

    models = {
        name: {
            "auc": _rounded(bootstrap_interval(auc, observed, parts["test"], num_draws=draws)),
            "auc_of_seeds": [round(auc(observed, answers), 4) for answers in parts["test"]],
            "validation_auc": round(
                float(np.mean([auc(experiment.target("val"), a) for a in parts["val"]])), 4
            ),
        }
        for name, parts in scores.items()
    }
    gains = {other: minus(BOTH, other) for other in (IMAGE, EMPTY, LOGISTIC, BOOSTING)}
    loss = minus(DROPPED, IMAGE)
    return {
        "n": {split: len(experiment.target(split)) for split in SPLITS},
        "positive": {split: int(experiment.target(split).sum()) for split in SPLITS},
        "auc_of_the_rules_themselves": round(
            auc(observed, experiment.tasks["test"].by_rule.astype(np.float64)), 4
        ),
        "models": models,
        "differences": {f"{BOTH} − {other}": _rounded(gain) for other, gain in gains.items()}
        | {f"{DROPPED} − {IMAGE}": _rounded(loss)},
        "goals": {
            "image and metadata beat the image alone": gains[IMAGE].low > 0,
            "image and metadata beat the metadata alone, however modelled": all(
                gain.low > 0 for name, gain in gains.items() if name != IMAGE
            ),
            f"without metadata they lose less than {MAX_LOSS} to the image alone": loss.low > -MAX_LOSS,
        },
    }


def table(report: dict[str, Any]) -> str:
    """Lay the figures out for people."""
    lines = [f"synthetic task, {report['n']['test']} test images, AUC (95 % interval)"]
    lines += [f"{name:60} {_text(model['auc'])}" for name, model in report["models"].items()]
    lines += [f"{'the rules themselves':60} {report['auc_of_the_rules_themselves']:.3f}", "", "differences"]
    lines += [f"{name:75} {_text(numbers, '+')}" for name, numbers in report["differences"].items()]
    lines += ["", *(f"{'reached' if met else 'MISSED'}: {goal}" for goal, met in report["goals"].items())]
    return "\n".join([*lines, f"{report['cpu_seconds']} s of CPU time"])


def _rounded(interval: Interval) -> list[float]:
    return [round(number, 4) for number in (interval.value, interval.low, interval.high)]


def _text(numbers: list[float], sign: str = "") -> str:
    value, low, high = (f"{number:{sign}.3f}" for number in numbers)
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    raise SystemExit(main())
