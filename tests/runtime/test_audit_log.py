"""The audit log keeps every whole line, whatever was being written when the process died."""

from __future__ import annotations

import json

import pytest

from shared_nets.refusals import InputRefused
from shared_nets.runtime.audit_log import AuditLog, read_events


def events(folder):
    return [{k: v for k, v in event.items() if k != "moment"} for event in read_events(folder)]


def test_events_come_back_in_their_order_with_what_all_of_them_carry(tmp_path):
    log = AuditLog(tmp_path / "a.jsonl", common={"shard": "1/1"})
    log.append("started", study_id="s1")
    AuditLog(tmp_path / "a.jsonl", common={"shard": "1/1"}).append("finished", study_id="s1")
    assert events(tmp_path) == [
        {"event": "started", "study_id": "s1", "shard": "1/1"},
        {"event": "finished", "study_id": "s1", "shard": "1/1"},
    ]


@pytest.mark.parametrize("torn", [b'{"event": "fin', b"\x00\x00\x00", b'{"event": "x"}'])
def test_a_line_without_its_end_is_cut_off_and_the_log_says_so(tmp_path, torn):
    path = tmp_path / "a.jsonl"
    AuditLog(path, common={}).append("started")
    with path.open("ab") as file:
        file.write(torn)
    assert events(tmp_path) == [{"event": "started"}]  # a reader leaves it out
    AuditLog(path, common={}).append("finished")
    assert events(tmp_path) == [
        {"event": "started"},
        {"event": "repaired", "removed_bytes": len(torn)},
        {"event": "finished"},
    ]


def test_a_log_of_nothing_but_a_torn_line_starts_anew(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"ev')
    AuditLog(tmp_path / "a.jsonl", common={})
    assert events(tmp_path) == [{"event": "repaired", "removed_bytes": 4}]


def test_every_moment_has_a_time_zone(tmp_path):
    AuditLog(tmp_path / "a.jsonl", common={}).append("started")
    line = json.loads((tmp_path / "a.jsonl").read_text())
    assert line["moment"].endswith("+00:00")


@pytest.mark.parametrize("line", ["not JSON", "[1]"])
def test_a_whole_line_that_is_no_event_is_refused_by_its_number(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(f'{{"event": "started"}}\n{line}\n')
    with pytest.raises(InputRefused, match=r"Line 2 of a\.jsonl is no audit event"):
        list(read_events(tmp_path))


def test_a_folder_that_is_not_there_has_no_events(tmp_path):
    assert events(tmp_path / "none") == []
