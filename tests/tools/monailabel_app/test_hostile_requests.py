"""Requests that reach for other files, or are not what they say: a clear answer, and the server lives on."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
import requests

KIDNEY = "kidney_ct_segmentation"

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
def test_a_gigabyte_of_zeros_is_refused(server, tmp_path):
    path = tmp_path / "ct.nii"
    with path.open("wb") as file:
        file.truncate(1_000_000_000)
    with path.open("rb") as file:
        response = server.infer(KIDNEY, files={"file": ("ct.nii", file)})
    assert response.json()["detail"]["code"] == "INPUT_UNREADABLE"


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
