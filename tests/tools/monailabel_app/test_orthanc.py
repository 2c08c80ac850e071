"""MONAI Label on a real PACS: series come from Orthanc by DICOMweb, results go back and are found there."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from highdicom.sr import srread
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.sr.codedict import codes
from pydicom.uid import JPEG2000Lossless

from shared_nets.data.phantom import make_phantom, write_dicom_series
from shared_nets.data.photograph_synthetic import dicom_photograph, write_dicom_photograph
from tests.bundles.drawn_lesions import drawn_lesion
from tests.tools.monailabel_app.live_orthanc import Orthanc, orthanc_executable
from tests.tools.monailabel_app.live_server import Server, running_server
from tests.writers.dicom_studies import errors_of

KIDNEY, CKD, DERM = "kidney_ct_segmentation", "ckd_staging_classification", "mambaderm_classification"
MAN = {"age": 60, "sex": "male"}
USER, PASSWORD = "label", "Password-Xyzzy"
#: Whose the images are.
IDENTITY = {
    "PatientName": "Mustermüller^Jane",
    "PatientID": "ID-Quux-4711",
    "PatientBirthDate": "19530217",
    "AccessionNumber": "ACC-Zyzzy-12",
    "ReferringPhysicianName": "Whoever^Ann",
    "StudyID": "ST-Plugh-7",
}
#: The same person in values that DICOM does not allow, which pydicom warns of.
BAD_IDENTITY = IDENTITY | {"PatientID": 9 * "ID-Quux-4711 ", "PatientBirthDate": "1953-02-17"}
SECRETS = ("Muster", "Jane", "Quux", "1953", "Zyzzy", "Whoever", "Plugh", PASSWORD)
DIGITS = 5e-5  # reports have four digits behind the point

pytestmark = pytest.mark.xdist_group("orthanc")


@pytest.fixture(scope="module")
def pacs(label_installed, tmp_path_factory) -> Iterator[Orthanc]:
    if orthanc_executable() is None:
        pytest.skip("Orthanc with DICOMweb is not installed: apt-get install orthanc orthanc-dicomweb")
    orthanc = Orthanc(tmp_path_factory.mktemp("orthanc"), USER, PASSWORD)
    try:
        orthanc.start()
        yield orthanc
    finally:
        orthanc.stop()


@pytest.fixture(scope="module")
def label(pacs, tmp_path_factory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MONAI_LABEL_DICOMWEB_USERNAME", USER)
        environment.setenv("MONAI_LABEL_DICOMWEB_PASSWORD", PASSWORD)
        environment.setenv("MONAI_LABEL_DICOMWEB_CACHE_EXPIRY", "0")
        with running_server(tmp_path_factory.mktemp("label"), "--studies", pacs.url) as server:
            yield server


def read_as(folder: Path, identity: Mapping[str, str]) -> list[Dataset]:
    """Read a series as somebody's."""
    images = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    with disable_value_validation():
        for image in images:
            for keyword, value in identity.items():
                setattr(image, keyword, value)
    return images


def phantom_series(folder: Path, *, left_ml: float, identity: Mapping[str, str] = IDENTITY) -> list[Dataset]:
    """Make a small CT; another volume gives other UIDs."""
    phantom = make_phantom(right_ml=150.0, left_ml=left_ml, shape=(48, 40, 24), spacing_mm=(5.0, 5.0, 5.0))
    write_dicom_series(phantom.hu, phantom.affine, folder)
    return read_as(folder, identity)


@pytest.fixture(scope="module")
def ct(pacs, tmp_path_factory) -> list[Dataset]:
    """A small CT in Orthanc."""
    images = phantom_series(tmp_path_factory.mktemp("ct"), left_ml=130.0)
    pacs.store(images)
    return images


def ask(label: Server, model: str, series_uid: str, **params: Any) -> tuple[dict[str, Any], bytes]:
    """Infer: the JSON part of the answer, and the image."""
    decoder = pytest.importorskip("requests_toolbelt").MultipartDecoder
    response = label.infer(model, image=series_uid, output="all", params=json.dumps(params))
    assert response.status_code == 200, response.text
    said, image = decoder.from_response(response).parts
    return json.loads(said.content), image.content


def listed(label: Server) -> set[str]:
    answer = requests.get(f"{label.url}/datastore/", params={"output": "all"}, timeout=60)
    return set(answer.json()["objects"])


def detail_of(response: requests.Response, status: int) -> dict[str, str]:
    assert response.status_code == status, response.text
    detail = response.json()["detail"]
    assert detail["message"]
    assert detail["remedy"]
    return detail


def check_objects(objects: Mapping[str, Dataset], source: Dataset, folder: Path) -> None:
    """Stored objects are of patient and study of their source, and dciodvfy finds no error in them."""
    for found in objects.values():
        for keyword in ("StudyInstanceUID", "StudyDate", "StudyTime", "PatientSex", *IDENTITY):
            assert found[keyword].value == source[keyword].value, keyword
        path = folder / f"{found.Modality}.dcm"
        pydicom.dcmwrite(path, found, enforce_file_format=True)
        if shutil.which("dciodvfy"):
            assert errors_of(path) == []


def check_segmentation(segmentation: Dataset, images: Sequence[Dataset], mask_nii_gz: bytes) -> None:
    """A segmentation refers to its source, and holds as many voxels as the label map of the answer."""
    (series,) = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == images[0].SeriesInstanceUID
    referred = {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence}
    assert referred
    assert referred <= {image.SOPInstanceUID for image in images}
    numbers = [
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for frame in segmentation.PerFrameFunctionalGroupsSequence
    ]
    voxels = np.bincount(numbers, weights=segmentation.pixel_array.sum(axis=(1, 2)), minlength=3)
    labels = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(mask_nii_gz)).dataobj)
    assert [one.SegmentLabel for one in segmentation.SegmentSequence] == ["Right kidney", "Left kidney"]
    assert voxels[1:].tolist() == [(labels == 1).sum(), (labels == 2).sum()]
    assert voxels[1:].min() > 0


def numbers_of(report: Dataset, folder: Path) -> list[dict[str, float]]:
    """Read the measurements of a report with highdicom: value by name, group for group."""
    path = folder / "report.dcm"
    pydicom.dcmwrite(path, report, enforce_file_format=True)
    content = srread(path).content
    groups = [*content.get_volumetric_roi_measurement_groups(), *content.get_image_measurement_groups()]
    return [{one.name.meaning: one.value for one in group.get_measurements()} for group in groups]


def check_sizes(groups: Sequence[Mapping[str, float]], kidneys: Mapping[str, Any]) -> None:
    for group, side in zip(groups, ("right", "left"), strict=True):
        assert group[codes.SCT.Volume.meaning] == pytest.approx(kidneys[side]["volume_ml"], abs=DIGITS)
        assert group[codes.SCT.Length.meaning] == pytest.approx(kidneys[side]["length_mm"], abs=DIGITS)


def test_kidneys_of_a_series_in_the_pacs_are_stored_there_as_the_answer_says(label, pacs, ct, tmp_path):
    assert ct[0].SeriesInstanceUID in listed(label)
    answer, mask = ask(label, KIDNEY, ct[0].SeriesInstanceUID, store_results=True)
    uids = answer["result"]["provenance"]["image"]["sop_uids"]
    assert set(uids) == {image.SOPInstanceUID for image in ct}
    objects = pacs.stored(ct[0].StudyInstanceUID, answer)
    assert set(objects) == {"SEG", "SR", "OT"}
    check_objects(objects, ct[0], tmp_path)
    check_segmentation(objects["SEG"], ct, mask)
    *sides, both = numbers_of(objects["SR"], tmp_path)
    check_sizes(sides, answer["result"]["kidneys"])
    assert both[codes.SCT.Volume.meaning] == pytest.approx(answer["result"]["total_volume_ml"], abs=DIGITS)


def test_the_stage_of_a_series_in_the_pacs_is_stored_there_as_the_answer_says(label, pacs, ct, tmp_path):
    answer, mask = ask(label, CKD, ct[0].SeriesInstanceUID, clinical=MAN, store_results=True)
    result = answer["result"]
    objects = pacs.stored(ct[0].StudyInstanceUID, answer)
    assert set(objects) == {"SEG", "SR", "OT"}
    check_objects(objects, ct[0], tmp_path)
    check_segmentation(objects["SEG"], ct, mask)
    numbers = {name: value for group in numbers_of(objects["SR"], tmp_path) for name, value in group.items()}
    probabilities = [value for name, value in numbers.items() if name.startswith("Probability")]
    assert probabilities == pytest.approx(list(result["stage_probabilities"].values()), abs=DIGITS)
    (creatinine,) = [value for name, value in numbers.items() if name.startswith("Creatinine")]
    assert creatinine == pytest.approx(result["creatinine"]["value"], abs=DIGITS)


def test_a_photograph_in_the_pacs_is_classified_and_the_report_stored_there(label, pacs, tmp_path):
    photo = dicom_photograph(drawn_lesion(height=180, width=240))
    write_dicom_photograph(tmp_path / "photo" / "photo.dcm", photo)
    (photo,) = read_as(tmp_path / "photo", IDENTITY)
    pacs.store([photo])
    assert photo.SeriesInstanceUID in listed(label)
    answer, picture = ask(label, DERM, photo.SeriesInstanceUID, store_results=True)
    assert picture.startswith(b"\x89PNG")
    objects = pacs.stored(photo.StudyInstanceUID, answer)
    assert set(objects) == {"SR", "OT"}
    check_objects(objects, photo, tmp_path)
    (numbers,) = numbers_of(objects["SR"], tmp_path)
    probabilities = [value for name, value in numbers.items() if name.startswith("Probability of ")]
    said = [*answer["result"]["class_probabilities"].values(), answer["result"]["malignancy"]]
    assert probabilities == pytest.approx(said, abs=DIGITS)


def test_results_in_a_study_are_no_images_and_change_no_later_answer(label, pacs, ct):
    first, mask = ask(label, KIDNEY, ct[0].SeriesInstanceUID, store_results=True)
    before = pacs.series_of(ct[0].StudyInstanceUID)
    second, same_mask = ask(label, KIDNEY, ct[0].SeriesInstanceUID, store_results=True)
    after = pacs.series_of(ct[0].StudyInstanceUID)
    assert (second["result"], gzip.decompress(same_mask)) == (first["result"], gzip.decompress(mask))
    assert listed(label) & set(after) == {ct[0].SeriesInstanceUID}
    # every request that asks for it stores objects of its own, and none in the place of another
    assert sorted(after[uid] for uid in set(after) - set(before)) == ["OT", "SEG", "SR"]
    assert set(before) <= set(after)


def test_a_series_that_comes_by_c_store_and_grows_is_read_whole(label, pacs, tmp_path):
    if shutil.which("storescu") is None:
        pytest.skip("storescu is not installed: apt-get install dcmtk")
    uid = phantom_series(tmp_path / "ct", left_ml=120.0)[0].SeriesInstanceUID
    files = [str(path) for path in sorted((tmp_path / "ct").iterdir())]
    caller = ("storescu", "-aet", "TEST", "-aec", "ORTHANC", "127.0.0.1", str(pacs.dicom_port))
    for number in (20, 24):
        subprocess.run([*caller, *files[:number]], check=True)
        answer, _ = ask(label, KIDNEY, uid)
        assert len(answer["result"]["provenance"]["image"]["sop_uids"]) == number


def test_images_that_orthanc_itself_cannot_decode_are_read_as_they_are_stored(label, pacs, tmp_path):
    images = phantom_series(tmp_path / "ct", left_ml=140.0)
    for image in images:
        image.compress(JPEG2000Lossless, generate_instance_uid=False)
    pacs.store(images)
    answer, _ = ask(label, KIDNEY, images[0].SeriesInstanceUID, store_results=True)
    assert set(pacs.stored(images[0].StudyInstanceUID, answer)) == {"SEG", "SR", "OT"}
    kept = next(label.work.glob(f"dicomweb/*/{images[0].SeriesInstanceUID}/*.dcm"))
    assert pydicom.dcmread(kept).file_meta.TransferSyntaxUID == JPEG2000Lossless


def test_a_final_mask_is_stored_in_the_pacs(label, pacs, ct, tmp_path):
    source = ct[0]
    _, mask = ask(label, KIDNEY, source.SeriesInstanceUID)
    before = set(pacs.series_of(source.StudyInstanceUID))
    url = f"{label.url}/datastore/label"
    query = {"image": source.SeriesInstanceUID, "tag": "final"}
    sent = requests.put(url, params=query, files={"label": ("mask.nii.gz", mask)}, timeout=60)
    assert sent.status_code == 200, sent.text
    after = pacs.series_of(source.StudyInstanceUID)
    (new,) = set(after) - before
    (segmentation,) = pacs.client().retrieve_series(source.StudyInstanceUID, new)
    check_objects({"SEG": segmentation}, source, tmp_path)
    check_segmentation(segmentation, ct, mask)
    assert {one.SegmentAlgorithmType for one in segmentation.SegmentSequence} == {"SEMIAUTOMATIC"}
    assert requests.get(f"{label.url}/datastore/", timeout=60).json()["completed"] == 1


def test_what_is_no_image_of_the_pacs_is_refused(label, pacs, ct):
    assert detail_of(label.infer(KIDNEY, image="1.2.3"), 422)["code"] == "SERIES_NOT_FOUND"
    assert detail_of(label.infer(KIDNEY, image="phantom"), 422)["code"] == "SERIES_NOT_FOUND"
    answer, _ = ask(label, KIDNEY, ct[0].SeriesInstanceUID, store_results=True)
    (segmentation,) = [one for one in answer["stored"] if one["modality"] == "SEG"]
    refused = label.infer(KIDNEY, image=segmentation["series_instance_uid"])
    assert detail_of(refused, 422)["code"] == "WRONG_MODALITY"
    stock = label.infer(
        KIDNEY, image=ct[0].SeriesInstanceUID, output="dicom_seg", params='{"label_info": []}'
    )
    assert detail_of(stock, 422)["code"] == "INPUT_UNREADABLE"


@pytest.mark.parametrize(
    ("password", "code"),
    [
        pytest.param(None, "SERVER_UNREACHABLE", id="down"),
        pytest.param("another", "SERVER_NO_PERMISSION", id="wrong password"),
    ],
)
def test_a_pacs_that_does_not_answer_is_told_and_used_again_once_it_does(label, pacs, ct, password, code):
    uid = ct[0].SeriesInstanceUID
    pacs.stop()
    try:
        if password:
            pacs.start(password)
        assert detail_of(label.infer(KIDNEY, image=uid), 502)["code"] == code
        for path in ("info/", "datastore/", "datastore/?output=all"):
            assert detail_of(requests.get(f"{label.url}/{path}", timeout=60), 502)["code"] == code
        query, mask = {"image": uid, "tag": "final"}, {"label": ("mask.nii.gz", b"x")}
        sent = requests.put(f"{label.url}/datastore/label", params=query, files=mask, timeout=60)
        assert detail_of(sent, 502)["code"] == code
    finally:
        pacs.stop()
        pacs.start()
    assert label.infer(KIDNEY, image=uid).status_code == 200


def test_viewers_reach_dicomweb_through_the_server_and_nothing_else_of_the_pacs(label, pacs, ct):
    url = f"{label.url}/proxy/dicom"
    found = requests.get(f"{url}/series", params={"SeriesInstanceUID": ct[0].SeriesInstanceUID}, timeout=60)
    assert [one["0020000E"]["Value"] for one in found.json()] == [[ct[0].SeriesInstanceUID]]
    assert requests.get(f"{url}/series?SeriesInstanceUID=1.2.3", timeout=60).json() == []
    for path in ("%2e%2e/system", "studies/%2e%2e/%2e%2e/system", "x%252e%252e/system", "..%2Fsystem"):
        assert requests.get(f"{url}/{path}", timeout=60).status_code == 404
        assert requests.post(f"{url}/{path}", timeout=60).status_code == 404


def test_neither_log_nor_file_name_tells_whose_the_images_are(label, pacs, tmp_path):
    images = phantom_series(tmp_path / "ct", left_ml=110.0, identity=BAD_IDENTITY)
    pacs.store(images)
    ask(label, KIDNEY, images[0].SeriesInstanceUID, store_results=True)
    names = "\n".join(str(path) for path in label.work.rglob("*"))
    log = (label.work.parent / "server.log").read_text(encoding="utf-8")
    assert [secret for secret in SECRETS if secret in log or secret in names] == []
    (cache,) = (label.work / "dicomweb").iterdir()
    assert cache.stat().st_mode & 0o077 == 0


@pytest.mark.slow
@pytest.mark.registry
def test_the_demo_series_goes_to_the_pacs_and_back(label, pacs, lidc_dicom, tmp_path):
    images = read_as(lidc_dicom, IDENTITY)
    pacs.store(images)
    for model, params in ((KIDNEY, {}), (CKD, {"clinical": MAN})):
        answer, mask = ask(label, model, images[0].SeriesInstanceUID, store_results=True, **params)
        objects = pacs.stored(images[0].StudyInstanceUID, answer)
        assert set(objects) == {"SEG", "SR", "OT"}
        check_objects(objects, images[0], tmp_path)
        check_segmentation(objects["SEG"], images, mask)
