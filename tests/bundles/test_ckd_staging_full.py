"""The published size on a synthetic study: ViT-B/16, 32 CT slices of 224 × 224, 23 features, wide TabPFN.

All weights are random, so the numbers mean nothing; what is tested is that the configuration runs to its end.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shared_nets.data.phantom import make_phantom, write_dicom_series, write_nifti
from shared_nets.nets.ckd_fusion import ckd_fusion_base
from shared_nets.nets.tabpfn_context import ClinicalContext, assign_folds, id_digest
from shared_nets.nets.tabpfn_small import new_criterion, new_network, save_checkpoint
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.transforms.clinical_schema import CKD_23
from tools.bundle_rules import REPOSITORY

BUNDLE = REPOSITORY / "bundles" / "ckd_staging_classification"
PEOPLE = 20
LABORATORY = {"BUN": 18.0, "Hb": 13.5, "Albumin": 4.1, "P": 3.4, "Ca": 9.3, "tCO2": 24.0, "K": 4.2}

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ckd_full")]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full_size")
    torch.manual_seed(0)
    torch.save(ckd_fusion_base().state_dict(), folder / "model.pt")
    tabpfn = new_network(embed_dim=192, depth=1, num_heads=6, num_buckets=50)
    save_checkpoint(tabpfn, new_criterion(torch.linspace(-3, 3, 51)), folder / "tabpfn.ckpt")
    rng = np.random.default_rng(0)
    ids = [f"synthetic_{number}" for number in range(PEOPLE)]
    names = CKD_23.names
    ClinicalContext(
        feature_names=(*names, *(f"{name}_is_missing" for name in names)),
        features=np.hstack([rng.normal(size=(PEOPLE, len(names))), np.zeros((PEOPLE, len(names)))]),
        targets=rng.normal(0, 0.3, PEOPLE),
        folds=assign_folds(ids, num_folds=5, random_state=0),
        id_digests=tuple(id_digest(name) for name in ids),
        target_name="log creatinine, synthetic",
        origin="synthetic, for a test",
        licence="Apache-2.0",
        schema_sha256=CKD_23.sha256,
    ).save(folder / "context.npz")
    return BundleRuntime(
        BUNDLE,
        overlays=[BUNDLE / "configs" / "full.json"],
        device="$torch.device('cpu')",
        ckpt_path=str(folder / "model.pt"),
        tabpfn_ckpt_path=str(folder / "tabpfn.ckpt"),
        context_path=str(folder / "context.npz"),
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    phantom = make_phantom(right_ml=150.0, left_ml=140.0)
    write_dicom_series(phantom.hu, phantom.affine, folder / "ct")
    write_nifti(phantom.labels, phantom.affine, folder / "mask.nii.gz")
    return {
        "study_id": "phantom",
        "image": str(folder / "ct"),
        "mask": str(folder / "mask.nii.gz"),
        "label_set": "totalsegmentator",
        "clinical": {"SEX": "female", "AGE": 65, "BMI": 24.5, **LABORATORY},
    }


def test_the_published_size_turns_a_study_into_a_result(runtime, study, tmp_path):
    (outcome,) = runtime.run([study], output_dir=tmp_path)
    assert outcome.refusal is None
    result = outcome.result
    assert len(result.slices.indices) == 32
    assert result.provenance.thresholds["content"] == "masked_ct"
    # 11 clinical values and 12 of kidney shape; creatinine at 48 h is the one that nobody supplied
    assert len(result.clinical_used) + len(result.clinical_missing) == 23
    assert result.clinical_missing == ("Cr_48h_log",)
    assert result.clinical_used["original_shape_MeshVolume"]["source"] != "user"
    assert np.isfinite(result.creatinine.value)
    assert (tmp_path / "phantom" / "picture.png").is_file()


def test_the_network_of_the_published_size_has_the_published_trunk(runtime):
    network = runtime.content("network")
    assert sum(p.numel() for p in network.backbone.parameters()) == 85_771_776
    assert network.slice_projection.weight.numel() + network.slice_projection.bias.numel() == 147_648
    assert (network.in_channels, len(network.clinical_mean)) == (3, 192)


def test_without_weights_the_published_size_is_refused():
    from shared_nets.refusals import InputRefused

    with pytest.raises(InputRefused, match="tabpfn_ckpt_path"):
        BundleRuntime(BUNDLE, overlays=[BUNDLE / "configs" / "full.json"], device="$torch.device('cpu')")
