"""The kidney bundle from a CT to files, what it refuses, and how the CKD bundle uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from shared_nets.data.mask_reader import MaskReader
from shared_nets.data.phantom import make_phantom, write_dicom_series, write_nifti
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.transforms.network_grid import network_grid, to_network_grid
from tools.bundle_rules import REPOSITORY

BUNDLE = REPOSITORY / "bundles" / "kidney_ct_segmentation"
CKD = REPOSITORY / "bundles" / "ckd_staging_classification"
MOMENT = "2026-01-02T03:04:05+00:00"

pytestmark = pytest.mark.xdist_group("kidney_bundle")


@pytest.fixture(scope="module")
def runtime():
    return BundleRuntime(BUNDLE, device="$torch.device('cpu')", created=MOMENT)


@pytest.fixture(scope="module")
def perfect():
    """The same bundle with an inferer that knows where the phantom's kidneys lie, unless there is fat."""
    runtime = BundleRuntime(BUNDLE, device="$torch.device('cpu')", created=MOMENT)
    phantom = make_phantom(right_ml=150.0, left_ml=130.0)
    grid = network_grid(phantom.labels.shape, phantom.affine, spacing_mm=3.0)
    kidney = to_network_grid(np.isin(phantom.labels, (2, 3)), grid) > 0.5  # (X, Y, Z)

    def infer(image: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        hu = image * 600.0 - 200.0
        return torch.where(kidney & (hu > 0.0), 10.0, -10.0)

    runtime._evaluator.inferer = infer
    return runtime


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    phantom = make_phantom(right_ml=150.0, left_ml=130.0)
    write_dicom_series(phantom.hu, phantom.affine, folder / "ct")
    write_nifti(phantom.hu, phantom.affine, folder / "ct.nii.gz")
    write_nifti(phantom.labels, phantom.affine, folder / "mask.nii.gz")
    return folder


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def run_on(runtime: BundleRuntime, image: Path | str, output_dir: Path, name: str = "phantom"):
    (outcome,) = runtime.run([{"study_id": name, "image": str(image)}], output_dir=output_dir)
    return outcome


def test_a_perfect_network_gives_the_volumes_of_the_phantom(perfect, inputs, tmp_path):
    result = run_on(perfect, inputs / "ct", tmp_path).result
    assert result.kidneys["right"].volume_ml == pytest.approx(150.0, rel=0.05)
    assert result.kidneys["left"].volume_ml == pytest.approx(130.0, rel=0.05)
    assert result.kidneys["right"].mean_hu == pytest.approx(177.2, abs=1.0)
    assert result.total_volume_ml == pytest.approx(
        result.kidneys["right"].volume_ml + result.kidneys["left"].volume_ml, abs=0.2
    )


def test_dicom_input_gives_dicom_files_and_nifti_input_a_nifti_mask(perfect, inputs, tmp_path):
    both = {"result.json", "picture.png", "page.html", "report.fhir.json"}
    assert set(run_on(perfect, inputs / "ct", tmp_path / "a").files) == both | {
        *("kidneys.seg.dcm", "report.sr.dcm", "picture.sc.dcm"),
    }
    assert set(run_on(perfect, inputs / "ct.nii.gz", tmp_path / "b").files) == both | {"kidneys.nii.gz"}


def test_the_segmentation_lies_over_the_phantom_and_says_who_drew_it(perfect, inputs, tmp_path):
    path = run_on(perfect, inputs / "ct", tmp_path).files["kidneys.seg.dcm"]
    reader = MaskReader()
    labels, meta = reader.get_data(reader.read(path))
    phantom = nib.load(inputs / "mask.nii.gz")
    truth = np.isin(np.asarray(phantom.dataobj), (2, 3))
    drawn = nib.Nifti1Image((labels > 0).astype(np.uint8), meta["affine"])
    same = nib.as_closest_canonical(drawn)
    there = nib.as_closest_canonical(nib.Nifti1Image(truth.astype(np.uint8), phantom.affine))
    first = np.round((same.affine[:3, 3] - there.affine[:3, 3]) / 3.0).astype(
        int
    )  # slices without kidney are cut
    whole = np.zeros(there.shape, dtype=bool)
    box = tuple(slice(o, o + n) for o, n in zip(first, same.shape, strict=True))
    whole[box] = np.asarray(same.dataobj) > 0
    assert dice(whole, np.asarray(there.dataobj) > 0) > 0.95
    header = pydicom.dcmread(path)
    algorithm = header.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    version = json.loads((BUNDLE / "configs" / "metadata.json").read_text())["version"]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("kidney_ct_segmentation", version)
    assert header.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"


def test_equal_input_gives_equal_bytes(perfect, inputs, tmp_path):
    contents = []
    for name in ("first", "second"):
        outcome = run_on(perfect, inputs / "ct", tmp_path / name)
        contents.append({file: Path(path).read_bytes() for file, path in outcome.files.items()})
    assert contents[0] == contents[1]


def test_a_body_without_kidneys_is_refused_and_leaves_no_result(perfect, inputs, tmp_path):
    phantom = make_phantom(right_ml=150.0, left_ml=130.0)
    hu = np.where(np.isin(phantom.labels, (2, 3)), -100, phantom.hu).astype(np.int16)
    write_nifti(hu, phantom.affine, tmp_path / "ct.nii.gz")
    outcome = run_on(perfect, tmp_path / "ct.nii.gz", tmp_path / "out")
    assert outcome.result is None
    assert outcome.refusal.code == "KIDNEY_NOT_FOUND"
    assert [path.name for path in (tmp_path / "out" / "phantom").iterdir()] == ["refusal.json"]


def test_one_kidney_is_reported_as_one(perfect, tmp_path):
    phantom = make_phantom(right_ml=150.0, left_ml=130.0)
    hu = np.where(phantom.labels == 3, -100, phantom.hu).astype(np.int16)
    write_nifti(hu, phantom.affine, tmp_path / "ct.nii.gz")
    result = run_on(perfect, tmp_path / "ct.nii.gz", tmp_path / "out").result
    assert list(result.kidneys) == ["right"]
    assert "KIDNEY_ABSENT" in {finding.code for finding in result.warnings}


def test_the_ckd_bundle_draws_the_mask_itself_and_says_so(perfect, inputs, tmp_path):
    ckd = BundleRuntime(CKD, device="$torch.device('cpu')", created=MOMENT)
    segmenter = ckd.content("segmenter")
    segmenter._runtime = perfect
    perfect.workflow.parser.ref_resolver.resolved_content["inferer"] = perfect._evaluator.inferer
    woman = {"age": 65, "sex": "female"}
    given = {"study_id": "given", "mask": str(inputs / "mask.nii.gz"), "label_set": "totalsegmentator"}
    drawn, supplied = ckd.run(
        [
            {"study_id": "drawn", "image": str(inputs / "ct"), "clinical": woman},
            {**given, "image": str(inputs / "ct"), "clinical": woman},
        ],
        output_dir=tmp_path,
    )
    assert drawn.refusal is None
    codes = {finding.code for finding in drawn.result.warnings}
    assert "MASK_DRAWN_AUTOMATICALLY" in codes
    mask = drawn.result.provenance.mask
    assert (mask["source"], mask["algorithm"]) == ("automatic", "kidney_ct_segmentation")
    assert len(mask["weights_sha256"]) == 64
    assert supplied.result.provenance.mask["source"] == "nifti"
    assert "MASK_DRAWN_AUTOMATICALLY" not in {finding.code for finding in supplied.result.warnings}
    # two masks of the same kidneys: nearly the same answer
    assert drawn.result.egfr.value == pytest.approx(supplied.result.egfr.value, rel=0.05)
    assert drawn.result.kidney_measurements["kidney_volume_ml"] == pytest.approx(280.0, rel=0.05)
    header = pydicom.dcmread(tmp_path / "drawn" / "kidneys.seg.dcm")
    algorithm = header.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "kidney_ct_segmentation"


@pytest.mark.slow
def test_the_command_line_writes_what_the_runtime_writes(runtime, inputs, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "monai.bundle", "run"),
            *("--config_file", str(BUNDLE / "configs" / "inference.json"), "--bundle_root", str(BUNDLE)),
            *("--image", str(inputs / "ct"), "--study_id", "phantom"),
            *("--output_dir", str(tmp_path / "cli"), "--created", MOMENT),
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    outcome = run_on(runtime, inputs / "ct", tmp_path / "python")
    assert done.returncode == (0 if outcome.refusal is None else 3), done.stderr[-2000:]
    there = {path.name: path.read_bytes() for path in (tmp_path / "cli" / "phantom").iterdir()}
    assert there == {path.name: path.read_bytes() for path in (tmp_path / "python" / "phantom").iterdir()}


@pytest.mark.registry
def test_both_kidneys_of_the_real_dicom_series_are_found_and_cut_off(runtime, lidc_dicom, tmp_path):
    """The weights know this scan: a check that nothing broke, not a figure."""
    result = run_on(runtime, lidc_dicom, tmp_path, name="lidc").result
    assert set(result.kidneys) == {"right", "left"}
    assert all(kidney.is_cut_off for kidney in result.kidneys.values())
    # TotalSegmentator's mask has 74.8 and 74.4 mL of them
    assert all(60 < kidney.volume_ml < 110 for kidney in result.kidneys.values())
