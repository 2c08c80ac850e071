"""Many studies: killed at any moment and resumed, or in any number of shards, they leave the same bytes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import random
import signal
from collections import Counter

import pytest

from shared_nets.refusals import InputRefused
from shared_nets.runtime.audit_log import read_events
from shared_nets.runtime.run_folder import RUN_FOLDER, RunFolder, RunSettings, Shard
from shared_nets.runtime.worklist import Worklist
from shared_nets.runtime.worklist_summary import write_summary
from tests.runtime import stand_in
from tests.runtime.stand_in import CREATED, FACTS, PERSON, StandIn, make_studies, run_shard, tree

ENDINGS = ("finished", "refused", "failed")
MIXED = {"s01": "refused", "s02": "failed"}

pytestmark = pytest.mark.xdist_group("worklist")


@pytest.fixture(scope="module")
def start_child():
    """Start a run in a process of its own, forked from a server that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([stand_in.__name__])

    def start(*arguments, **keywords):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=stand_in.child, args=(theirs, *arguments), kwargs=keywords)
        process.start()
        theirs.close()
        assert ours.recv() == "begins"
        return process, ours

    return start


def events_of(output_dir):
    return list(read_events(output_dir / RUN_FOLDER / "audit"))


def endings_in_audit(output_dir):
    return Counter(event["study_id"] for event in events_of(output_dir) if event["event"] in ENDINGS)


def last_files(output_dir, studies):
    """When the file that marks a study as done was written, for those that have one."""
    names = [
        output_dir / study["study_id"] / name for study in studies for name in ("result.json", "refusal.json")
    ]
    return {path: path.stat().st_mtime_ns for path in names if path.exists()}


def assert_nothing_was_repeated(output_dir):
    ended = set()
    for event in events_of(output_dir):
        study_id = event.get("study_id")
        assert not (event["event"] == "started" and study_id in ended), f"{study_id} was done twice"
        if event["event"] in ENDINGS:
            ended.add(study_id)


def test_a_run_killed_at_20_random_moments_loses_and_repeats_nothing(start_child, tmp_path):
    studies = make_studies(40, s07="refused", s23="refused")
    process, told = start_child(studies, tmp_path / "whole")
    num_changes = told.recv()
    process.join()
    assert num_changes > 40

    # a moment is a number of changes of the disk, not of milliseconds: the same on a busy machine
    rng = random.Random(7)
    folders, num_kills, written = [tmp_path / "killed-0"], 0, {}
    while num_kills < 20:
        process, _ = start_child(studies, folders[-1], kill_before=rng.randint(1, num_changes // 10))
        process.join()
        if process.exitcode == 0:  # it ended first: go on in a new folder
            folders.append(tmp_path / f"killed-{len(folders)}")
            written = {}
            continue
        assert process.exitcode == -signal.SIGKILL
        num_kills += 1
        written_now = last_files(folders[-1], studies)
        assert written.items() <= written_now.items()  # nobody wrote them again
        written = written_now
    assert endings_in_audit(folders[0]), "studies had ended before a kill"

    for output_dir in folders:
        run_shard(studies, output_dir)
        assert tree(output_dir) == tree(tmp_path / "whole")
        assert endings_in_audit(output_dir) == {study["study_id"]: 1 for study in studies}
        assert_nothing_was_repeated(output_dir)
        starts = Counter(event["event"] for event in events_of(output_dir))["started"]
        assert 40 <= starts <= 40 + num_kills  # a kill interrupts one study at most


def test_a_kill_before_any_single_change_of_the_disk_leaves_the_same_bytes(start_child, tmp_path):
    studies = make_studies(3, **MIXED)
    process, told = start_child(studies, tmp_path / "whole")
    num_changes = told.recv()
    process.join()
    expected = tree(tmp_path / "whole")
    assert num_changes > 40
    for number in range(1, num_changes + 1):
        output_dir = tmp_path / f"killed-{number}"
        process, _ = start_child(studies, output_dir, kill_before=number)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        run_shard(studies, output_dir)
        assert tree(output_dir) == expected, f"killed before change {number}"
        ends = endings_in_audit(output_dir)
        # a failed study is tried again by every run; the others end once
        assert (ends["s00"], ends["s01"]) == (1, 1), f"killed before change {number}"


@pytest.mark.parametrize("count", [2, 3, 5])
def test_any_number_of_shards_leaves_the_same_bytes(tmp_path, count):
    studies = make_studies(11, **MIXED)
    run_shard(studies, tmp_path / "one")
    for index in range(count, 0, -1):
        run_shard(studies, tmp_path / "many", shard=f"{index}/{count}")
    assert tree(tmp_path / "many") == tree(tmp_path / "one")
    assert endings_in_audit(tmp_path / "many") == {study["study_id"]: 1 for study in studies}


def test_shards_that_start_at_once_agree_on_when_the_results_were_made(start_child, tmp_path, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    studies = make_studies(8)
    together = tmp_path / "together"
    children = [start_child(studies, together, shard=f"{i}/4", created=None) for i in (1, 2, 3, 4)]
    for process, _ in children:
        process.join()
        assert process.exitcode == 0
    created = RunFolder(together).read()["run"]["created"]
    run_shard(studies, tmp_path / "one", created=created)
    assert tree(together) == tree(tmp_path / "one")
    assert json.loads(RunFolder(together).summary.read_bytes())["waiting"] == 0


def test_shards_are_disjoint_cover_all_and_differ_by_one_study_at_most():
    names = [f"s{number}" for number in range(11)]
    parts = [Shard(index, 4).part_of(names) for index in (1, 2, 3, 4)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert [len(part) for part in parts] == [3, 3, 3, 2]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "-1/3", "1/3/5", "a/b"])
def test_a_shard_that_does_not_exist_is_refused(text):
    with pytest.raises(ValueError, match="shard must be i/n with 1 ≤ i ≤ n"):
        Shard.parse(text)


def test_studies_that_are_done_need_no_bundle(tmp_path):
    run_shard(make_studies(3), tmp_path)

    def make():
        raise AssertionError("the bundle was loaded")

    endings = run_shard(make_studies(3), tmp_path, make_runtime=make)
    assert [ending.state for ending in endings] == ["done"] * 3


def test_endings_come_in_the_order_of_the_names_whoever_did_the_work(tmp_path):
    studies = make_studies(3, **MIXED)[::-1]
    expected = [("s00", "done", None), ("s01", "refused", "MASK_EMPTY"), ("s02", "failed", "FAILED")]
    for _ in range(2):
        endings = run_shard(studies, tmp_path)
        assert [(ending.study_id, ending.state, ending.code) for ending in endings] == expected


def test_a_defect_ends_its_study_only_and_leaves_no_half_results(tmp_path):
    run_shard(make_studies(3, s01="failed"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [RUN_FOLDER, "s00", "s02"]


def test_a_study_that_failed_is_tried_again_and_then_forgotten(tmp_path):
    studies = [{"study_id": "s00", "ends": "failed"}]
    run_shard(studies, tmp_path)
    (ending,) = run_shard(studies, tmp_path, make_runtime=lambda: Repaired())
    assert ending.state == "done"
    summary = json.loads(RunFolder(tmp_path).summary.read_bytes())
    assert (summary["done"], summary["failed"], summary["quarantine"]) == (1, 0, [])


class Repaired(StandIn):
    def run(self, studies, *, output_dir):
        super().run([{**study, "ends": "done"} for study in studies], output_dir=output_dir)


def test_a_bundle_that_writes_nothing_has_failed(tmp_path):
    (ending,) = run_shard([{"study_id": "s00", "ends": "silent"}], tmp_path)
    assert (ending.state, "FileNotFoundError" in ending.message) == ("failed", True)


def test_a_study_that_takes_its_process_down_keeps_no_other_from_being_done(start_child, tmp_path):
    studies = make_studies(3, s00="killed")
    for _ in range(2):
        process, _ = start_child(studies, tmp_path)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    summary = write_summary(RunFolder(tmp_path))
    assert (summary["done"], summary["waiting"]) == (2, 1)


def test_no_name_of_a_person_reaches_a_file_or_the_log(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        run_shard(make_studies(2, s01="failed"), tmp_path)
    assert "ZeroDivisionError" in caplog.text  # it says what broke, and where
    assert "stand_in.py" in caplog.text
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"ZeroDivisionError" in content for content in written)
    assert not any(PERSON.encode() in content for content in written)
    assert PERSON not in caplog.text


def test_the_audit_says_what_was_made_from_what_and_how_it_ended(tmp_path):
    run_shard(make_studies(3, **MIXED), tmp_path)
    told = [(e["event"], e["study_id"], e.get("code"), e.get("exception")) for e in events_of(tmp_path)]
    assert told == [
        ("started", "s00", None, None),
        ("finished", "s00", None, None),
        ("started", "s01", None, None),
        ("refused", "s01", "MASK_EMPTY", None),
        ("started", "s02", None, None),
        ("failed", "s02", "FAILED", "ZeroDivisionError"),
    ]
    finished = events_of(tmp_path)[1]
    assert {key: finished[key] for key in ("bundle", "bundle_version", "config_sha256", "shard")} == {
        **{key: FACTS[key] for key in ("bundle", "bundle_version", "config_sha256")},
        "shard": "1/1",
    }
    assert finished["seconds"] >= 0.0


def test_files_of_other_programs_stay_and_leftovers_go(tmp_path):
    (tmp_path / "s00").mkdir()
    for name in ("notes.txt", ".hidden", f".page.html.{'0a' * 16}", "page.html"):
        (tmp_path / "s00" / name).write_text("old")
    run_shard(make_studies(1), tmp_path)
    names = sorted(path.name for path in (tmp_path / "s00").iterdir())
    assert names == [".hidden", "notes.txt", "picture.png", "report.fhir.json", "result.json"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"facts": {**FACTS, "bundle_version": "1.0.1"}}, "its bundle_version", id="bundle"),
        pytest.param(
            {"facts": {**FACTS, "config_sha256": "d" * 64}}, "its config_sha256", id="configuration"
        ),
        pytest.param({"created": "2027-01-01"}, "its created", id="moment"),
        pytest.param({"num_threads": 2}, "its num_threads", id="threads"),
    ],
)
def test_another_run_in_the_same_folder_is_refused_unless_it_may_replace_the_first(tmp_path, change, told):
    studies = make_studies(2)
    run_shard(studies, tmp_path / "both")
    before = tree(tmp_path / "both")
    with pytest.raises(InputRefused, match=told) as caught:
        run_shard(studies, tmp_path / "both", **change)
    assert caught.value.code == "WORKLIST_CHANGED"
    assert tree(tmp_path / "both") == before
    run_shard(studies, tmp_path / "both", redo=True, **change)
    run_shard(studies, tmp_path / "anew", **change)
    assert tree(tmp_path / "both") == tree(tmp_path / "anew")
    assert endings_in_audit(tmp_path / "both") == {"s00": 2, "s01": 2}


def test_what_is_not_asked_for_again_stays_as_the_first_start_fixed_it(tmp_path):
    run_shard(make_studies(1), tmp_path, num_threads=1)
    run_shard(make_studies(1), tmp_path, created=None, num_threads=None)
    assert RunFolder(tmp_path).read()["run"]["created"] == CREATED


def test_a_longer_list_is_refused_since_shards_would_shift_and_redo_does_only_what_is_new(tmp_path):
    run_shard(make_studies(2), tmp_path)
    with pytest.raises(InputRefused, match="its list of studies"):
        run_shard(make_studies(3), tmp_path)
    run_shard(make_studies(3), tmp_path, redo=True)
    assert endings_in_audit(tmp_path) == {"s00": 1, "s01": 1, "s02": 1}


def test_a_study_whose_input_changed_is_named_and_redo_does_that_one_again(tmp_path):
    run_shard(make_studies(3), tmp_path)
    changed = make_studies(3, s01="refused")
    with pytest.raises(InputRefused, match="1 studies were made from other input or by another run: s01"):
        run_shard(changed, tmp_path)
    run_shard(changed, tmp_path, redo=True)
    assert endings_in_audit(tmp_path) == {"s00": 1, "s01": 2, "s02": 1}
    assert sorted(path.name for path in (tmp_path / "s01").iterdir()) == ["refusal.json"]


def test_results_of_another_program_are_not_taken_for_ones_of_this_run(tmp_path):
    StandIn().run([{"study_id": "s00"}], output_dir=tmp_path)
    with pytest.raises(InputRefused, match="s00"):
        run_shard(make_studies(1), tmp_path)


@pytest.mark.parametrize(
    ("theirs", "ours", "is_refused"),
    [
        pytest.param("1/2", "1/2", True, id="the same shard"),
        pytest.param("1/2", "2/2", False, id="another shard"),
        pytest.param("1/2", "2/3", True, id="shards that overlap"),
    ],
)
def test_no_two_processes_do_the_same_study(tmp_path, theirs, ours, is_refused):
    studies = make_studies(4)
    settings = RunSettings(facts=FACTS, created=CREATED)
    names = [study["study_id"] for study in studies]
    lock, _ = RunFolder(tmp_path).enter(Shard.parse(theirs), settings, names)
    if is_refused:
        with pytest.raises(InputRefused, match="Another process works on shard 1/2") as caught:
            run_shard(studies, tmp_path, shard=ours)
        assert caught.value.code == "WORKLIST_IN_USE"
    else:
        assert len(run_shard(studies, tmp_path, shard=ours)) == 2
    lock.release()
    run_shard(studies, tmp_path, shard=ours)


def test_a_run_is_not_replaced_while_another_shard_works(tmp_path):
    settings = RunSettings(facts=FACTS, created=CREATED)
    names = [study["study_id"] for study in make_studies(2)]
    lock, _ = RunFolder(tmp_path).enter(Shard(1, 2), settings, names)
    with pytest.raises(InputRefused, match="Another process works on shard 1/2"):
        run_shard(make_studies(2), tmp_path, shard="2/2", created="2027-01-01", redo=True)
    lock.release()


def test_a_bundle_that_cannot_be_loaded_stops_the_run_before_any_study_begins(tmp_path):
    with pytest.raises(InputRefused, match="WEIGHTS_MISMATCH"):
        run_shard(make_studies(2), tmp_path, make_runtime=stand_in.RefusesToLoad)
    assert events_of(tmp_path) == []
    run_shard(make_studies(2), tmp_path)  # the lock was let go


@pytest.mark.parametrize("name", ["../outside", "..", "_worklist", "", "a/b"])
def test_a_study_id_that_is_no_folder_name_is_an_error(tmp_path, name):
    with pytest.raises(ValueError, match="study_id must be a folder name of its own"):
        Worklist([{"study_id": name}], output_dir=tmp_path, settings=RunSettings(facts=FACTS))


def test_a_study_id_given_twice_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="study_id must be a folder name of its own"):
        Worklist([{"study_id": "a"}] * 2, output_dir=tmp_path, settings=RunSettings(facts=FACTS))


def test_the_quarantine_lists_every_study_without_a_result_and_what_to_do(tmp_path):
    run_shard(make_studies(3, **MIXED), tmp_path)
    folder = RunFolder(tmp_path)
    assert folder.quarantine.read_text().splitlines() == [
        "study_id,code,message,remedy",
        "s01,MASK_EMPTY,The mask shows no kidney.,Check the label set.",
        "s02,FAILED,The study ended in an error of the kind ZeroDivisionError.,"
        '"Run the worklist again; if it fails again, report the error with the log of the run."',
    ]
    summary = json.loads(folder.summary.read_bytes())
    counts = [summary[key] for key in ("num_studies", "done", "refused", "failed", "waiting")]
    assert counts == [3, 1, 1, 1, 0]
    assert summary["codes"] == {"FAILED": 1, "MASK_EMPTY": 1}


def test_a_summary_of_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputRefused, match="There is no worklist"):
        write_summary(RunFolder(tmp_path))
