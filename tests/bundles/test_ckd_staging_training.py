"""Training and evaluation of the CKD bundle on a miniature synthetic data set, in one process and in two."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from shared_nets.data.phantom import make_phantom, write_nifti
from shared_nets.runtime.kits_cohort import REFERENCE_EGFR_ML_MIN, SLICES
from tools.bundle_rules import REPOSITORY

BUNDLE = REPOSITORY / "bundles" / "ckd_staging_classification"
CONFIGS = BUNDLE / "configs"
EPOCHS, BATCH, PEOPLE, FOLDS = 5, 2, 8, 4

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ckd_training")]


@pytest.fixture(scope="module")
def datalist(tmp_path_factory) -> Path:
    """Eight synthetic people in four folds; the last has an eGFR that is a lower bound."""
    folder = tmp_path_factory.mktemp("people")
    people = []
    for number in range(PEOPLE):
        phantom = make_phantom(right_ml=100.0 + 12 * number, left_ml=95.0 + 12 * number, seed=number)
        write_nifti(phantom.labels, phantom.affine, folder / f"mask_{number}.nii.gz")
        people.append(
            {
                "study_id": f"synthetic_{number}",
                "mask": f"mask_{number}.nii.gz",
                "label_set": "totalsegmentator",
                "clinical": {"age": 50 + number, "sex": ("female", "male")[number % 2], "bmi": 22 + number},
                "egfr_ml_min": 41.0 + 7 * number,
                "egfr_is_lower_bound": number == PEOPLE - 1,
                "fold": number % FOLDS,
            }
        )
    path = folder / "datalist.json"
    path.write_text(json.dumps({"training": people}))
    return path


def test_the_weights_were_fitted_to_the_slices_that_the_configuration_makes():
    config = json.loads((CONFIGS / "inference.json").read_text(encoding="utf-8"))
    assert config["reference_egfr_ml_min"] == REFERENCE_EGFR_ML_MIN
    assert {name: config[name] for name in SLICES.keys() - {"label_set"}} == {
        name: value for name, value in SLICES.items() if name != "label_set"
    }


def test_training_warms_up_to_its_learning_rate_and_saves_weights_that_inference_loads(datalist, tmp_path):
    flow = ConfigWorkflow(
        workflow_type="train",
        config_file=str(CONFIGS / "train.json"),
        logging_file=False,
        bundle_root=str(BUNDLE),
        datalist=str(datalist),
        output_dir=str(tmp_path),
        device="$torch.device('cpu')",
        max_epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=0.002,
        warm_up_fraction=0.3,
    )
    flow.initialize()
    trainer = flow.parser.get_parsed_content("train::trainer")
    optimizer = flow.parser.get_parsed_content("optimizer")
    network = flow.parser.get_parsed_content("network_def")
    start = {name: value.clone() for name, value in network.state_dict().items()}
    rates, losses = [], []
    trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda _: rates.append(optimizer.param_groups[0]["lr"])
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output[0]["loss"]))
    flow.run()

    steps = EPOCHS * (PEOPLE - PEOPLE // FOLDS) // BATCH
    assert len(rates) == steps == 15
    # OneCycleLR reaches its maximum at step pct_start · total − 1
    assert int(np.argmax(rates)) == pytest.approx(0.3 * steps - 1, abs=1)
    assert max(rates) == pytest.approx(0.002, rel=0.05)
    assert np.isfinite([float(loss) for loss in losses]).all()
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert saved.keys() == start.keys()
    changed = {name for name, value in saved.items() if not torch.equal(value, start[name])}
    assert any(name.startswith("head") for name in changed)
    assert not any(name.startswith("backbone.") for name in changed)  # frozen


def test_two_processes_train_together_over_gloo(datalist, tmp_path):
    port = 20000 + hash(str(tmp_path)) % 20000
    configs = [str(CONFIGS / "train.json"), str(CONFIGS / "multi_gpu_train.json")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
            *("--master_port", str(port), "-m", "monai.bundle", "run", "--config_file", repr(configs)),
            *("--bundle_root", str(BUNDLE), "--datalist", str(datalist), "--output_dir", str(tmp_path)),
            *("--max_epochs", "2", "--batch_size", "2"),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in saved)
    assert all(bool(torch.isfinite(value).all()) for value in saved.values())


def test_evaluation_measures_everyone_and_counts_who_was_refused(datalist, tmp_path):
    people = json.loads(datalist.read_text(encoding="utf-8"))["training"]
    people[0]["clinical"]["age"] = 12
    changed = datalist.with_name("with_a_child.json")
    changed.write_text(json.dumps(people))
    flow = ConfigWorkflow(
        workflow_type="infer",
        config_file=[str(CONFIGS / "inference.json"), str(CONFIGS / "evaluate.json")],
        logging_file=False,
        bundle_root=str(BUNDLE),
        datalist=str(changed),
        output_dir=str(tmp_path),
        device="$torch.device('cpu')",
    )
    flow.initialize()
    with pytest.raises(SystemExit, match="3"):
        flow.run()
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert figures["n"] == PEOPLE - 1
    assert figures["num_refused"] == 1
    results = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(tmp_path.glob("*/result.json"))
    ]
    errors = [
        abs(min(result["egfr"]["value"], 90.0) - person["egfr_ml_min"])  # a bound of 90 hides what lies above
        for result, person in zip(results, people[1:], strict=True)
    ]
    assert people[-1]["egfr_ml_min"] == 90.0
    assert figures["egfr_mae"] == pytest.approx(np.mean(errors), abs=1e-3)
