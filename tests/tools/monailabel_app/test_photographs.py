"""Photographs of lesions at a live server: every way in which one comes, the picture, and refusals."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pydicom
import pytest
import requests
from PIL import Image

from shared_nets.data.photograph_defects import write_photograph_defect
from tests.tools.monailabel_app.live_server import parts_of, runtime_answer

LESION, KIDNEY = "mambaderm_classification", "kidney_ct_segmentation"

pytestmark = pytest.mark.xdist_group("monailabel")


def session_of(server, *paths: Path) -> str:
    files = [("files", (path.name, path.read_bytes())) for path in paths]
    return requests.put(f"{server.url}/session/", files=files, timeout=60).json()["session_id"]


@pytest.mark.parametrize("name", ["lesion.jpg", "photo.dcm"])
def test_a_photograph_gives_the_numbers_and_the_picture_of_the_runtime_however_it_comes(
    server, lesion_runtime, tmp_path, name
):
    path = server.studies / name
    result, files = runtime_answer(lesion_runtime, tmp_path, study_id="lesion", image=str(path))
    asked = json.dumps({"study_id": "lesion"})
    answers = {
        "name": server.infer(LESION, image=path.stem, output="all", params=asked),
        "path": server.infer(LESION, image=str(path), output="all", params=asked),
        "file": server.infer(LESION, files={"file": (name, path.read_bytes())}, output="all", params=asked),
        "session": server.infer(LESION, session_id=session_of(server, path), output="all", params=asked),
    }
    for response in answers.values():
        params, picture = parts_of(response)
        assert params == {"result": result, "label_names": {}}
        assert picture == Path(files["picture.png"]).read_bytes()
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG"
        assert image.width > 700


def test_the_header_of_a_dicom_photograph_names_nobody_in_the_answer(server):
    header = pydicom.dcmread(server.studies / "photo.dcm", stop_before_pixels=True)
    response = server.infer(LESION, image="photo", output="json")
    assert response.json()["result"]["provenance"]["image"]["source"] == "dicom"
    assert header.PatientID not in response.text
    assert str(header.PatientName) not in response.text


def test_the_list_of_models_says_that_a_photograph_gives_a_class_and_a_picture(server):
    model = requests.get(f"{server.url}/info/", timeout=60).json()["models"][LESION]
    assert (model["type"], model["dimension"], model["labels"]) == ("classification", 2, {})
    assert model["config"]["result_extension"] == [".png"]


@pytest.mark.parametrize("extension", [".nii.gz", ".dcm", ".nrrd"])
def test_the_picture_comes_where_a_viewer_asks_for_a_mask_that_there_is_not(server, extension):
    asked = json.dumps({"result_extension": extension})
    response = server.infer(LESION, image="lesion", output="image", params=asked)
    assert response.headers["content-type"] == "image/png"
    assert response.content.startswith(b"\x89PNG")


def test_metadata_come_in_params(server):
    asked = json.dumps({"clinical": {"age": 60, "sex": "female"}})
    result = server.infer(LESION, image="lesion", output="json", params=asked).json()["result"]
    assert "METADATA_NOT_USED" in {warning["code"] for warning in result["warnings"]}


def test_a_session_of_two_photographs_is_ambiguous(server):
    session = session_of(server, server.studies / "photo.dcm", server.studies / "lesion.jpg")
    response = server.infer(LESION, session_id=session)
    assert response.status_code == 422
    assert response.json()["detail"]["code"] == "SERIES_AMBIGUOUS"


@pytest.mark.parametrize(
    ("model", "image", "code"),
    [
        pytest.param(LESION, "phantom", "INPUT_UNREADABLE", id="a CT volume for the photograph"),
        pytest.param(LESION, "{studies}/series", "SERIES_AMBIGUOUS", id="a CT series for the photograph"),
        pytest.param(KIDNEY, "lesion", "INPUT_EMPTY", id="a photograph for the CT"),
        pytest.param(KIDNEY, "photo", "WRONG_MODALITY", id="a DICOM photograph for the CT"),
    ],
)
def test_an_image_of_the_other_kind_is_refused(server, model, image, code):
    response = server.infer(model, image=image.format(studies=server.studies))
    assert response.status_code == 422
    assert response.json()["detail"]["code"] == code


@pytest.mark.parametrize("name", ["jpeg, cut off", "web page called jpg", "dicom of a ct", "several pages"])
def test_a_defect_comes_back_as_422_with_its_code_by_file_and_by_session(server, tmp_path, name):
    defect, path = write_photograph_defect(name, tmp_path)
    by_file = server.infer(LESION, files={"file": (path.name, path.read_bytes())})
    by_session = server.infer(LESION, session_id=session_of(server, path))
    for response in (by_file, by_session):
        assert response.status_code == 422
        assert response.json()["detail"]["code"] == defect.refusal
