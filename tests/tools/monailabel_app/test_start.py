"""The start command: this computer only, unless tokens are asked for; and tokens that are checked."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from tests.tools.monailabel_app.live_server import REPOSITORY, running_server, write_studies

pytestmark = pytest.mark.xdist_group("monailabel")


def test_a_server_that_others_reach_is_not_started_without_tokens(label_installed, tmp_path):
    command = [sys.executable, "-m", "tools.monailabel_app", "--host", "0.0.0.0", "--work", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--auth must be given for a server that others reach" in done.stderr


@pytest.mark.slow
def test_a_server_that_was_ended_leaves_no_temporary_files(label_installed, tmp_path):
    write_studies(tmp_path / "studies")
    with running_server(tmp_path) as server:
        (temporary,) = server.work.glob("tmp-*")
    assert not temporary.exists()


class Realm:
    """An OpenID realm: says its public key, and signs tokens."""

    def __init__(self) -> None:
        jwt = pytest.importorskip("jwt")
        rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
        serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
        self.encode = jwt.encode
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.other_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.public_key = "".join(pem.decode().splitlines()[1:-1])
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}/realms/test"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = json.dumps({"public_key": self.public_key}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args):
                pass

        return Handler

    def token(
        self, *roles: str, key=None, algorithm: str = "RS256", lives_s: float = 600.0
    ) -> dict[str, str]:
        claims = {
            "preferred_username": "somebody",
            "realm_access": {"roles": list(roles)},
            "exp": time.time() + lives_s,
        }
        signed = self.encode(claims, self.key if key is None else key, algorithm=algorithm)
        return {"Authorization": f"Bearer {signed}"}


@pytest.fixture(scope="module")
def guarded(label_installed, tmp_path_factory):
    """A server that asks for tokens, and the realm that gives them."""
    realm = Realm()
    folder = tmp_path_factory.mktemp("guarded")
    write_studies(folder / "studies")
    with running_server(folder, "--auth", realm.url) as server:
        yield server, realm
    realm.server.shutdown()


def test_only_a_token_of_the_realm_with_the_right_role_opens_a_guarded_server(guarded):
    server, realm = guarded
    secret = realm.public_key.encode()
    cases = {
        "no token": ({}, 401),
        "user": (realm.token("monailabel-user"), 200),
        "no role": (realm.token("somebody-else"), 403),
        "of another key": (realm.token("monailabel-user", key=realm.other_key), 401),
        "by a shared secret": (realm.token("monailabel-user", key=secret, algorithm="HS256"), 401),
        "unsigned": (realm.token("monailabel-user", key="", algorithm="none"), 401),
        "expired": (realm.token("monailabel-user", lives_s=-60.0), 401),
    }
    for model in ("info/", "datastore/"):
        got = {
            name: requests.get(f"{server.url}/{model}", headers=headers, timeout=60).status_code
            for name, (headers, _) in cases.items()
        }
        assert got == {name: status for name, (_, status) in cases.items()}


def test_a_user_may_not_train_or_submit_on_a_guarded_server(guarded):
    server, realm = guarded
    user = realm.token("monailabel-user")
    url = f"{server.url}/train/kidney_ct_segmentation"
    assert requests.post(url, json={}, headers=user, timeout=60).status_code == 403
    label = {"label": ("mask.nii.gz", b"x")}
    url = f"{server.url}/datastore/label"
    assert (
        requests.put(url, params={"image": "phantom"}, files=label, headers=user, timeout=60).status_code
        == 403
    )
    assert server.infer("kidney_ct_segmentation", image="phantom").status_code == 401
