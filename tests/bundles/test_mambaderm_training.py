"""Training, calibration and evaluation of the bundle for skin lesions, on a few synthetic photographs."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from PIL import Image

from shared_nets.data.isic2024 import CATEGORIES, NUMBERS
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.transforms.lesion_schema import lesion_schema
from tests.bundles.drawn_lesions import drawn_lesion, write_datalist, write_lesions
from tools.bundle_rules import REPOSITORY

BUNDLE = REPOSITORY / "bundles" / "mambaderm_classification"
CONFIGS = BUNDLE / "configs"
CLASSES = tuple(range(7))
TRAINING, VALIDATION, TEST, BATCH = 21, 84, 7, 7

#: Learns something in a few steps.
QUICK = {"learning_rate": 0.003, "average_momentum": 0.5, "max_epochs": 6}

pytestmark = pytest.mark.xdist_group("mambaderm_training")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder as ``tools.build_lesion_datalist`` lays DermaMNIST out, with drawn lesions."""
    folder, start, lists = tmp_path_factory.mktemp("drawn"), 0, {}
    for name, num in (("training", TRAINING), ("validation", VALIDATION), ("test", TEST)):
        lists[name] = write_lesions(folder / "images", num=num, classes=CLASSES, start=start)
        start += num
    write_datalist(folder, lists)
    return folder


def workflow(*overlays: str, base: str = "train.json", **overrides) -> ConfigWorkflow:
    flow = ConfigWorkflow(
        workflow_type="train" if base == "train.json" else "infer",
        config_file=[str(CONFIGS / name) for name in (base, *overlays)],
        logging_file=False,
        bundle_root=str(BUNDLE),
        **{"device": "$torch.device('cpu')", "scan": "torch", **overrides},
    )
    flow.initialize()
    return flow


def training(data: Path, output_dir: Path, **overrides) -> ConfigWorkflow:
    small = {"max_epochs": 2, "batch_size": BATCH, "val_interval": 2}
    return workflow(dataset_dir=str(data), output_dir=str(output_dir), **{**small, **overrides})


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    """The folder of a training of six epochs that nothing disturbed."""
    folder = tmp_path_factory.mktemp("trained")
    training(data, folder, **QUICK).run()
    return folder


def test_a_training_that_was_killed_goes_on_to_the_same_bits(data, trained, tmp_path):
    flow = training(data, tmp_path, **QUICK)
    trainer = flow.parser.get_parsed_content("train::trainer")

    def kill(engine):
        raise KeyboardInterrupt

    # in the middle of the second of six epochs
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=TRAINING // BATCH + 2), kill)
    with pytest.raises(KeyboardInterrupt):
        flow.run()
    assert not (tmp_path / "model.pt").exists()
    training(data, tmp_path, **QUICK).run()
    whole, resumed = (torch.load(path / "model.pt", weights_only=True) for path in (trained, tmp_path))
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_the_average_is_released_and_every_kind_of_part_has_learned(data, trained):
    state = torch.load(trained / "training_state.pt", weights_only=True)
    released = torch.load(trained / "model.pt", weights_only=True)
    assert all(torch.equal(released[name], value) for name, value in state["average"].items())
    assert any(not torch.equal(released[name], value) for name, value in state["network"].items())
    torch.manual_seed(0)  # the seed of the configuration
    start = workflow(dataset_dir=str(data)).parser.get_parsed_content("network_def").state_dict()
    for part in ("stem.", "pos_embed", "mamba_layers.1.", "fusion.", "classifier."):
        names = [name for name in start if name.startswith(part) and start[name].is_floating_point()]
        assert any(not torch.equal(released[name], start[name]) for name in names), part


@pytest.mark.parametrize(
    ("overrides", "calls", "dtype"),
    [
        pytest.param({}, 1, torch.bfloat16, id="defaults"),
        pytest.param({"gradient_checkpointing": True}, 2, torch.bfloat16, id="checkpointing"),
        pytest.param({"bfloat16": False}, 1, torch.float32, id="float32"),
    ],
)
def test_checkpointing_and_precision_switch_what_the_network_does(data, tmp_path, overrides, calls, dtype):
    flow = training(data, tmp_path, max_epochs=1, batch_size=TRAINING, val_interval=9, **overrides)
    network = flow.parser.get_parsed_content("network_def")
    seen = []
    layer = network.mamba_layers[0]
    layer.register_forward_pre_hook(lambda *_: seen.append("layer"))
    network.classifier[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    flow.run()  # one step
    assert seen.count("layer") == calls
    assert [value for value in seen if value != "layer"] == [dtype]


@pytest.fixture(scope="module")
def calibrated(data, trained) -> Path:
    """The same folder, with the calibration beside the weights."""
    workflow(
        "calibrate.json",
        base="inference.json",
        dataset_dir=str(data),
        ckpt_path=str(trained / "model.pt"),
        output_dir=str(trained),
        **{"handlers::0::accuracy": 0.15},  # six epochs teach little
    ).run()
    return trained


def test_own_weights_are_used_with_the_calibration_beside_them(data, calibrated):
    runtime = BundleRuntime(
        BUNDLE,
        device="$torch.device('cpu')",
        ckpt_path=str(calibrated / "model.pt"),
        refuse_poor_images=False,
    )
    (outcome,) = runtime.run([{"study_id": "synthetic", "image": str(data / "images" / "synthetic_000.png")}])
    assert outcome.result.coverage == pytest.approx(0.9)
    assert "CALIBRATION_MISSING" not in {finding.code for finding in outcome.result.warnings}
    assert set(outcome.result.provenance.weights_sha256) == {"model", "calibration"}


def test_evaluation_writes_the_figures_of_the_test_list(data, calibrated, tmp_path):
    flow = workflow(
        "evaluate.json",
        base="inference.json",
        dataset_dir=str(data),
        ckpt_path=str(calibrated / "model.pt"),
        output_dir=str(tmp_path),
    )
    flow.run()
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert (figures["num_images"], figures["num_labelled"], figures["num_refused"]) == (TEST, TEST, 0)
    network = flow.parser.get_parsed_content("network")
    preprocessing = flow.parser.get_parsed_content("preprocessing")
    network.eval()
    right = 0
    for item in json.loads((data / "datalist.json").read_text())["test"]:
        image = preprocessing({"study_id": item["study_id"], "image": str(data / item["image"])})["image"]
        with torch.no_grad():
            right += int(network(image[None]).argmax()) == item["label"]
    assert figures["calibrated"]["accuracy"] == pytest.approx(right / TEST)
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


@pytest.fixture(scope="module")
def isic(tmp_path_factory) -> Path:
    """Twenty synthetic people with two drawn lesions each, laid out as ISIC 2024; one in five malignant."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'shared_nets[isic]'")
    folder = tmp_path_factory.mktemp("isic")
    schema, rng, rows = lesion_schema("isic2024").values, np.random.default_rng(0), []
    with h5py.File(folder / "train-image.hdf5", "w") as file:
        for i in range(40):
            name, target = f"ISIC_{i:07d}", int(i % 5 == 0)
            jpeg = io.BytesIO()
            Image.fromarray(drawn_lesion(i, height=40, width=40, kind=target)).save(jpeg, "JPEG")
            file[name] = np.void(jpeg.getvalue())
            low = np.array([schema[n].minimum for n in NUMBERS])
            high = np.array([schema[n].maximum for n in NUMBERS])
            numbers = (low + (high - low) * rng.uniform(0.2, 0.6, len(NUMBERS))).round(3)
            row = dict(zip(NUMBERS, numbers.tolist(), strict=True))
            row |= {n: schema[n].categories[i % len(schema[n].categories)] for n in CATEGORIES}
            rows.append({"isic_id": name, "patient_id": f"IP_{i // 2:07d}", "target": target, **row})
    rows[1]["age_approx"] = ""
    with (folder / "train-metadata.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_the_published_size_learns_from_isic_2024_with_metadata_and_then_answers(isic, tmp_path):
    flow = workflow(
        *("full.json", "isic2024.json"),
        dataset_dir=str(isic),
        output_dir=str(tmp_path),
        img_size=48,  # 224 pixels take minutes on one core
        max_epochs=1,
        batch_size=8,
        num_workers=0,
    )
    network = flow.parser.get_parsed_content("network_def")
    sampler = flow.parser.get_parsed_content("train::sampler")
    flow.run()
    assert network.pos_embed.shape == (1, 12 * 12, 192)
    assert (len(network.mamba_layers), network.classifier[-1].out_features) == (4, 2)
    assert sampler.epoch == 1
    validator = flow.parser.get_parsed_content("validate::evaluator")
    assert 0.0 <= validator.state.metrics["malignancy_pauc"] <= 0.2
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    training_ages = [
        item["clinical"]["age_approx"]
        for item in flow.parser.get_parsed_content("train::data")
        if "age_approx" in item["clinical"]
    ]
    assert saved["tabular_encoder.numbers_mean"][0].item() == pytest.approx(np.mean(training_ages), rel=1e-4)
    assert saved["tabular_encoder.numbers_std"][0].item() == pytest.approx(np.std(training_ages), rel=1e-4)

    runtime = BundleRuntime(
        BUNDLE,
        overlays=[CONFIGS / "full.json"],
        device="$torch.device('cpu')",
        ckpt_path=str(tmp_path / "model.pt"),
        img_size=48,
        write_saliency=False,
        refuse_poor_images=False,
    )
    study = {"study_id": "synthetic", "image": f"{isic / 'train-image.hdf5'}#ISIC_0000003"}
    with_metadata, without = runtime.run(
        [{**study, "clinical": {"age_approx": 70, "sex": "male", "tbp_lv_A": 20}}, {**study, "study_id": "b"}]
    )
    assert set(with_metadata.result.metadata_used) == {"age_approx", "sex", "tbp_lv_A"}
    assert len(without.result.metadata_missing) == 40
    assert list(with_metadata.result.class_probabilities) == ["benign", "malignant"]
    assert with_metadata.result.class_probabilities != without.result.class_probabilities
    assert "CALIBRATION_MISSING" in {finding.code for finding in with_metadata.result.warnings}


def test_metadata_of_a_clinic_join_the_training_of_the_small_size(data, tmp_path):
    lists = json.loads((data / "datalist.json").read_text())
    for items in lists.values():
        for number, item in enumerate(items):
            item["clinical"] = {"age": 30 + number, "sex": ("female", "male")[number % 2]}
    (tmp_path / "with_metadata.json").write_text(json.dumps(lists))
    flow = training(
        data,
        tmp_path,
        datalist=str(tmp_path / "with_metadata.json"),
        metadata_schema="dermoscopy_clinic",
        max_epochs=1,
    )
    before = flow.parser.get_parsed_content("network_def").tabular_encoder.number_weight.detach().clone()
    flow.run()
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert saved["tabular_encoder.numbers_mean"].tolist() == [30 + (TRAINING - 1) / 2]
    assert not torch.equal(saved["tabular_encoder.number_weight"], before)


@pytest.mark.slow
def test_two_processes_train_together_over_gloo(data, tmp_path):
    port = 20000 + hash(str(tmp_path)) % 20000
    configs = [str(CONFIGS / "train.json"), str(CONFIGS / "multi_gpu_train.json")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
            *("--master_port", str(port), "-m", "monai.bundle", "run", "--config_file", repr(configs)),
            *("--bundle_root", str(BUNDLE), "--dataset_dir", str(data), "--output_dir", str(tmp_path)),
            *("--max_epochs", "1", "--batch_size", "5", "--val_interval", "1", "--scan", "torch"),
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
