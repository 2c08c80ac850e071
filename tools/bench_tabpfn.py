"""Time one clinical row with nothing, the context or the embedding kept; or score a context out of fold."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shared_nets.nets.tabpfn_context import ClinicalContext, assign_folds
from shared_nets.nets.tabpfn_embedder import TabPFNEmbedder

_DEFAULT = Path(__file__).parents[1] / "bundles/ckd_staging_classification/models/tabpfn_small.ckpt"


def main(arguments: list[str] | None = None) -> int:
    """Print the times or the scores and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=_DEFAULT)
    parser.add_argument("--rows", type=int, default=232, help="context rows")
    parser.add_argument("--features", type=int, default=23)
    parser.add_argument("--estimators", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--context", type=Path, metavar="NPZ", help="score on these rows, out of fold, instead"
    )
    parser.add_argument(
        "--splits", type=int, default=5, help="with --context: how many ways to make the folds"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.context is not None:
        _score(options)
        return 0
    random = np.random.default_rng(0)
    context = random.normal(size=(options.rows, options.features))
    targets = context[:, 0] + random.normal(size=options.rows)
    rows = random.normal(size=(options.repeats + 1, 1, options.features))
    embedder = TabPFNEmbedder(checkpoint=options.checkpoint, num_estimators=options.estimators)
    embedder.fit(context, targets).embed(rows[-1])  # imports and weights are not timed
    anew = _median_s(lambda row: embedder.fit(context, targets).embed(row), rows[:-1])
    # The rows above are known by now, since the same fit gives the same key; shift them to be new.
    kept = _median_s(embedder.embed, rows[:-1] + 1.0)
    known = _median_s(embedder.embed, rows[:-1] + 1.0)
    print(
        f"{options.rows} context rows, {options.features} features, {options.estimators} estimators, 1 thread"
    )
    print(f"context read anew    {1e3 * anew:10.2f} ms a row")
    print(f"fit_with_cache       {1e3 * kept:10.2f} ms a row, {anew / kept:.0f} × faster")
    print(f"embedding kept       {1e3 * known:10.3f} ms a row, {kept / known:.0f} × faster still")
    return 0


def _score(options: argparse.Namespace) -> None:
    """Print R² and MAE of out-of-fold predictions, mean and spread over the splits."""
    context = ClinicalContext.load(options.context)
    num_rows, num_folds = len(context.targets), len(np.unique(context.folds))
    ids = [str(i) for i in range(num_rows)]
    scores: dict[str, list[tuple[float, float]]] = {}
    for split in range(options.splits):
        folds = assign_folds(ids, num_folds=num_folds, random_state=split)
        embedder = TabPFNEmbedder(
            checkpoint=options.checkpoint, num_folds=num_folds, num_estimators=options.estimators
        ).fit(context.features, context.targets, ids=ids, groups=folds.tolist())
        predictions = {
            "tabpfn": embedder.predict(context.features, ids=ids),
            "ridge": _classic(lambda: RidgeCV(np.logspace(-2, 4, 13)), context, folds),
            "extra trees": _classic(
                lambda: ExtraTreesRegressor(300, min_samples_leaf=5, random_state=0), context, folds
            ),
        }
        for name, predicted in predictions.items():
            score = r2_score(context.targets, predicted), mean_absolute_error(context.targets, predicted)
            scores.setdefault(name, []).append(score)
    print(
        f"{num_rows} rows, {context.features.shape[1]} features, {num_folds} folds, {options.splits} splits"
    )
    for name, values in scores.items():
        (r2, mae), (r2_spread, mae_spread) = np.mean(values, axis=0), np.std(values, axis=0)
        print(f"{name:12} R² {r2:6.3f} ± {r2_spread:.3f}   MAE {mae:.3g} ± {mae_spread:.2g}")


def _classic(make: Callable[[], RegressorMixin], context: ClinicalContext, folds: np.ndarray) -> np.ndarray:
    predicted = np.empty_like(context.targets)
    for fold in np.unique(folds):
        held_out = folds == fold
        model = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), make())
        model.fit(context.features[~held_out], context.targets[~held_out])
        predicted[held_out] = model.predict(context.features[held_out])
    return predicted


def _median_s(embed: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> float:
    times = []
    for row in rows:
        started = time.perf_counter()
        embed(row)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


if __name__ == "__main__":
    raise SystemExit(main())
