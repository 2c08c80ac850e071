"""Figures of CKD staging on KiTS23: repeated 5-fold cross-validation by person, beside plain models.

Everything that learns from a person with an eGFR (TabPFN's context, the scale of the measures,
standardisation, head, when to stop) is made anew in each fold from its training people, and so is every
choice: trunk or geometry or both, the loss, the weight decay. The trunk was pretrained on people without an
eGFR. What no fold chooses is which measures the geometry has and how wide the head is: these were settled
while looking at such folds. Where a laboratory wrote "90 or more", 90 is the most that counts as observed or
predicted, for every model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shared_nets.metrics.bootstrap import Interval, bootstrap_interval, paired_bootstrap_interval
from shared_nets.metrics.regression_figures import (
    agreement,
    censored_at,
    interval_coverage,
    mean_absolute_error,
    r_squared,
    stage_agreement,
)
from shared_nets.nets.tabpfn_embedder import TabPFNEmbedder
from shared_nets.runtime.kits_cohort import Cohort, embed_people, load_cohort, schema_named
from shared_nets.runtime.kits_fitting import (
    VARIANTS,
    Settings,
    fit_best,
    new_network,
    predict,
    scaled_features,
)
from shared_nets.transforms.ckd_epi import egfr_from_creatinine, stage_index

NUM_FOLDS = 5
BUNDLE = Path("bundles/ckd_staging_classification")
COMPARISONS = (
    ("both", "clinical"),
    ("both and shape", "clinical"),
    ("both and shape", "clinical and shape"),
    ("both", "ridge: age, sex, BMI, comorbidities"),
    ("both", "extra trees: and kidney sizes"),
    ("both and shape", "extra trees: and kidney sizes"),
)
_SIZES = (
    "kidney_volume_ml",
    "tumour_volume_ml",
    "cyst_volume_ml",
    "right_kidney_volume_ml",
    "left_kidney_volume_ml",
    "right_kidney_length_mm",
    "left_kidney_length_mm",
)
FloatArray = npt.NDArray[np.float64]


class Repeats(NamedTuple):
    """Predicted eGFR of each repeat, ``(R, N)``, and the ends of its interval where there is one."""

    egfr: FloatArray
    low: FloatArray | None = None
    high: FloatArray | None = None


def main(arguments: list[str] | None = None) -> int:
    """Compute, print and maybe write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="KiTS23 folder")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--weights", type=Path, default=BUNDLE / "models" / "model.pt")
    parser.add_argument("--tabpfn", type=Path, default=BUNDLE / "models" / "tabpfn_small.ckpt")
    parser.add_argument("--variants", nargs="*", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--cache_dir", type=Path, help="keeps prepared studies and embeddings between runs")
    parser.add_argument("--draws", type=int, default=2000, help="bootstrap draws")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    started = time.monotonic()
    cohort = load_cohort(options.data_dir, options.cache_dir)
    image_branch = image_branch_of(torch.load(options.weights, weights_only=True))
    models: dict[str, Repeats] = {}
    chosen: dict[str, dict[str, int]] = {}
    for name in options.variants:
        models[name], counts = cross_validated(
            cohort, name, image_branch, options.tabpfn, repeats=options.repeats, cache_dir=options.cache_dir
        )
        chosen[name] = dict(counts.most_common())
        print(f"{name}: {time.monotonic() - started:.0f} s, {chosen[name]}", file=sys.stderr, flush=True)
    for name, (make, features) in plain_models(cohort).items():
        models[name] = plain_cross_validated(cohort, make, features, repeats=options.repeats)
    report: dict[str, Any] = {
        "command": f"python -m tools.evaluate_kits --data_dir DIR --repeats {options.repeats}",
        "seconds": round(time.monotonic() - started),
        "people": len(cohort.cases),
        "people_with_lower_bound": int(cohort.is_lower_bound.sum()),
        "people_under_18": int((cohort.age_years < 18).sum()),
        "folds": f"{options.repeats} × {NUM_FOLDS}, KFold(shuffle=True, random_state=repeat)",
        "unit": "eGFR, mL/min/1.73 m²",
        "trunk_sha256": trunk_sha256(image_branch),
        "tabpfn_sha256": hashlib.sha256(options.tabpfn.read_bytes()).hexdigest(),
        "chosen_in_how_many_folds": chosen,
        "everyone": figures(cohort, models, options.draws),
        "adults": figures(*_adults(cohort, models), options.draws),
    }
    for group in ("everyone", "adults"):
        print(f"\n{group}, n = {report[group]['n']}")
        print(table(report[group]))
    if options.output:
        options.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def image_branch_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keep the part of released weights that has learned from nobody with an eGFR."""
    parts = ("backbone.", "slice_projection.", "position_projection.", "pool.", "image_adapter.", "geometry.")
    return {name: value for name, value in weights.items() if name.startswith(parts)}


def trunk_sha256(image_branch: dict[str, torch.Tensor]) -> str:
    """Hash the tensors of the image branch but the scale of its measures, which every fold makes anew."""
    digest = hashlib.sha256()
    for name, value in sorted(image_branch.items()):
        if name != "geometry.knots":
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def cross_validated(
    cohort: Cohort,
    variant: str,
    image_branch: dict[str, torch.Tensor],
    tabpfn: Path,
    *,
    repeats: int,
    cache_dir: Path | None = None,
) -> tuple[Repeats, Counter[str]]:
    """Predict everyone from networks that have not seen them, once a repeat; count what the folds chose."""
    wanted = VARIANTS[variant]
    trunk, measures = cohort.describe(new_network(image_branch))
    rows = None if wanted.schema is None else cohort.rows(schema_named(wanted.schema))
    deviation = cohort.log_creatinine - cohort.log_creatinine_offset
    egfr = np.empty((3, repeats, len(cohort.cases)))  # estimate, low, high
    chosen: Counter[str] = Counter()
    for repeat, train, test in folds(len(cohort.cases), repeats):
        clinical = None
        if rows is not None:
            embedder = TabPFNEmbedder(
                checkpoint=tabpfn, cache_dir=None if cache_dir is None else cache_dir / "embeddings"
            )
            clinical = embed_people(embedder, rows, deviation, cohort.ids, train)
        network = new_network(image_branch, seed=repeat)
        image_features = scaled_features(network, trunk, measures, torch.from_numpy(train))
        people = cohort.people(image_features, clinical)
        best = fit_best(network, people.at(torch.from_numpy(train)), wanted, seed=repeat)
        chosen[in_words(best.settings)] += 1
        predicted = predict(best.network, people.at(torch.from_numpy(test)), uses_image=wanted.uses_image)
        for number, log_creatinine in enumerate(
            (predicted.log_creatinine, predicted.log_high, predicted.log_low)
        ):
            egfr[number, repeat, test] = egfr_from_creatinine(
                np.exp(log_creatinine), cohort.age_years[test], cohort.is_female[test]
            )
    return Repeats(*egfr), chosen


def in_words(settings: Settings) -> str:
    """Name what was chosen."""
    parts = (("trunk", settings.trunk_weight), ("geometry", settings.geometry_weight))
    image = " and ".join(name for name, weight in parts if weight) if settings.uses_image else "no image"
    return f"{image}, {settings.loss} loss, weight decay {settings.weight_decay:g}"


def folds(num_people: int, repeats: int) -> list[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Give repeat, training and test indices; the same for every model."""
    return [
        (repeat, train, test)
        for repeat in range(repeats)
        for train, test in KFold(NUM_FOLDS, shuffle=True, random_state=repeat).split(np.empty(num_people))
    ]


def plain_models(cohort: Cohort) -> dict[str, tuple[Callable[[], Any], FloatArray]]:
    """Give the models to beat and their inputs, ``(N, F)``."""
    names = [
        name
        for name in schema_named("KITS").names
        if name not in ("smoking_history", "radiographic_tumour_size_cm")
    ]
    all_rows = cohort.rows(schema_named("KITS"))
    known = all_rows[:, [schema_named("KITS").names.index(name) for name in names]]
    sizes = np.array([[shape[name] for name in _SIZES] for shape in cohort.shapes])
    measures = cohort.measures.astype(np.float64)
    return {
        "ridge: age, sex, BMI, comorbidities": (_ridge, known),
        "extra trees: and kidney sizes": (_trees, np.hstack([known, sizes])),
        "extra trees: and the exact measures the trunk was taught": (_trees, np.hstack([known, measures])),
    }


def plain_cross_validated(
    cohort: Cohort, make: Callable[[], Any], features: FloatArray, *, repeats: int
) -> Repeats:
    """Predict everyone with a scikit-learn model on the same folds."""
    egfr = np.empty((repeats, len(cohort.cases)))
    for repeat, train, test in folds(len(cohort.cases), repeats):
        egfr[repeat, test] = make().fit(features[train], cohort.egfr_ml_min[train]).predict(features[test])
    return Repeats(egfr)


def figures(cohort: Cohort, models: dict[str, Repeats], draws: int) -> dict[str, Any]:
    """Compute every figure with its 95 % interval over people, and the differences between models."""
    observed, bound = cohort.egfr_ml_min, cohort.is_lower_bound
    capped = {
        name: np.stack([censored_at(observed, repeat, bound)[1] for repeat in model.egfr])
        for name, model in models.items()
    }
    out: dict[str, Any] = {"n": len(observed), "models": {}, "differences": {}}
    for name, predicted in capped.items():
        model = models[name]
        out["models"][name] = {
            "r2": _rounded(bootstrap_interval(r_squared, observed, predicted, num_draws=draws)),
            "mae": _rounded(bootstrap_interval(mean_absolute_error, observed, predicted, num_draws=draws)),
            **_mean([agreement(observed, repeat) for repeat in predicted], skip=("r2", "mae")),
            **_mean(
                [dict(stage_agreement(stage_index(observed), stage_index(r.clip(0)))) for r in predicted],
                prefix="stage_",
            ),
        }
        if model.low is not None and model.high is not None:
            # an eGFR of 90 or more lies in every interval that reaches 90
            low = np.stack([censored_at(observed, repeat, bound)[1] for repeat in model.low])
            high = np.stack([censored_at(observed, repeat, bound)[1] for repeat in model.high])
            covered = [interval_coverage(observed, *ends) for ends in zip(low, high, strict=True)]
            out["models"][name]["coverage_of_90_percent_interval"] = round(float(np.mean(covered)), 3)
    for first, other in COMPARISONS:
        if first in capped and other in capped:
            out["differences"][f"{first} − {other}"] = {
                label: _rounded(
                    paired_bootstrap_interval(figure, observed, capped[first], capped[other], num_draws=draws)
                )
                for label, figure in (("r2", r_squared), ("mae", mean_absolute_error))
            }
    return out


def table(group: dict[str, Any]) -> str:
    """Lay the main figures out for people."""
    lines = [f"{'model':58} {'R² (95 % interval)':24} {'MAE (95 % interval)':24} stage  ±1    κ"]
    for name, model in group["models"].items():
        lines.append(
            f"{name:58} {_text(model['r2'], 3):24} {_text(model['mae'], 2):24} "
            f"{model['stage_accuracy']:.2f}  {model['stage_accuracy_within_one']:.2f}  "
            f"{model['stage_quadratic_kappa']:.2f}"
        )
    lines += [
        f"{name:58} {_text(difference['r2'], 3):24} {_text(difference['mae'], 2):24}"
        for name, difference in group["differences"].items()
    ]
    return "\n".join(lines)


def _adults(cohort: Cohort, models: dict[str, Repeats]) -> tuple[Cohort, dict[str, Repeats]]:
    kept = cohort.age_years >= 18
    return cohort.at(kept), {
        name: Repeats(*(None if part is None else part[:, kept] for part in model))  # type: ignore[arg-type]
        for name, model in models.items()
    }


def _ridge() -> Any:
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), RidgeCV(np.logspace(0, 3, 13)))


def _trees() -> Any:
    trees = ExtraTreesRegressor(300, min_samples_leaf=5, max_features=0.5, random_state=0)
    return make_pipeline(SimpleImputer(strategy="median"), trees)


def _mean(rows: list[dict[str, float]], *, prefix: str = "", skip: tuple[str, ...] = ()) -> dict[str, float]:
    return {
        prefix + key: round(float(np.mean([row[key] for row in rows])), 3)
        for key in rows[0]
        if key not in skip
    }


def _rounded(interval: Interval) -> list[float]:
    return [round(number, 4) for number in (interval.value, interval.low, interval.high)]


def _text(numbers: list[float], digits: int) -> str:
    value, low, high = (f"{number:.{digits}f}" for number in numbers)
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    raise SystemExit(main())
