"""The bundle for skin lesions from a photograph to files: what it writes, what it refuses, at every door."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image, ImageDraw

from shared_nets.data.photograph_synthetic import VL_PHOTOGRAPH, dicom_photograph, write_dicom_photograph
from shared_nets.refusals import InputRefused
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.runtime.released_weights import OWN_WEIGHTS
from tests.bundles.drawn_lesions import drawn_lesion
from tools import run_worklist
from tools.bundle_rules import REPOSITORY

BUNDLE = REPOSITORY / "bundles" / "mambaderm_classification"
MOMENT = "2026-01-02T03:04:05+00:00"
ALWAYS = {"result.json", "picture.png", "page.html", "report.fhir.json"}

pytestmark = pytest.mark.xdist_group("mambaderm_bundle")


@pytest.fixture(scope="module")
def runtime():
    return BundleRuntime(BUNDLE, device="$torch.device('cpu')", created=MOMENT)


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photograph") / "synthetic.png"
    Image.fromarray(drawn_lesion(height=300, width=400)).save(path)
    return path


def run_on(runtime: BundleRuntime, image: Path, output_dir: Path | None = None, **study):
    (outcome,) = runtime.run([{"study_id": "synthetic", "image": str(image), **study}], output_dir=output_dir)
    return outcome


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_numbers_of_a_result_agree_with_each_other(runtime, photo, tmp_path):
    outcome = run_on(runtime, photo, tmp_path)
    assert set(outcome.files) == ALWAYS
    result = json.loads((tmp_path / "synthetic" / "result.json").read_text(encoding="utf-8"))
    probabilities = result["class_probabilities"]
    assert list(probabilities) == ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    assert sum(probabilities.values()) == pytest.approx(1.0)
    assert result["malignancy"] == pytest.approx(sum(probabilities[name] for name in ("akiec", "bcc", "mel")))
    assert result["label"] in (None, max(probabilities, key=probabilities.get))
    assert (result["label"] is None) == bool(result["abstentions"])
    assert result["notice"].startswith("Research use only")


def test_a_result_says_what_it_was_made_from(runtime, photo):
    provenance = run_on(runtime, photo).result.provenance
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert (provenance.bundle, provenance.bundle_version) == (metadata["name"], metadata["version"])
    assert set(provenance.weights_sha256.values()) == {
        facts["sha256"] for facts in metadata["weights"].values()
    }
    assert provenance.thresholds["scan"] == "torch"
    assert list(provenance.image["shape"]) == [300, 400]


@pytest.mark.slow
def test_command_line_writes_the_bytes_of_the_runtime_and_ends_with_3_for_a_refusal(runtime, photo, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    shutil.copy(photo, folder / "synthetic.png")
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no JPEG")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "monai.bundle", "run"),
            *("--config_file", str(BUNDLE / "configs" / "inference.json"), "--bundle_root", str(BUNDLE)),
            *("--dataset_dir", str(folder), "--output_dir", str(tmp_path / "cli"), "--created", MOMENT),
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 3, done.stderr[-2000:]
    assert set(contents(tmp_path / "cli" / "torn")) == {"refusal.json"}
    run_on(runtime, folder / "synthetic.png", tmp_path / "python")
    written = contents(tmp_path / "cli" / "synthetic")
    assert set(written) == ALWAYS
    assert written == contents(tmp_path / "python" / "synthetic")


def test_equal_photographs_give_equal_bytes(runtime, photo, tmp_path):
    for name in ("first", "second"):
        run_on(runtime, photo, tmp_path / name)
    assert contents(tmp_path / "first" / "synthetic") == contents(tmp_path / "second" / "synthetic")


def test_a_dicom_photograph_gets_dicom_files_in_its_own_study(runtime, photo, tmp_path):
    source = dicom_photograph(np.asarray(Image.open(photo)), sop_class=VL_PHOTOGRAPH)
    write_dicom_photograph(tmp_path / "photo.dcm", source)
    from_dicom = run_on(runtime, tmp_path / "photo.dcm", tmp_path / "out")
    assert set(from_dicom.files) == ALWAYS | {"report.sr.dcm", "picture.sc.dcm"}
    for name in ("report.sr.dcm", "picture.sc.dcm"):
        written = pydicom.dcmread(tmp_path / "out" / "synthetic" / name)
        assert written.StudyInstanceUID == source.StudyInstanceUID
        assert written.PatientID == source.PatientID
        assert written.SeriesInstanceUID != source.SeriesInstanceUID
    report = (tmp_path / "out" / "synthetic" / "report.sr.dcm").read_bytes()
    assert source.SOPInstanceUID.encode() in report
    result = (tmp_path / "out" / "synthetic" / "result.json").read_text(encoding="utf-8")
    assert source.PatientID not in result
    # the same pixels, whatever file they came in
    assert from_dicom.result.class_probabilities == run_on(runtime, photo).result.class_probabilities


def page_of_text() -> Image.Image:
    page = Image.new("RGB", (400, 500), "white")
    for row in range(20):
        ImageDraw.Draw(page).text((20, 20 + 22 * row), "Synthetic letter: no skin, only words.", fill="black")
    return page


def radiograph() -> Image.Image:
    rows, columns = np.mgrid[:300, :300]
    grey = 40 + 150 * np.exp(-(((rows - 150) / 60) ** 2 + ((columns - 150) / 90) ** 2))
    noise = np.random.default_rng(0).normal(0, 3, grey.shape)
    return Image.fromarray((grey + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(page_of_text, {"IMAGE_NOT_SKIN", "IMAGE_BRIGHT"}, id="page of text"),
        pytest.param(radiograph, {"IMAGE_NOT_SKIN"}, id="grey as an X-ray"),
        pytest.param(lambda: Image.new("RGB", (99, 99), (200, 160, 140)), {"IMAGE_BLANK"}, id="one colour"),
        pytest.param(lambda: Image.fromarray(drawn_lesion(height=20)), {"IMAGE_TOO_SMALL"}, id="20 pixels"),
    ],
)
def test_what_is_no_photograph_of_a_lesion_is_refused_by_code(runtime, tmp_path, make, code):
    make().save(tmp_path / "input.png")
    outcome = run_on(runtime, tmp_path / "input.png", tmp_path / "out")
    assert outcome.result is None
    assert outcome.refusal.code in code
    assert set(contents(tmp_path / "out" / "synthetic")) == {"refusal.json"}


def test_a_photograph_that_was_cut_off_is_refused(runtime, tmp_path):
    Image.fromarray(drawn_lesion(height=200, width=200)).save(tmp_path / "whole.jpg", quality=95)
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    assert run_on(runtime, tmp_path / "half.jpg").refusal.code in {"INPUT_UNREADABLE", "PIXEL_TRUNCATED"}


def test_metadata_that_the_network_does_not_read_are_not_passed_over_in_silence(runtime, photo):
    plain = run_on(runtime, photo).result
    told = run_on(runtime, photo, clinical={"age": 60, "sex": "female"}).result
    assert "METADATA_NOT_USED" in {finding.code for finding in told.warnings}
    assert "METADATA_NOT_USED" not in {finding.code for finding in plain.warnings}
    assert told.class_probabilities == plain.class_probabilities
    assert told.metadata_used == {}


def test_knobs_change_what_runs_and_stand_in_the_result(photo, tmp_path):
    changed = BundleRuntime(
        BUNDLE,
        device="$torch.device('cpu')",
        num_views=8,
        scan="reference",
        hair_removal=True,
        colour_constancy=True,
        min_side_px=100,
        write_saliency=False,
        write_picture=False,
    )
    outcome = run_on(changed, photo, tmp_path)
    assert set(outcome.files) == ALWAYS - {"picture.png"}
    said = outcome.result.provenance.thresholds
    assert (said["num_views"], said["scan"], said["hair_removal"]) == (8, "reference", True)
    # probabilities hold for the settings of the calibration
    assert "CALIBRATION_OTHER_SETTINGS" in {finding.code for finding in outcome.result.warnings}
    inferer, network, preprocessing = (changed.content(n) for n in ("inferer", "network", "preprocessing"))
    network.eval()
    image = preprocessing({"image": str(photo)})["image"][None]
    upright, sideways = inferer(image, network), inferer(image.rot90(dims=(2, 3)), network)
    torch.testing.assert_close(upright, sideways, rtol=1e-4, atol=1e-4)  # all views, in another order
    Image.fromarray(drawn_lesion(height=60, width=80)).save(tmp_path / "small.png")
    assert run_on(changed, tmp_path / "small.png").refusal.code == "IMAGE_TOO_SMALL"


def test_own_weights_are_called_so_and_are_not_calibrated_by_those_of_others(runtime, photo, tmp_path):
    own = {name: value.clone() for name, value in runtime.content("network").state_dict().items()}
    own["classifier.8.bias"] += 1.0
    torch.save(own, tmp_path / "model.pt")
    bare = BundleRuntime(BUNDLE, device="$torch.device('cpu')", ckpt_path=str(tmp_path / "model.pt"))
    result = run_on(bare, photo).result
    assert "CALIBRATION_MISSING" in {finding.code for finding in result.warnings}
    assert result.coverage is None
    assert OWN_WEIGHTS in result.statements
    assert not any("DermaMNIST" in sentence for sentence in result.statements)
    shutil.copy(BUNDLE / "models" / "calibration.npz", tmp_path / "calibration.npz")
    with pytest.raises(InputRefused, match="was not fitted for the weights"):
        BundleRuntime(BUNDLE, device="$torch.device('cpu')", ckpt_path=str(tmp_path / "model.pt"))


@pytest.fixture
def one_thread():
    """A worklist sets the number of threads of its process; put it back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_worklist_over_a_folder_of_photographs_goes_on_where_it_stopped(
    runtime, photo, tmp_path, capsys, one_thread
):
    folder, out = tmp_path / "photographs", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b"):
        shutil.copy(photo, folder / f"{name}.png")
    (folder / "c.png").write_bytes(b"torn")
    command = ["--bundle_root", str(BUNDLE), "--dataset_dir", str(folder), "--output_dir", str(out)]
    command += ["--created", MOMENT]
    assert run_worklist.main(command) == 3
    assert "refused" in capsys.readouterr().out
    assert {path.name for path in (out / "c").iterdir()} == {"refusal.json"}
    before = (out / "a" / "result.json").stat().st_mtime_ns
    shutil.rmtree(out / "b")
    assert run_worklist.main(command) == 3
    assert (out / "a" / "result.json").stat().st_mtime_ns == before
    run_on(runtime, folder / "b.png", tmp_path / "python", study_id="b")
    assert contents(out / "b") == contents(tmp_path / "python" / "b")


@pytest.mark.registry
def test_the_real_photograph_of_a_naevus_gets_a_result(runtime, naevus_photo, tmp_path):
    outcome = run_on(runtime, naevus_photo, tmp_path)
    assert outcome.refusal is None
    assert outcome.result.provenance.image["header"]["format"] == "JPEG"
    source = dicom_photograph(
        np.asarray(Image.open(naevus_photo).convert("RGB").resize((400, 300))), sop_class=VL_PHOTOGRAPH
    )
    write_dicom_photograph(tmp_path / "photo.dcm", source)
    assert "report.sr.dcm" in run_on(runtime, tmp_path / "photo.dcm", tmp_path / "dicom").files
