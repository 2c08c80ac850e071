import csv
import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from shared_nets.engines.fusion_fitting import FittingRecipe
from shared_nets.nets.ckd_fusion import ckd_fusion_small
from shared_nets.nets.tabpfn_context import ClinicalContext
from shared_nets.runtime import kits_fitting
from tools import evaluate_kits, train_kits

NUM_PEOPLE = 12


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    """Twelve people with ball kidneys on 3 mm voxels, one of them a child, two with a bound; and weights."""
    folder = tmp_path_factory.mktemp("kits")
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(n) * 3.0 for n in (70, 40, 30)], indexing="ij"))
    rows = []
    for number in range(NUM_PEOPLE):
        radius = rng.uniform(18, 30)
        labels = np.zeros(grid.shape[1:], np.uint8)
        for x in (50.0, 160.0):
            centre = np.array([x, 60.0, 45.0])[:, None, None, None]
            labels[np.square(grid - centre).sum(axis=0) <= radius**2] = 1
        name = f"case_{number:05d}"
        nib.save(nib.Nifti1Image(labels, np.diag([3.0, 3, 3, 1])), folder / "masks" / f"{name}.nii.gz")
        rows.append(
            {
                "case_id": name,
                "age": 12 if number == 0 else int(rng.integers(30, 80)),
                "sex": ["male", "female"][number % 2],
                "bmi": round(rng.uniform(20, 35), 1),
                "egfr": 90 if number in (1, 2) else round(40 + radius + rng.uniform(0, 5), 1),
                "egfr_is_lower_bound": int(number in (1, 2)),
                "egfr_days_before_surgery": 10,
                "chronic_kidney_disease": number % 2,
            }
        )
    with (folder / "clinical.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    torch.manual_seed(0)
    torch.save(ckd_fusion_small().state_dict(), folder / "model.pt")
    return folder


@pytest.fixture(autouse=True)
def short_fits(monkeypatch):
    """Make fits short: twelve people need no more, and two choices show as well that one is made."""
    short = FittingRecipe(learning_rate=1e-3, max_steps=20, check_every=10)
    monkeypatch.setattr(kits_fitting, "RECIPE", short)
    monkeypatch.setattr(kits_fitting, "WEIGHT_DECAYS", (1.0,))


@pytest.fixture(scope="module")
def cohort(kits):
    return evaluate_kits.load_cohort(kits, kits / "cache")


def test_the_answer_is_not_among_the_inputs(cohort):
    for schema in ("KITS", "KITS_WITH_SHAPE", "KIDNEY_SHAPE"):
        names = evaluate_kits.schema_named(schema).names
        assert not [name for name in names if "chronic" in name or "egfr" in name or "creatinine" in name]
        assert cohort.rows(evaluate_kits.schema_named(schema)).shape == (NUM_PEOPLE, 2 * len(names))


def test_prepared_people_are_read_back_from_the_cache(kits, cohort):
    again = evaluate_kits.load_cohort(kits, kits / "cache")
    assert torch.equal(again.pictures, cohort.pictures)
    assert again.shapes[0].keys() == cohort.shapes[0].keys()


def test_each_person_is_tested_once_a_repeat_and_never_trained_on():
    seen = np.zeros((2, 10), int)
    for repeat, train, test in evaluate_kits.folds(10, 2):
        assert not set(train) & set(test)
        seen[repeat, test] += 1
    assert (seen == 1).all()


@pytest.mark.slow
def test_predictions_of_a_fold_do_not_depend_on_its_own_targets(kits, cohort):
    _, _, test = evaluate_kits.folds(NUM_PEOPLE, 1)[0]
    cases = list(cohort.cases)
    for index in test:
        cases[index] = dataclasses.replace(cases[index], egfr_ml_min=20.0, egfr_is_lower_bound=False)
    changed = dataclasses.replace(cohort, cases=tuple(cases))
    weights = evaluate_kits.image_branch_of(torch.load(kits / "model.pt", weights_only=True))
    tabpfn = evaluate_kits.BUNDLE / "models" / "tabpfn_small.ckpt"
    first, second = (
        evaluate_kits.cross_validated(people, "both", weights, tabpfn, repeats=1)[0]
        for people in (cohort, changed)
    )
    assert np.array_equal(first.egfr[:, test], second.egfr[:, test])
    others = np.setdiff1d(np.arange(NUM_PEOPLE), test)
    assert not np.array_equal(first.egfr[:, others], second.egfr[:, others])


@pytest.mark.slow
def test_the_report_holds_every_model_with_interval_and_difference(kits, capsys):
    arguments = [
        "--data_dir",
        str(kits),
        "--repeats",
        "1",
        "--weights",
        str(kits / "model.pt"),
        "--draws",
        "20",
    ]
    arguments += ["--variants", "clinical", "both", "--cache_dir", str(kits / "cache")]
    evaluate_kits.main([*arguments, "--output", str(kits / "figures.json")])
    report = json.loads((kits / "figures.json").read_text(encoding="utf-8"))
    assert report["everyone"]["n"] == NUM_PEOPLE
    assert report["adults"]["n"] == NUM_PEOPLE - 1
    assert sum(report["chosen_in_how_many_folds"]["both"].values()) == 5
    both = report["everyone"]["models"]["both"]
    value, low, high = both["mae"]
    assert low <= value <= high
    assert 0 <= both["coverage_of_90_percent_interval"] <= 1
    assert "both − clinical" in report["everyone"]["differences"]
    assert "ridge: age, sex, BMI, comorbidities" in capsys.readouterr().out


def test_training_writes_weights_and_context_of_the_adults(kits):
    arguments = ["--data_dir", str(kits), "--image_branch", str(kits / "branch.pt"), "--seed", "1"]
    branch = evaluate_kits.image_branch_of(torch.load(kits / "model.pt", weights_only=True))
    torch.save(branch, kits / "branch.pt")
    tabpfn = evaluate_kits.BUNDLE / "models" / "tabpfn_small.ckpt"
    train_kits.main([*arguments, "--tabpfn", str(tabpfn), "--output_dir", str(kits / "out")])
    context = ClinicalContext.load(kits / "out" / "ckd_context.npz")
    assert len(context.targets) == NUM_PEOPLE - 1
    weights = torch.load(kits / "out" / "model.pt", weights_only=True)
    network = ckd_fusion_small()
    network.load_state_dict(weights)
    assert (network.log_residual_quantiles.diff() >= 0).all()
    assert network.log_residual_quantiles[-1] > network.log_residual_quantiles[0]
    changed = [name for name, value in branch.items() if not torch.equal(weights[name], value)]
    assert changed == ["geometry.knots"]
