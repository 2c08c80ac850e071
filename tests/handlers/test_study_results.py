"""What is left on disk after every study, what stops a run, and the exit status."""

import errno
import json
import logging
import math
import os

import pytest
from jsonschema import ValidationError
from monai.transforms import Transform

from shared_nets.handlers import finished_study, study_results
from shared_nets.handlers.finished_study import FORM_FILES, Picture
from shared_nets.handlers.study_results import StudyResults, moment

BUNDLE = {
    "bundle": "ckd",
    "bundle_version": "0.1.0",
    "config_sha256": "c" * 64,
    "weights_sha256": {"model": "d" * 64},
    "packages": {"monai": "1.6.1"},
}
THREE = {"s1": 0.9, "s2": None, "s3": 1.8}


@pytest.fixture
def make_handler(tmp_path):
    """Give ``make_handler(**options) -> StudyResults`` that writes to ``tmp_path``, without pictures."""

    def make(**options) -> StudyResults:
        options = {"output_dir": tmp_path, "provenance": lambda: BUNDLE, **options}
        return StudyResults(**options)

    return make


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_refused_study_does_not_stop_the_others(run_studies, make_handler, tmp_path):
    handler = make_handler()
    run_studies(THREE, [handler])
    assert [(o.study_id, o.result is not None, o.refusal is not None) for o in handler.outcomes] == [
        ("s1", True, False),
        ("s2", False, True),
        ("s3", True, False),
    ]
    assert {path.name: names(path) for path in tmp_path.iterdir()} == {
        "s1": ["result.json"],
        "s2": ["refusal.json"],
        "s3": ["result.json"],
    }
    refusal = json.loads((tmp_path / "s2" / "refusal.json").read_bytes())
    assert (refusal["study_id"], refusal["status"], refusal["code"]) == ("s2", "refused", "MASK_EMPTY")


def test_the_result_holds_the_numbers_and_the_bundle_it_came_from(run_studies, make_handler, tmp_path):
    run_studies({"s3": 1.8}, [make_handler()])
    result = json.loads((tmp_path / "s3" / "result.json").read_bytes())
    # half of the distribution lies within half a doubling: 1.8 · 2^∓½; eGFR of a man of 50 is 45.29
    assert result["creatinine"]["value"] == pytest.approx(1.8, rel=1e-6)
    assert result["creatinine"]["low"] == pytest.approx(1.8 / math.sqrt(2), rel=1e-6)
    assert result["creatinine"]["high"] == pytest.approx(1.8 * math.sqrt(2), rel=1e-6)
    assert result["egfr"]["value"] == pytest.approx(45.29, abs=0.01)
    assert result["stage"] == "G3a"
    assert {key: result["provenance"][key] for key in BUNDLE} == BUNDLE


def test_equal_runs_leave_equal_bytes(run_studies, make_handler, tmp_path):
    contents = []
    for _ in range(2):
        run_studies(THREE, [make_handler(forms=[Picture()])])
        contents.append({path: path.read_bytes() for path in tmp_path.rglob("*.*")})
    assert contents[0] == contents[1]
    assert (
        sorted(path.name for path in contents[0])
        == ["picture.png"] * 2 + ["refusal.json"] + ["result.json"] * 2
    )


def test_outcomes_name_the_files_that_were_written(run_studies, make_handler, tmp_path):
    handler = make_handler(forms=[Picture()])
    run_studies(THREE, [handler])
    assert handler.outcomes[0].files == {
        "picture.png": str(tmp_path / "s1" / "picture.png"),
        "result.json": str(tmp_path / "s1" / "result.json"),
    }
    assert handler.outcomes[1].files == {"refusal.json": str(tmp_path / "s2" / "refusal.json")}


def test_a_refusal_replaces_the_stale_result(run_studies, make_handler, tmp_path):
    run_studies({"s1": 0.9}, [make_handler(forms=[Picture()])])
    assert names(tmp_path / "s1") == ["picture.png", "result.json"]
    run_studies({"s1": None}, [make_handler(forms=[Picture()])])
    assert names(tmp_path / "s1") == ["refusal.json"]


def test_a_result_replaces_the_stale_refusal(run_studies, make_handler, tmp_path):
    run_studies({"s1": None}, [make_handler()])
    run_studies({"s1": 0.9}, [make_handler()])
    assert names(tmp_path / "s1") == ["result.json"]


def test_a_result_without_picture_takes_the_older_picture_away(run_studies, make_handler, tmp_path):
    run_studies({"s1": 0.9}, [make_handler(forms=[Picture()])])
    run_studies({"s1": 1.8}, [make_handler()])
    assert names(tmp_path / "s1") == ["result.json"]


def test_every_form_of_an_older_run_is_taken_away(run_studies, make_handler, tmp_path):
    (tmp_path / "s1").mkdir()
    for name in FORM_FILES:
        (tmp_path / "s1" / name).write_text("old")
    run_studies({"s1": 0.9}, [make_handler()])
    assert names(tmp_path / "s1") == ["result.json"]


def test_a_form_sees_the_finished_result_and_when_it_was_made(run_studies, make_handler, tmp_path):
    def form(study):
        return {"page.html": f"{study.result.provenance.bundle} {study.created.isoformat()}".encode()}

    run_studies({"s1": 0.9}, [make_handler(forms=[form], created="2026-01-02T03:04:05+01:00")])
    assert (tmp_path / "s1" / "page.html").read_text() == "ckd 2026-01-02T03:04:05+01:00"


def test_the_moment_of_a_run_can_be_fixed_from_outside(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert moment(None).isoformat() == "1970-01-02T00:00:00+00:00"
    assert moment("2026-01-02T03:04:05.5").isoformat() == "2026-01-02T03:04:05+00:00"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert moment(None).tzinfo is not None


def test_files_of_other_programs_are_left_alone(run_studies, make_handler, tmp_path):
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "notes.txt").write_text("mine")
    run_studies({"s1": None}, [make_handler()])
    assert names(tmp_path / "s1") == ["notes.txt", "refusal.json"]


def test_without_an_output_folder_there_are_outcomes_and_no_files(run_studies, make_handler, tmp_path):
    handler = make_handler(output_dir=None)
    run_studies(THREE, [handler])
    assert [outcome.files for outcome in handler.outcomes] == [{}, {}, {}]
    assert handler.outcomes[0].result.stage == "G1"
    assert names(tmp_path) == []


def test_a_second_run_forgets_the_outcomes_of_the_first(run_studies, make_handler):
    handler = make_handler()
    run_studies(THREE, [handler])
    run_studies({"s9": 0.9}, [handler])
    assert [outcome.study_id for outcome in handler.outcomes] == ["s9"]


def test_provenance_is_made_once_a_run(run_studies, make_handler):
    calls = []
    handler = make_handler(provenance=lambda: calls.append(1) or BUNDLE)
    run_studies(THREE, [handler])
    assert calls == [1]


def test_a_full_disk_stops_the_run_and_leaves_the_study_undone(
    run_studies, make_handler, tmp_path, monkeypatch
):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        run_studies({"s1": 0.9, "s3": 1.8}, [make_handler(forms=[Picture()])])
    assert names(tmp_path) == ["s1"]
    assert names(tmp_path / "s1") == []


def test_result_json_comes_last_so_that_it_marks_a_study_that_is_done(
    run_studies, make_handler, tmp_path, monkeypatch
):
    def broken(*args):
        raise RuntimeError("no picture")

    monkeypatch.setattr(finished_study, "ckd_picture", broken)
    with pytest.raises(RuntimeError, match="no picture"):
        run_studies({"s1": 0.9}, [make_handler(forms=[Picture()])])
    assert names(tmp_path) == []


def test_a_result_that_the_schema_forbids_is_not_written(run_studies, make_handler, tmp_path):
    incomplete = make_handler(provenance=lambda: {**BUNDLE, "weights_sha256": {}}, forms=[Picture()])
    with pytest.raises(ValidationError, match="weights_sha256"):
        run_studies({"s1": 0.9}, [incomplete])
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["../outside", ".."])
@pytest.mark.parametrize("creatinine", [0.9, None], ids=["result", "refusal"])
def test_no_study_is_written_outside_the_output_folder(run_studies, make_handler, tmp_path, name, creatinine):
    with pytest.raises(ValidationError, match="does not match"):
        run_studies({name: creatinine}, [make_handler(output_dir=tmp_path / "out")])
    assert names(tmp_path) == []


class Broken(Transform):
    def __call__(self, data):
        raise ZeroDivisionError("a defect")


def test_a_defect_is_raised_and_writes_nothing(run_studies, make_handler, tmp_path):
    handler = make_handler()
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        run_studies(THREE, [handler], prepare=Broken())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert names(tmp_path) == []
    assert handler.outcomes == []


def test_a_run_with_a_refusal_exits_with_status_3(run_studies, make_handler):
    handler = make_handler()
    run_studies(THREE, [handler])
    with pytest.raises(SystemExit) as caught:
        handler.exit_if_refused()
    assert caught.value.code == 3


def test_a_run_without_a_refusal_goes_on(run_studies, make_handler):
    handler = make_handler()
    run_studies({"s1": 0.9, "s3": 1.8}, [handler])
    handler.exit_if_refused()


@pytest.mark.parametrize(
    ("studies", "show_progress", "shown"),
    [
        pytest.param(THREE, True, True, id="several"),
        pytest.param({"s1": 0.9}, True, False, id="one"),
        pytest.param(THREE, False, False, id="switched-off"),
    ],
)
def test_a_progress_bar_is_shown_only_for_several_studies(
    run_studies, make_handler, capsys, studies, show_progress, shown
):
    run_studies(studies, [make_handler(show_progress=show_progress)])
    printed = capsys.readouterr()
    assert ("3/3" in printed.err) is shown
    assert ("study" in printed.err) is shown
    assert "study" not in printed.out  # standard output belongs to results


def test_the_progress_bar_is_closed_when_a_run_breaks(run_studies, make_handler, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, **kwargs):
            self.closed = False
            bars.append(self)

        def update(self):
            pass

        def close(self):
            self.closed = True

    monkeypatch.setattr(study_results, "tqdm", Bar)
    with pytest.raises(RuntimeError, match="applying transform"):
        run_studies(THREE, [make_handler()], prepare=Broken())
    assert [bar.closed for bar in bars] == [True]


def test_the_log_says_what_became_of_every_study(run_studies, make_handler, caplog):
    with caplog.at_level(logging.INFO, logger="shared_nets.handlers.study_results"):
        run_studies(THREE, [make_handler()])
    lines = [r.getMessage() for r in caplog.records if r.name == "shared_nets.handlers.study_results"]
    assert lines == [
        "s1: creatinine 0.90 mg/dL (0.64–1.27), eGFR 104 (69–116), KDIGO G1",
        "s2: refused, MASK_EMPTY: The mask shows no kidney. Check the label set.",
        "s3: creatinine 1.80 mg/dL (1.27–2.55), eGFR 45 (30–69), KDIGO G3a",
        "3 studies: 2 done, 1 refused.",
    ]
