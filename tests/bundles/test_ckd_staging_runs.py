"""The CKD bundle from files to files: what it writes, what it refuses, and the same answer at every door."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor
from PIL import Image

from shared_nets.data.phantom import make_phantom, write_dicom_series, write_nifti
from shared_nets.refusals import InputRefused
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.transforms.ckd_epi import STAGES, egfr_from_creatinine, stage_index
from tools.bundle_rules import REPOSITORY

BUNDLE = REPOSITORY / "bundles" / "ckd_staging_classification"
MOMENT = "2026-01-02T03:04:05+00:00"
WOMAN = {"age": 65, "sex": "female", "bmi": 24.5}

pytestmark = pytest.mark.xdist_group("ckd_bundle")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A synthetic scan as DICOM and as NIfTI, and its mask."""
    folder = tmp_path_factory.mktemp("phantom")
    phantom = make_phantom(right_ml=150.0, left_ml=140.0)
    write_dicom_series(phantom.hu, phantom.affine, folder / "ct")
    write_nifti(phantom.hu, phantom.affine, folder / "ct.nii.gz")
    write_nifti(phantom.labels, phantom.affine, folder / "mask.nii.gz")
    return folder


@pytest.fixture(scope="module")
def runtime():
    return BundleRuntime(BUNDLE, device="$torch.device('cpu')", created=MOMENT)


def study_of(inputs: Path, **changes) -> dict:
    study = {
        "study_id": "phantom",
        "image": str(inputs / "ct"),
        "mask": str(inputs / "mask.nii.gz"),
        "label_set": "totalsegmentator",
        "clinical": WOMAN,
    }
    return {name: value for name, value in {**study, **changes}.items() if value is not None}


def command_line(output_dir: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "monai.bundle", "run"),
            *("--config_file", str(BUNDLE / "configs" / "inference.json")),
            *("--bundle_root", str(BUNDLE), "--output_dir", str(output_dir)),
            *("--created", MOMENT, *arguments),
        ],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_numbers_of_a_result_agree_with_each_other(runtime, inputs, tmp_path):
    (outcome,) = runtime.run([study_of(inputs)], output_dir=tmp_path)
    result = json.loads(Path(outcome.files["result.json"]).read_text(encoding="utf-8"))
    creatinine, egfr = result["creatinine"], result["egfr"]
    assert creatinine["low"] <= creatinine["value"] <= creatinine["high"]
    assert egfr["value"] == pytest.approx(float(egfr_from_creatinine(creatinine["value"], 65, True)))
    assert egfr["low"] == pytest.approx(float(egfr_from_creatinine(creatinine["high"], 65, True)))
    assert result["stage"] == STAGES[int(stage_index(egfr["value"]))]
    assert sum(result["stage_probabilities"].values()) == pytest.approx(1.0)
    assert result["notice"].startswith("Research use only")
    assert any("One time point" in sentence for sentence in result["statements"])
    assert any("G1 and G2" in sentence for sentence in result["statements"])


def test_a_result_says_what_it_was_made_from(runtime, inputs, tmp_path):
    (outcome,) = runtime.run([study_of(inputs)], output_dir=tmp_path)
    result = json.loads(Path(outcome.files["result.json"]).read_text(encoding="utf-8"))
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8"))
    stated = {facts["sha256"] for facts in metadata["weights"].values()}
    assert set(result["provenance"]["weights_sha256"].values()) <= stated
    assert result["provenance"]["bundle_version"] == metadata["version"]
    assert result["provenance"]["image"]["source"] == "dicom"
    assert len(result["slices"]["sop_instance_uids"]) == len(result["slices"]["indices"])
    assert result["clinical_used"]["age"]["value"] == 65
    assert "smoking_history" in result["clinical_missing"]
    # the phantom's kidneys hold 150 and 140 mL by construction; voxels of 27 mm³ round that
    assert result["kidney_measurements"]["kidney_volume_ml"] == pytest.approx(290, rel=0.03)


def test_the_picture_is_a_png_of_some_size(runtime, inputs, tmp_path):
    (outcome,) = runtime.run([study_of(inputs)], output_dir=tmp_path)
    with Image.open(outcome.files["picture.png"]) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 700


def test_equal_input_gives_equal_bytes(runtime, inputs, tmp_path):
    contents = []
    for name in ("first", "second"):
        (outcome,) = runtime.run([study_of(inputs)], output_dir=tmp_path / name)
        contents.append([Path(path).read_bytes() for path in sorted(outcome.files.values())])
    assert contents[0] == contents[1]


def test_dicom_and_nifti_of_one_scan_give_the_same_numbers(runtime, inputs):
    studies = [study_of(inputs), study_of(inputs, study_id="nifti", image=str(inputs / "ct.nii.gz"))]
    dicom, nifti = runtime.run(studies)
    assert dicom.result.creatinine == nifti.result.creatinine
    assert dicom.result.stage_probabilities == nifti.result.stage_probabilities


def test_volumes_in_memory_give_the_same_numbers_as_paths(runtime, inputs):
    phantom = make_phantom(right_ml=150.0, left_ml=140.0)
    volumes = {
        "image": MetaTensor(phantom.hu[None], affine=phantom.affine),
        "mask": MetaTensor(phantom.labels[None], affine=phantom.affine),
    }
    from_paths, from_memory = runtime.run([study_of(inputs), study_of(inputs, study_id="memory", **volumes)])
    assert from_paths.result.creatinine == from_memory.result.creatinine


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"clinical": {"age": 12, "sex": "male"}}, "AGE_UNDER_18", id="child"),
        pytest.param({"clinical": {"age": 50}}, "CLINICAL_REQUIRED_MISSING", id="sex-unknown"),
        pytest.param({"clinical": WOMAN | {"egfr": 60}}, "CLINICAL_UNKNOWN_COLUMN", id="answer-given"),
        pytest.param({"clinical": WOMAN | {"bmi": 245}}, "CLINICAL_OUT_OF_RANGE", id="bmi-out-of-range"),
        pytest.param({"label_set": "right_left"}, "MASK_LABELS_UNKNOWN", id="other-label-set"),
        pytest.param({"image": "nowhere"}, "INPUT_NOT_FOUND", id="no-image"),
    ],
)
def test_bad_input_is_refused_by_code_and_leaves_no_result(runtime, inputs, tmp_path, changes, code):
    (outcome,) = runtime.run([study_of(inputs, **changes)], output_dir=tmp_path)
    assert outcome.result is None
    assert outcome.refusal.code == code
    assert sorted(path.name for path in (tmp_path / "phantom").iterdir()) == ["refusal.json"]
    assert json.loads((tmp_path / "phantom" / "refusal.json").read_text(encoding="utf-8"))["code"] == code


def test_without_mask_and_without_the_kidney_bundle_a_study_is_refused(inputs, tmp_path):
    alone = BundleRuntime(BUNDLE, device="$torch.device('cpu')", kidney_bundle=str(tmp_path / "nothing"))
    (outcome,) = alone.run([study_of(inputs, mask=None)])
    assert outcome.refusal.code == "MASK_MISSING"
    assert "nothing" in outcome.refusal.message


def test_cut_off_lower_poles_are_reported(runtime, tmp_path):
    phantom = make_phantom(cut_lower_mm=40.0)
    write_nifti(phantom.hu, phantom.affine, tmp_path / "ct.nii.gz")
    write_nifti(phantom.labels, phantom.affine, tmp_path / "mask.nii.gz")
    (outcome,) = runtime.run([study_of(tmp_path, image=str(tmp_path / "ct.nii.gz"))])
    cut = [finding.message for finding in outcome.result.warnings if finding.code == "KIDNEY_CUT_OFF"]
    assert len(cut) == 2
    assert all("inferior" in message for message in cut)


def test_no_run_asks_the_network(runtime, inputs, no_network):
    (outcome,) = runtime.run([study_of(inputs)])
    assert outcome.refusal is None


def test_shrunken_kidneys_mean_a_lower_estimate(runtime, tmp_path):
    """A sanity check of direction, on synthetic scans; the figures for people stand in the card."""
    estimates = []
    for scale in (0.4, 1.0):
        folder = tmp_path / str(scale)
        folder.mkdir()
        phantom = make_phantom(right_ml=170.0 * scale, left_ml=165.0 * scale)
        write_nifti(phantom.labels, phantom.affine, folder / "mask.nii.gz")
        (outcome,) = runtime.run([study_of(folder, image=None)])
        estimates.append(outcome.result.egfr.value)
    assert estimates[0] < estimates[1]


def test_a_thinner_mask_lowers_the_estimate_by_as_much_as_the_card_says(runtime):
    phantom = make_phantom(right_ml=150.0, left_ml=130.0)
    kidney = np.isin(phantom.labels, (2, 3))
    thinner = np.where(kidney & (phantom.hu > 135), phantom.labels, 0)  # the rim is darker
    assert np.count_nonzero(thinner) / np.count_nonzero(kidney) == pytest.approx(0.84, abs=0.005)
    studies = [
        {
            **{"study_id": name, "label_set": "totalsegmentator", "clinical": {"age": 65, "sex": "female"}},
            "image": MetaTensor(phantom.hu[None], affine=phantom.affine),
            "mask": MetaTensor(labels[None], affine=phantom.affine),
        }
        for name, labels in (("whole", phantom.labels), ("thinner", thinner))
    ]
    assert [round(outcome.result.egfr.value) for outcome in runtime.run(studies)] == [68, 52]


@pytest.mark.slow
def test_command_line_and_runtime_write_the_same_bytes_and_one_bad_study_stops_nobody(
    runtime, inputs, tmp_path
):
    good = study_of(inputs)
    studies = [good, study_of(inputs, study_id="child", clinical={"age": 9, "sex": "male"})]
    studies.append(study_of(inputs, study_id="last", image=str(inputs / "ct.nii.gz")))
    (tmp_path / "datalist.json").write_text(json.dumps(studies))
    (tmp_path / "elsewhere").mkdir()
    done = command_line(
        tmp_path / "cli", "--datalist", str(tmp_path / "datalist.json"), cwd=tmp_path / "elsewhere"
    )
    assert done.returncode == 3, done.stderr[-2000:]
    assert "3/3" in done.stderr  # the progress bar
    assert {path.parent.name for path in (tmp_path / "cli").glob("*/result.json")} == {"phantom", "last"}
    refusal = json.loads((tmp_path / "cli" / "child" / "refusal.json").read_text(encoding="utf-8"))
    assert refusal["code"] == "AGE_UNDER_18"
    runtime.run(studies, output_dir=tmp_path / "python")
    for path in sorted((tmp_path / "cli").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "python" / path.relative_to(tmp_path / "cli")).read_bytes()


@pytest.mark.slow
def test_paths_on_the_command_line_make_one_study(inputs, tmp_path):
    (tmp_path / "clinical.json").write_text(json.dumps(WOMAN))
    done = command_line(
        tmp_path / "out",
        *("--image", str(inputs / "ct"), "--mask", str(inputs / "mask.nii.gz")),
        *("--label_set", "totalsegmentator", "--clinical", str(tmp_path / "clinical.json")),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path.name for path in (tmp_path / "out" / "ct").iterdir()} == {
        *("result.json", "picture.png", "page.html", "report.fhir.json"),
        *("kidneys.seg.dcm", "report.sr.dcm", "picture.sc.dcm"),
    }


def test_damaged_weights_stop_the_run(tmp_path, inputs):
    damaged = tmp_path / "model.pt"
    damaged.write_bytes((BUNDLE / "models" / "model.pt").read_bytes()[:-100])
    with pytest.raises(InputRefused, match="WEIGHTS_MISMATCH"):
        BundleRuntime(BUNDLE, ckpt_path=str(damaged))


@pytest.mark.registry
def test_the_real_dicom_series_reports_both_cut_lower_poles(runtime, lidc_dicom, lidc_mask):
    (outcome,) = runtime.run([study_of(Path(), image=str(lidc_dicom), mask=str(lidc_mask))])
    cut = [finding.message for finding in outcome.result.warnings if finding.code == "KIDNEY_CUT_OFF"]
    assert sorted(message.split()[1] for message in cut) == ["left", "right"]
    assert all("inferior" in message for message in cut)
    positions = np.array(outcome.result.slices.positions_mm)
    assert np.ptp(positions) == pytest.approx(62.5, abs=2.5)  # 26 slices of 2.5 mm, less the thinnest


@pytest.mark.registry
def test_the_real_nifti_has_the_kidney_volumes_of_its_mask(
    runtime, totalsegmentator_ct, totalsegmentator_mask
):
    study = study_of(Path(), image=str(totalsegmentator_ct), mask=str(totalsegmentator_mask))
    (outcome,) = runtime.run([study])
    measured = outcome.result.kidney_measurements
    assert measured["right_kidney_volume_ml"] == pytest.approx(192.6, rel=0.02)
    assert measured["left_kidney_volume_ml"] == pytest.approx(137.4, rel=0.02)
    assert not any(finding.code == "KIDNEY_CUT_OFF" for finding in outcome.result.warnings)
