"""Fetching from a server on this machine: checked before it is named, and nothing left behind when wrong."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from shared_nets.nets.vision_transformer import VisionTransformer
from tools import convert_weights, fetch_weights
from tools.convert_weights import SOURCES, Source
from tools.fetch_weights import PUBLIC_FILES, download, main


def small_vit() -> VisionTransformer:
    return VisionTransformer(img_size=28, patch_size=14, embed_dim=16, depth=1, num_heads=2)


class QuietHandler(SimpleHTTPRequestHandler):
    requests: list[str] = []  # noqa: RUF012 - shared by the handlers of one test session

    def log_message(self, format, *args):
        self.requests.append(self.path)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serve a small network's weights on the loopback address; gives its address and checksum."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(
        convert_weights,
        "SOURCES",
        {name: Source(source.convert, (small_vit,)) for name, source in SOURCES.items()},
    )
    QuietHandler.requests.clear()
    folder = tmp_path / "server"
    folder.mkdir()
    torch.manual_seed(0)
    torch.save(small_vit().state_dict(), folder / "weights.pth")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    content = (folder / "weights.pth").read_bytes()
    yield f"http://127.0.0.1:{server.server_port}/weights.pth", hashlib.sha256(content).hexdigest()
    server.shutdown()
    server.server_close()
    thread.join()


def test_weights_are_fetched_checked_and_converted(served, tmp_path, capsys):
    url, sha256 = served
    output = tmp_path / "weights"
    assert main(["dino_vitb16", "--output", str(output), "--sha256", sha256.upper(), "--url", url]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["dino_vitb16.original.pth", "dino_vitb16.pt"]
    assert hashlib.sha256((output / "dino_vitb16.original.pth").read_bytes()).hexdigest() == sha256
    small_vit().load_state_dict(torch.load(output / "dino_vitb16.pt", weights_only=True))
    printed = capsys.readouterr()
    assert "licence: Apache-2.0" in printed.out
    assert "mapped   cls_token (1, 1, 16) <- cls_token" in printed.out
    assert "100 %" in printed.err


def test_a_wrong_checksum_leaves_nothing_behind(served, tmp_path, capsys):
    url, sha256 = served
    output = tmp_path / "weights"
    assert main(["dino_vitb16", "--output", str(output), "--sha256", "0" * 64, "--url", url]) == 3
    assert list(output.iterdir()) == []
    assert f"must have sha256 {'0' * 64}, got {sha256}. Nothing was kept." in capsys.readouterr().err


def test_a_file_that_the_server_lacks_leaves_nothing_behind(served, tmp_path, capsys):
    url, sha256 = served
    output = tmp_path / "weights"
    assert main(["dino_vitb16", "--output", str(output), "--sha256", sha256, "--url", url + ".old"]) == 3
    assert list(output.iterdir()) == []
    assert "404" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    closed = "http://127.0.0.1:9/weights.pth"
    assert main(["dino_vitb16", "--output", str(tmp_path), "--sha256", "0" * 64, "--url", closed]) == 3
    assert "refused" in capsys.readouterr().err


def test_a_file_that_is_there_already_is_not_fetched_again(served, tmp_path, capsys):
    url, sha256 = served
    first = download(url, tmp_path / "weights.pth", sha256=sha256)
    assert download(url, first, sha256=sha256) == first
    assert len(QuietHandler.requests) == 1
    assert "already there" in capsys.readouterr().out


def test_a_damaged_file_is_replaced(served, tmp_path):
    url, sha256 = served
    path = tmp_path / "weights.pth"
    path.write_bytes(b"half a file")
    download(url, path, sha256=sha256)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256


@pytest.mark.parametrize("name", [name for name, file in PUBLIC_FILES.items() if file.sha256 is None])
def test_an_unknown_checksum_has_to_be_given(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fetch_weights, "download", lambda *_, **__: pytest.fail("touched the network"))
    assert main([name, "--output", str(tmp_path)]) == 3
    assert f"--sha256 must be given for {name}, got none" in capsys.readouterr().err


def test_a_checksum_other_than_the_known_one_is_refused(tmp_path, capsys, monkeypatch):
    known = PUBLIC_FILES["dino_vitb16"]._replace(sha256="a" * 64)
    monkeypatch.setitem(PUBLIC_FILES, "dino_vitb16", known)
    monkeypatch.setattr(fetch_weights, "download", lambda *_, **__: pytest.fail("touched the network"))
    assert main(["dino_vitb16", "--output", str(tmp_path), "--sha256", "b" * 64]) == 3
    assert f"--sha256 must be {'a' * 64} for dino_vitb16" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "sha256", "message"),
    [
        pytest.param("file:///etc/hostname", "0" * 64, "url must be an http or https address", id="address"),
        pytest.param("http://127.0.0.1/a", "0" * 63, "sha256 must be 64 hexadecimal digits", id="checksum"),
    ],
)
def test_malformed_arguments_are_refused(url, sha256, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        download(url, tmp_path / "weights.pth", sha256=sha256)


def test_every_public_file_names_a_source_and_an_https_address():
    for file in PUBLIC_FILES.values():
        assert file.source in SOURCES
        assert file.url.startswith("https://")
