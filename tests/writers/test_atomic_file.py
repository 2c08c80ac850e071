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


def test_others_may_read_what_was_written(tmp_path):
    assert write_atomically(tmp_path / "result.json", b"x").stat().st_mode & 0o777 == 0o644


def _disk_is_full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("older", [None, b"older"], ids=["first-time", "over-an-older-file"])
def test_nothing_half_written_stays_when_writing_fails(tmp_path, monkeypatch, call, older):
    path = tmp_path / "result.json"
    if older is not None:
        path.write_bytes(older)
    monkeypatch.setattr(os, call, _disk_is_full)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(path, b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if older is None else [older])


def test_a_disk_that_is_full_half_way_leaves_nothing(tmp_path, monkeypatch):
    real_fdopen = os.fdopen

    class FullAfterThreeBytes:
        def __init__(self, handle, mode):
            self.file = real_fdopen(handle, mode)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, content):
            self.file.write(content[:3])
            _disk_is_full()

    monkeypatch.setattr(os, "fdopen", FullAfterThreeBytes)
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
