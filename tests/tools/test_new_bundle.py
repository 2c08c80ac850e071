"""A bundle made from the template keeps every rule from the start, and lacks only its weights."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from shared_nets.data.phantom import LABELS, make_phantom, write_nifti
from tools import new_bundle
from tools.bundle_rules import REPOSITORY, bundle_problems, sha256_of
from tools.new_bundle import make_bundle

NAME = "liver_ct_segmentation"


def test_new_bundle_lacks_only_its_weights(tmp_path):
    assert bundle_problems(make_bundle(NAME, tmp_path)) == ["models/model.pt is missing."]


def test_new_bundle_carries_its_own_name_and_no_placeholder(tmp_path):
    folder = make_bundle(NAME, tmp_path)
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()}
    assert not [name for name, text in texts.items() if "BUNDLE_" in text or "VERSION_OF" in text]
    assert f"bundles/{NAME}" in texts["README.md"]
    assert json.loads(texts["metadata.json"])["name"] == NAME
    assert texts["LICENSE"] == (REPOSITORY / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("liver", id="no task"),
        pytest.param("Liver_segmentation", id="capital"),
        pytest.param("../liver_segmentation", id="another folder"),
    ],
)
def test_name_without_a_task_or_outside_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="the name must be snake_case and end in one of segmentation"):
        make_bundle(name, tmp_path / "bundles")
    assert not list(tmp_path.rglob("*"))


def test_existing_bundle_is_not_overwritten(tmp_path):
    make_bundle(NAME, tmp_path)
    with pytest.raises(FileExistsError, match="NAME must be a new one"):
        make_bundle(NAME, tmp_path)


def test_command_says_what_to_edit_and_what_is_missing(tmp_path, monkeypatch, capsys):
    (tmp_path / "bundles").mkdir()
    shutil.copy(REPOSITORY / "LICENSE", tmp_path)
    monkeypatch.setattr(new_bundle, "REPOSITORY", tmp_path)
    assert new_bundle.main([NAME]) == 0
    said = capsys.readouterr().out
    assert f"made bundles/{NAME}; edit next:" in said
    assert "models/model.pt is missing." in said
    with pytest.raises(SystemExit):
        new_bundle.main([NAME])


@pytest.mark.xdist_group("bundles")
@pytest.mark.parametrize(("config", "workflow"), [("inference.json", "infer"), ("train.json", "train")])
def test_new_bundle_has_what_monai_requires(tmp_path, config, workflow):
    from monai.bundle import ConfigWorkflow

    folder = make_bundle(NAME, tmp_path)
    flow = ConfigWorkflow(
        config_file=str(folder / "configs" / config),
        workflow_type=workflow,
        logging_file=False,
        bundle_root=str(folder),
        initialize=[],
        images=[tmp_path / "ct.nii.gz"],
        **({"train::dataset": {"_target_": "Dataset", "data": [{}]}} if workflow == "train" else {}),
    )
    flow.initialize()
    assert flow.check_properties() == []


@pytest.mark.xdist_group("bundles")
def test_new_bundle_trains_and_then_labels_a_volume(tmp_path, monkeypatch):
    from monai.bundle import ConfigWorkflow

    folder = make_bundle(NAME, tmp_path)
    data = tmp_path / "data" / "patient"
    data.mkdir(parents=True)
    phantom = make_phantom(shape=(64, 64, 32), spacing_mm=(6.0, 6.0, 6.0))
    write_nifti(phantom.hu, phantom.affine, data / "ct.nii.gz")
    write_nifti((phantom.labels == LABELS["liver"]).astype("uint8"), phantom.affine, data / "mask.nii.gz")
    small = {
        "logging_file": False,
        "bundle_root": str(folder),
        "device": "$torch.device('cpu')",
        "spacing_mm": [6.0, 6.0, 6.0],
        "roi_size": [32, 32, 32],
    }
    train = ConfigWorkflow(
        config_file=str(folder / "configs/train.json"),
        workflow_type="train",
        dataset_dir=str(tmp_path / "data"),
        max_epochs=1,
        **small,
    )
    train.initialize()
    train.run()

    weights = folder / "models" / "model.pt"
    metadata = folder / "configs/metadata.json"
    content = json.loads(metadata.read_text(encoding="utf-8"))
    content["weights"] = {"models/model.pt": {"sha256": sha256_of(weights)}}
    metadata.write_text(json.dumps(content))
    inference = ConfigWorkflow(
        config_file=str(folder / "configs/inference.json"),
        workflow_type="infer",
        dataset_dir=str(data),
        image_pattern="ct.nii.gz",
        output_dir=str(tmp_path / "out"),
        **small,
    )
    inference.initialize()
    inference.run()
    (written,) = (tmp_path / "out").rglob("*.nii.gz")
    labels = nib.load(written)
    assert labels.shape == phantom.hu.shape
    np.testing.assert_allclose(labels.affine, phantom.affine, atol=1e-3)
    assert set(np.unique(np.asanyarray(labels.dataobj))) <= {0, 1}


@pytest.mark.xdist_group("bundles")
def test_network_of_a_new_bundle_fits_its_metadata(tmp_path):
    from monai.bundle import verify_net_in_out

    configs = make_bundle(NAME, tmp_path) / "configs"
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
    )
