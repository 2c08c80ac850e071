"""A live MONAI Deploy application gives what the runtime gives, byte for byte, and a PDF."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest
from PIL import Image

from shared_nets.data.phantom import make_phantom, write_dicom_series, write_nifti
from shared_nets.data.photograph_synthetic import VL_PHOTOGRAPH, dicom_photograph, write_dicom_photograph
from shared_nets.runtime.bundle import BundleRuntime
from tests.bundles.drawn_lesions import drawn_lesion
from tests.tools.deploy_app.live_app import REPOSITORY, Run, run_application, run_applications
from tests.writers.dicom_studies import errors_of
from tools.deploy_app.packaging import lay_out

KIDNEY, CKD, LESION = "kidney_ct_segmentation", "ckd_staging_classification", "mambaderm_classification"
NAME, NUMBER = "Nobody^Knows", "NUMBER-4711"
#: Runs of one process: bundle and input by name.
RUNS = {
    "two series": (KIDNEY, "two_series"),
    "volume": (KIDNEY, "volume"),
    "png": (LESION, "photo.png"),
    "dicom photograph": (LESION, "photo.dcm"),
    "not enough known": (CKD, "nameless"),
    "not a ct": (KIDNEY, "photo.dcm"),
    "nothing there": (KIDNEY, "nowhere"),
}
pytestmark = [pytest.mark.xdist_group("deploy"), pytest.mark.usefixtures("deploy_installed", "one_moment")]


def write_ct(folder: Path, phantom, **tags) -> None:
    for path in write_dicom_series(phantom.hu, phantom.affine, folder):
        dataset = pydicom.dcmread(path)
        dataset.PatientName, dataset.PatientID = NAME, NUMBER
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Give the folder of all inputs."""
    folder = tmp_path_factory.mktemp("inputs")
    phantom = make_phantom(right_ml=150.0, left_ml=130.0, shape=(48, 40, 24), spacing_mm=(5.0, 5.0, 5.0))
    write_ct(folder / "two_series" / "a", phantom)
    write_ct(folder / "two_series" / "b", phantom, ConvolutionKernel="B70f", SeriesInstanceUID="1.2.3.4",
        SeriesNumber=2)  # fmt: skip
    for number, path in enumerate(sorted((folder / "two_series" / "b").iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{number}"
        dataset.save_as(path)
    (folder / "volume").mkdir()
    write_nifti(phantom.hu, phantom.affine, folder / "volume" / "scan.nii.gz")
    (folder / "volume" / "clinical.json").write_text('{"age": 65, "sex": "female"}')
    lesion = drawn_lesion(height=300, width=400)
    Image.fromarray(lesion).save(folder / "photo.png")
    write_dicom_photograph(folder / "photo.dcm", dicom_photograph(lesion, sop_class=VL_PHOTOGRAPH))
    write_ct(folder / "nameless", phantom, PatientSex="O")
    # of the person only the dates, the height and the weight are in the header
    body = {
        "PatientSex": "F",
        "PatientAge": "",
        "PatientBirthDate": "19600315",
        "PatientSize": "1.6",
        "PatientWeight": "64",
    }
    write_ct(folder / "person" / "ct", phantom, **body)
    (folder / "person" / "clinical.json").write_text('{"sex": "male"}')
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def runs(inputs, out) -> dict[str, Run]:
    """Run every input of :data:`RUNS`."""
    calls = [
        ["--bundle", bundle, "-i", str(inputs / name), "-o", str(out), "--study_id", key.replace(" ", "_")]
        for key, (bundle, name) in RUNS.items()
    ]
    calls.append(["-m", str(inputs), "-i", str(inputs / "volume"), "-o", str(out)])
    return dict(zip((*RUNS, "no bundle"), run_applications(calls), strict=True))


@pytest.fixture(scope="module")
def packaged(inputs, out, tmp_path_factory) -> Run:
    """Run the CKD bundle as a package does: its own code, and environment variables instead of arguments."""
    folder = tmp_path_factory.mktemp("package") / "map"
    lay_out(CKD, folder)
    environment = {
        "HOLOSCAN_INPUT_PATH": str(inputs / "person"),
        "HOLOSCAN_OUTPUT_PATH": str(out),
        "HOLOSCAN_MODEL_PATH": str(folder / "models"),
    }
    return run_application(str(folder / "app"), environment=environment)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def expected_files(bundle: str, study: dict[str, str], folder: Path) -> dict[str, bytes]:
    """What the runtime writes."""
    BundleRuntime(REPOSITORY / "bundles" / bundle).run([study], output_dir=folder)
    return files_in(folder / study["study_id"])


@pytest.mark.parametrize(
    ("key", "image", "pdf"),
    [
        pytest.param("two series", "two_series", "report.pdf.dcm", id="DICOM series to mask"),
        pytest.param("volume", "volume/scan.nii.gz", "report.pdf", id="NIfTI to mask"),
        pytest.param("png", "photo.png", "report.pdf", id="PNG to class"),
        pytest.param("dicom photograph", "photo.dcm", "report.pdf.dcm", id="DICOM photograph to class"),
    ],
)
def test_every_file_is_that_of_the_runtime_and_a_pdf_comes_on_top(
    runs, inputs, out, tmp_path, key, image, pdf
):
    assert runs[key].status == 0, runs[key].complained
    study = {"study_id": key.replace(" ", "_"), "image": str(inputs / image)}
    written = files_in(out / study["study_id"])
    document = written.pop(pdf)
    assert written == expected_files(RUNS[key][0], study, tmp_path)
    assert b"%PDF-" in document[:4096]
    if pdf.endswith(".dcm"):
        assert errors_of(out / study["study_id"] / pdf) == []


def test_a_package_takes_what_is_missing_from_the_header_and_says_so(packaged, inputs, out, tmp_path):
    assert packaged.status == 0, packaged.complained
    result = json.loads((out / "person" / "result.json").read_text())
    used = result["clinical_used"]
    assert {name: used[name]["source"] for name in ("age", "sex", "bmi")} == {
        "age": "image header",
        "sex": "user",
        "bmi": "image header",
    }
    assert (used["age"]["value"], used["bmi"]["value"]) == (59.0, pytest.approx(25.0))  # study: 2020-01-01
    assert "CLINICAL_HEADER_CONFLICT" in packaged.said  # the phantom's header says F
    study = {"study_id": "person", "image": str(inputs / "person" / "ct")}
    study["clinical"] = str(inputs / "person" / "clinical.json")
    written = files_in(out / "person")
    del written["report.pdf.dcm"]
    assert written == expected_files(CKD, study, tmp_path)


def test_the_rule_chooses_one_of_two_series_and_its_reason_is_printed(runs):
    assert "SERIES_CHOSEN: Chosen by rule out of 2" in runs["two series"].said
    assert "by kernel over series 2" in runs["two series"].said


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("not enough known", "CLINICAL_REQUIRED_MISSING"),
        ("not a ct", "WRONG_MODALITY"),
        ("nothing there", "INPUT_NOT_FOUND"),
    ],
)
def test_a_refusal_is_one_line_of_json_and_status_3_and_leaves_no_result(runs, out, key, code):
    run = runs[key]
    assert run.status == 3
    refusal = json.loads(run.complained.splitlines()[-1])
    assert refusal["code"] == code
    assert set(refusal) == {"code", "message", "remedy"}
    assert run.said == ""
    folder = out / key.replace(" ", "_")
    assert not folder.exists() or set(files_in(folder)) == {"refusal.json"}


def test_nobody_is_named_in_what_is_said(runs, packaged):
    told = "".join(run.said + run.complained for run in (*runs.values(), packaged))
    for secret in (NAME, NUMBER, "Synthetic^Person", "SYNTHETIC-1", "19600315"):
        assert secret not in told


def test_other_programs_import_monai_without_the_sdk():
    code = "import monai, sys; print(sorted(m for m in sys.modules if 'holoscan' in m or 'deploy' in m))"
    run = run_application("-c", code)
    assert (run.status, run.said) == (0, "[]\n")


def test_what_is_no_bundle_is_told_and_nothing_is_run(runs):
    assert runs["no bundle"].status == 2
    assert "bundle must name a bundle" in runs["no bundle"].complained
