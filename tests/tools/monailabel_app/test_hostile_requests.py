"""Requests that reach for other files, or are not what they say: a clear answer, and the server lives on."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import requests

KIDNEY, CKD, LESION = "kidney_ct_segmentation", "ckd_staging_classification", "mambaderm_classification"

pytestmark = pytest.mark.xdist_group("monailabel")


@pytest.fixture(autouse=True)
def _lives_on(server):
    """After every test the server still answers."""
    yield
    assert requests.get(f"{server.url}/info/", timeout=60).status_code == 200


def nifti_gz(server) -> bytes:
    return (server.studies / "phantom.nii.gz").read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/etc/passwd", id="file"),
        pytest.param("/etc", id="folder"),
        pytest.param("/nothing/there", id="nothing"),
        pytest.param("{studies}/../../outside.nii.gz", id="dots"),
        pytest.param("tools", id="relative"),
    ],
)
@pytest.mark.parametrize("key", ["image", "mask"])
def test_a_path_outside_of_the_folders_is_refused_whether_it_exists_or_not(server, key, path):
    asked = {"image": "phantom", key: path.format(studies=server.studies)}
    response = server.infer(KIDNEY, image="phantom", params=json.dumps(asked))
    assert response.status_code == 422
    assert response.json()["detail"]["code"] == "INPUT_NO_PERMISSION"


def test_a_link_that_leads_outside_is_refused(server, tmp_path):
    link = server.studies / "link"
    link.symlink_to(tmp_path)
    try:
        response = server.infer(KIDNEY, image=str(link))
    finally:
        link.unlink()
    assert response.json()["detail"]["code"] == "INPUT_NO_PERMISSION"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        pytest.param("ct.nii.gz", b"", "INPUT_UNREADABLE", id="0 bytes"),
        pytest.param("ct.nii.gz", b"this is a text", "INPUT_UNREADABLE", id="a text"),
        pytest.param("ct.nii", bytes(8_000_000), "INPUT_UNREADABLE", id="zeros"),
        pytest.param("ct.nii.gz", gzip.compress(bytes(8_000_000)), "INPUT_UNREADABLE", id="packed zeros"),
        pytest.param("ct.dcm", bytes(8_000_000), "INPUT_EMPTY", id="zeros as DICOM"),
        pytest.param("ct.py", b"raise SystemExit", "INPUT_EMPTY", id="a program"),
    ],
)
def test_a_file_that_is_no_image_is_refused(server, name, content, code):
    response = server.infer(KIDNEY, files={"file": (name, content)})
    assert response.status_code == 422
    assert response.json()["detail"]["code"] == code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "name", "code"),
    [
        pytest.param(KIDNEY, "ct.nii", "INPUT_UNREADABLE", id="NIfTI"),
        pytest.param(KIDNEY, "ct.dcm", "INPUT_EMPTY", id="DICOM"),
        pytest.param(LESION, "photo.jpg", "INPUT_UNREADABLE", id="photograph"),
    ],
)
def test_a_gigabyte_of_zeros_is_refused(server, tmp_path, model, name, code):
    def upload(number: int) -> requests.Response:
        with path.open("rb") as file:
            return server.infer(model, files={"file": (name, file)})

    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(1_000_000_000)
    before = server.process.memory_info().rss
    with ThreadPoolExecutor(2) as clients:
        answers = list(clients.map(upload, range(2)))
    for response in answers:
        assert response.status_code == 422
        assert response.json()["detail"]["code"] == code
    assert server.process.memory_info().rss - before < 300e6


def temporary_files(server) -> set[Path]:
    (folder,) = server.work.glob("tmp-*")
    return {path for path in folder.rglob("*") if path.is_file()}


def test_nothing_of_a_request_that_fails_stays_on_the_disk(server):
    before = temporary_files(server)
    file = {"file": ("ct.nii", b"no image")}
    label = {"label": ("mask.nii", b"no mask")}
    put = partial(requests.put, timeout=60)
    answers = {
        "infer": server.infer(KIDNEY, files=file),
        "params": server.infer(KIDNEY, files=file, params="{"),
        "mask": server.infer(CKD, image="phantom", files=label),
        "bare mask": server.infer(KIDNEY, image="phantom", files={"label": ("mask.bin", b"no mask")}),
        "image": put(f"{server.url}/datastore/image", params={"image": ".."}, files=file),
        "label": put(f"{server.url}/datastore/label", params={"image": "phantom", "tag": ".."}, files=label),
        "model": put(f"{server.url}/model/nothing", files=file),
        "archive": put(
            f"{server.url}/session/", params={"uncompress": "true"}, files={"files": ("a.zip", b"no archive")}
        ),
        "session": put(f"{server.url}/session/", files=[("files", ("a", b"a")), ("files", ("..", b"b"))]),
    }
    assert {name for name, response in answers.items() if not 400 <= response.status_code < 500} == set()
    assert temporary_files(server) == before


def test_no_message_tells_where_the_server_keeps_its_files(server):
    for name in ("ct.nii", "ct.nii.gz", "ct.nrrd", "ct.mha", "ct.dcm", "ct.jpg"):
        for content in (b"", b"this is a text"):
            for model in (KIDNEY, LESION):
                response = server.infer(model, files={"file": (name, content)})
                assert response.status_code == 422
                assert str(server.work) not in response.text


@pytest.mark.parametrize(
    ("params", "status"),
    [
        pytest.param({"study_id": "///"}, 422, id="study_id without a letter"),
        pytest.param({"study_id": {"a": 1}}, 422, id="study_id"),
        pytest.param({"model": ["x"]}, 404, id="model"),
        pytest.param({"image": 5}, 422, id="image"),
        pytest.param({"mask": {"a": 1}}, 422, id="mask"),
        pytest.param({"label_set": 5}, 422, id="label_set"),
        pytest.param({"result_extension": [5]}, 422, id="result_extension"),
        pytest.param({"clinical": {"age": [1], "sex": {}}}, 422, id="clinical values"),
        pytest.param({"clinical": {"age": float("inf"), "sex": "male"}}, 422, id="not a number"),
    ],
)
def test_values_of_another_type_are_refused(server, params, status):
    response = server.infer(CKD, image="phantom", params=json.dumps(params))
    assert response.status_code == status


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param(f"batch/infer/{LESION}", {"max_workers": "x"}, 422, id="max_workers"),
        pytest.param(f"batch/infer/{LESION}", {"gpus": 5}, 422, id="gpus"),
        pytest.param(f"batch/infer/{LESION}", {"images": {"a": 1}}, 422, id="images"),
        pytest.param(f"train/{KIDNEY}", {"max_epochs": 0}, 422, id="epochs"),
        pytest.param(f"train/{KIDNEY}", {"learning_rate": "x"}, 422, id="learning rate"),
        pytest.param("train/nothing", {}, 404, id="trainer"),
        pytest.param("activelearning/nothing", {}, 404, id="strategy"),
        pytest.param("scoring/nothing", {}, 404, id="scoring"),
    ],
)
def test_a_task_with_values_that_it_cannot_have_is_refused(server, path, body, status):
    response = requests.post(f"{server.url}/{path}", params={"run_sync": "true"}, json=body, timeout=60)
    assert response.status_code == status


def test_a_batch_reaches_no_other_files(server):
    url = f"{server.url}/batch/infer/{LESION}"
    body = {"images": ["/etc/passwd", "phantom"]}
    done = requests.post(url, params={"run_sync": "true"}, json=body, timeout=60).json()
    codes = {name: answer["params"]["refusal"]["code"] for name, answer in done.items()}
    assert codes == {"/etc/passwd": "INPUT_NO_PERMISSION", "phantom": "INPUT_UNREADABLE"}


@pytest.mark.parametrize("name", ["../../../evil.nii.gz", "..", "a\\..\\..\\b.nii.gz"])
def test_the_name_of_an_uploaded_file_leads_nowhere(server, name):
    folders = (server.work.parent, server.work, server.studies)
    before = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    server.infer(KIDNEY, files={"file": (name, b"x")})
    requests.put(f"{server.url}/session/", files={"files": (name, b"x")}, timeout=60)
    after = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    assert [set(a) - set(b) - {"sessions"} for a, b in zip(after, before, strict=True)] == [
        set(),
        set(),
        set(),
    ]


@pytest.mark.parametrize(
    ("name", "status"),
    [pytest.param("x." + 300 * "n", 400, id="too long"), pytest.param("ct.nii\0.gz", 400, id="NUL")],
)
def test_a_name_that_no_file_can_have_is_400(server, name, status):
    body, kind = requests.models.RequestEncodingMixin._encode_files(
        {"file": ("NAME", b"x")}, {"params": "{}"}
    )
    response = requests.post(
        f"{server.url}/infer/{KIDNEY}",
        data=body.replace(b"NAME", name.encode()),
        headers={"Content-Type": kind},
        timeout=60,
    )
    assert response.status_code == status


@pytest.mark.parametrize(
    "params",
    [pytest.param("{", id="no JSON"), pytest.param("[1]", id="a list"), pytest.param("3", id="number")],
)
def test_params_that_are_no_json_object_are_400(server, params):
    assert server.infer(KIDNEY, image="phantom", params=params).status_code == 400


@pytest.mark.parametrize("image", ["../../evil", "/etc/evil", "labels/../../evil", ".evil"])
def test_an_image_is_not_added_under_a_name_that_leads_elsewhere(server, image):
    response = requests.put(
        f"{server.url}/datastore/image",
        params={"image": image},
        files={"file": ("ct.nii.gz", nifti_gz(server))},
        timeout=60,
    )
    assert response.status_code == 422
    assert response.json()["detail"]["code"] == "INPUT_NO_PERMISSION"


def test_the_list_of_the_images_cannot_be_replaced_by_an_upload(server):
    response = requests.put(
        f"{server.url}/datastore/image",
        params={"image": "datastore_v2"},
        files={"file": ("datastore_v2.json", b"{}")},
        timeout=60,
    )
    assert response.json()["detail"]["code"] == "INPUT_UNREADABLE"


def test_a_mask_is_not_saved_under_a_tag_that_leads_elsewhere(server):
    response = requests.put(
        f"{server.url}/datastore/label",
        params={"image": "phantom", "tag": "../../.."},
        files={"label": ("mask.nii.gz", nifti_gz(server))},
        timeout=60,
    )
    assert response.json()["detail"]["code"] == "INPUT_NO_PERMISSION"


def test_an_archive_is_not_unpacked_outside_of_its_folder(server):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("../../../evil.txt")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    response = requests.put(
        f"{server.url}/session/",
        params={"uncompress": "true"},
        files={"files": ("a.tar", packed.getvalue())},
        timeout=60,
    )
    assert response.status_code == 400
    assert list(server.work.parent.rglob("evil.txt")) == []


def test_a_session_that_a_client_made_up_is_not_read(server):
    files = [("files", ("meta.info", b'{"image": "/etc/passwd"}')), ("files", ("b", b"x"))]
    made = requests.put(f"{server.url}/session/", files=files, timeout=60).json()
    inner = f"{made['session_id']}/{Path(made['session_info']['image']).name}"
    response = server.infer(KIDNEY, session_id=inner)
    assert response.json()["detail"]["code"] == "INPUT_NOT_FOUND"


def test_other_web_sites_may_not_read_answers(server):
    response = requests.get(f"{server.url}/info/", headers={"Origin": "http://evil.example"}, timeout=60)
    assert "access-control-allow-origin" not in response.headers
