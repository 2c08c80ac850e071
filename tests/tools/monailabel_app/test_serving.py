"""A live MONAI Label server answers as the runtime does: every bundle, every way in which an image comes."""

from __future__ import annotations

import gzip
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pydicom
import pytest
import requests
import SimpleITK as sitk

from tests.tools.monailabel_app.live_server import parts_of, runtime_answer

REPOSITORY = Path(__file__).resolve().parents[3]
KIDNEY, CKD, LESION = "kidney_ct_segmentation", "ckd_staging_classification", "mambaderm_classification"
MAN = {"age": 60, "sex": "male"}

pytestmark = pytest.mark.xdist_group("monailabel")


def test_every_bundle_of_the_collection_is_listed_after_20_s_of_processor_time_at_most(server):
    info = requests.get(f"{server.url}/info/", timeout=60).json()
    inference = (REPOSITORY / "bundles").glob("*/configs/inference.json")
    assert set(info["models"]) == {path.parents[1].name for path in inference}
    assert info["models"][KIDNEY]["labels"] == {"right kidney": 1, "left kidney": 2}
    assert info["models"][CKD]["type"] == "classification"
    assert server.start_cpu_s < 20.0


def test_a_volume_by_name_gives_the_result_and_the_mask_of_the_runtime(server, kidney_runtime, tmp_path):
    params, image = parts_of(server.infer(KIDNEY, image="phantom", output="all"))
    result, files = runtime_answer(
        kidney_runtime, tmp_path, study_id="phantom", image=str(server.studies / "phantom.nii.gz")
    )
    assert params == {"result": result, "label_names": {"right kidney": 1, "left kidney": 2}}
    assert image == Path(files["kidneys.nii.gz"]).read_bytes()


def test_a_dicom_series_gives_the_result_of_the_runtime_by_path_and_by_session(
    server, kidney_runtime, tmp_path
):
    series = server.studies / "series"
    result, _ = runtime_answer(kidney_runtime, tmp_path, study_id="study", image=str(series))
    assert len(result["provenance"]["image"]["sop_uids"]) == 24
    by_path, mask = parts_of(server.infer(KIDNEY, image=str(series), output="all"))
    assert by_path["result"] == result
    files = [("files", (path.name, path.read_bytes())) for path in series.iterdir()]
    session = requests.put(f"{server.url}/session/", files=files, timeout=60).json()["session_id"]
    by_session, same_mask = parts_of(server.infer(KIDNEY, session_id=session, output="all"))
    assert by_session["result"] == result
    assert gzip.decompress(mask) == gzip.decompress(same_mask)


def test_clinical_values_come_in_params_and_the_drawn_kidneys_come_back(server, ckd_runtime, tmp_path):
    series = str(server.studies / "series")
    params, mask = parts_of(
        server.infer(CKD, image=series, output="all", params=json.dumps({"clinical": MAN, "study_id": "man"}))
    )
    result, _ = runtime_answer(ckd_runtime, tmp_path, study_id="man", image=series, clinical=MAN)
    assert params["result"] == result
    assert result["clinical_used"]["age"]["value"] == 60
    labels = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(mask)).dataobj)
    assert labels.shape == (48, 40, 24)
    assert set(np.unique(labels)) == {0, 1, 2}


def test_a_mask_that_is_sent_along_is_used(server, ckd_runtime, truth, tmp_path):
    series = str(server.studies / "series")
    asked = {"clinical": MAN, "label_set": "totalsegmentator"}
    response = server.infer(
        CKD, image=series, output="json", params=json.dumps(asked), files={"label": truth.open("rb")}
    )
    result, _ = runtime_answer(
        ckd_runtime, tmp_path, study_id="study", image=series, mask=str(truth), **asked
    )
    assert response.json()["result"] == result
    assert result["provenance"]["mask"] == {"source": "nifti", "label_set": "totalsegmentator"}


def test_the_image_comes_as_nrrd_picture_or_dicom_segmentation_where_that_is_asked(server, tmp_path):
    series = str(server.studies / "series")
    got = {}
    for extension in (".nii.gz", ".nrrd", ".png", ".dcm"):
        asked = json.dumps({"result_extension": extension})
        response = server.infer(KIDNEY, image=series, output="image", params=asked)
        assert response.status_code == 200, response.text
        got[extension] = tmp_path / f"image{extension}"
        got[extension].write_bytes(response.content)
    nifti, nrrd = (sitk.ReadImage(str(got[extension])) for extension in (".nii.gz", ".nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(nifti), sitk.GetArrayFromImage(nrrd))
    assert nrrd.GetOrigin() == pytest.approx(nifti.GetOrigin(), abs=1e-4)
    assert nrrd.GetDirection() == pytest.approx(nifti.GetDirection(), abs=1e-6)
    assert got[".png"].read_bytes().startswith(b"\x89PNG")
    segmentation = pydicom.dcmread(got[".dcm"])
    source = pydicom.dcmread(next((server.studies / "series").iterdir()))
    assert segmentation.Modality == "SEG"
    assert segmentation.StudyInstanceUID == source.StudyInstanceUID


@pytest.mark.parametrize(
    ("model", "query", "params", "code"),
    [
        pytest.param(KIDNEY, {"image": "noise"}, {}, "PIXEL_NOT_HU", id="noise"),
        pytest.param(KIDNEY, {"image": "nothing"}, {}, "INPUT_NOT_FOUND", id="no such image"),
        pytest.param(KIDNEY, {"session_id": "nothing"}, {}, "INPUT_NOT_FOUND", id="no such session"),
        pytest.param(
            CKD, {"image": "phantom"}, {"clinical": {"age": 17, "sex": "male"}}, "AGE_UNDER_18", id="a child"
        ),
        pytest.param(CKD, {"image": "phantom"}, {"clinical": "x.csv"}, "CLINICAL_UNREADABLE", id="a path"),
        pytest.param(
            KIDNEY, {"image": "phantom"}, {"store_results": True}, "SERIES_NOT_FOUND", id="nowhere to store"
        ),
        pytest.param(
            KIDNEY, {"image": "phantom"}, {"result_extension": ".exe"}, "INPUT_UNREADABLE", id="extension"
        ),
    ],
)
def test_what_is_refused_comes_back_as_422_with_code_and_remedy(server, model, query, params, code):
    response = server.infer(model, params=json.dumps(params), **query)
    assert response.status_code == 422
    detail = response.json()["detail"]
    assert detail["code"] == code
    assert detail["message"]
    assert detail["remedy"]


def test_a_model_that_is_not_there_is_404(server):
    response = server.infer("spleen_ct_segmentation", image="phantom")
    assert response.status_code == 404
    assert KIDNEY in response.json()["detail"]


def test_a_batch_goes_on_after_an_image_that_is_refused(server):
    query = {"images": "all", "run_sync": "true"}
    url = f"{server.url}/batch/infer/{KIDNEY}"
    done = requests.post(url, params=query, json={"label_tag": "original"}, timeout=600).json()
    assert done["noise"]["params"]["refusal"]["code"] == "PIXEL_NOT_HU"
    assert set(done["phantom"]["params"]["result"]["kidneys"]) == {"right", "left"}
    stored = requests.get(f"{server.url}/datastore/", params={"output": "all"}, timeout=60).json()
    assert stored["objects"]["phantom"]["labels"]["original"]["ext"] == ".nii.gz"
    assert stored["objects"]["noise"]["labels"] == {}


def test_50_requests_from_4_clients_lose_nothing(server, kidney_runtime, ckd_runtime, lesion_runtime):
    asked = json.dumps({"clinical": MAN})
    kinds = [
        (KIDNEY, "phantom"),
        (KIDNEY, "noise"),
        (LESION, "lesion"),
        (CKD, "phantom"),
        (LESION, "phantom"),
    ]

    def ask(number: int) -> tuple[int, str]:
        model, image = kinds[number % len(kinds)]
        response = server.infer(model, image=image, output="json", params=asked if model == CKD else "{}")
        return response.status_code, response.text

    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(ask, range(50)))
    assert [status for status, _ in answers] == [200, 422, 200, 200, 422] * 10
    for number in range(len(kinds)):
        assert len(set(answers[number :: len(kinds)])) == 1
    extra_bytes = server.process.memory_info().rss - psutil.Process().memory_info().rss
    assert extra_bytes < 1.5e9  # over this process, which has loaded the same bundles


def test_temporary_files_of_answers_are_gone(server):
    (temporary,) = server.work.glob("tmp-*")
    before = set(temporary.iterdir())  # of requests that failed: MONAI Label keeps those until it ends
    server.infer(KIDNEY, image="phantom", output="image")
    end = time.monotonic() + 60.0  # they go once the answer was sent
    while left := [p.name for p in set(temporary.iterdir()) - before if p.suffix in (".gz", ".png", ".dcm")]:
        assert time.monotonic() < end, left
        time.sleep(0.1)
