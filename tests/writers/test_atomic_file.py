"""A file is whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from shared_nets.writers.atomic_file import write_atomically


def test_content_arrives_in_a_folder_that_is_made(tmp_path):
    path = write_atomically(tmp_path / "a" / "b" / "result.json", b"\x00whole\n")
    assert path == tmp_path / "a" / "b" / "result.json"
    assert path.read_bytes() == b"\x00whole\n"
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_an_older_file_is_replaced_whole(tmp_path):
    path = tmp_path / "result.json"
    path.write_bytes(b"a much longer older content")
    write_atomically(str(path), b"new")
    assert path.read_bytes() == b"new"


def test_who_may_read_is_up_to_the_umask(tmp_path):
    older = os.umask(0o027)
    try:
        assert write_atomically(tmp_path / "result.json", b"x").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(older)


def _disk_is_full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "call"), [pytest.param(os, "fsync", id="fsync"), pytest.param(Path, "replace", id="replace")]
)
@pytest.mark.parametrize("older", [None, b"older"], ids=["first-time", "over-an-older-file"])
def test_nothing_half_written_stays_when_writing_fails(tmp_path, monkeypatch, owner, call, older):
    path = tmp_path / "result.json"
    if older is not None:
        path.write_bytes(older)
    monkeypatch.setattr(owner, call, _disk_is_full)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(path, b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if older is None else [older])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_disk_that_is_full_half_way_leaves_nothing(tmp_path, monkeypatch):
    real_open = Path.open

    def open_on_a_full_disk(path, mode):
        real_open(path, mode).close()  # the unfinished file is there
        return real_open(Path("/dev/full"), "wb")

    monkeypatch.setattr(Path, "open", open_on_a_full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(tmp_path / "result.json", b"whole")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "result.json", b"whole")
    assert list(tmp_path.iterdir()) == []
