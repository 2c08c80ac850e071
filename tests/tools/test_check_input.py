import json
import subprocess
import sys
from pathlib import Path

import pytest

from shared_nets.data.dicom_defects import write_defect
from shared_nets.data.photograph_defects import write_photograph_defect
from tools import check_input

KEYS = {
    *("status", "code", "message", "remedy", "modality", "source"),
    *("shape", "spacing_mm", "affine", "series_uid", "repairs", "warnings"),
}


def run(capsys, *arguments):
    status = check_input.main([str(argument) for argument in arguments])
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == KEYS
    return status, answer


def test_a_sound_series_is_ok(tmp_path, capsys):
    write_defect("sound", tmp_path / "ct")
    status, answer = run(capsys, "--modality", "CT", tmp_path / "ct")
    assert status == 0
    assert answer["status"] == "ok"
    assert answer["code"] is None
    assert answer["shape"] == [40, 32, 12]
    assert answer["spacing_mm"] == [0.8, 0.8, 2.0]
    assert answer["affine"][2] == [0.0, 0.0, 2.0, 100.0]
    assert answer["repairs"] == answer["warnings"] == []


def test_a_refusal_has_status_3_and_says_what_to_do(tmp_path, capsys):
    write_defect("missing slice", tmp_path / "ct")
    status, answer = run(capsys, tmp_path / "ct")
    assert status == 3
    assert answer["status"] == "refused"
    assert answer["code"] == "GEOMETRY_MISSING_SLICE"
    assert "IM0005.dcm" in answer["message"]
    assert answer["remedy"]
    assert answer["shape"] is None


def test_repairs_of_headers_and_of_pixels_are_listed(tmp_path, capsys):
    write_defect("padding", tmp_path / "ct")
    _, answer = run(capsys, tmp_path / "ct")
    assert [repair["code"] for repair in answer["repairs"]] == ["PIXEL_PADDING"]


def test_pixels_are_checked_unless_only_headers_are_wanted(tmp_path, capsys):
    write_defect("jpeg 2000 damaged", tmp_path / "ct")
    assert run(capsys, tmp_path / "ct")[1]["code"] == "PIXEL_UNDECODABLE"
    assert run(capsys, "--headers-only", tmp_path / "ct")[0] == 0


def test_several_series_are_refused_unless_the_rule_is_asked_for_and_then_it_is_said(tmp_path, capsys):
    write_defect("two series", tmp_path / "ct")
    assert run(capsys, "--headers-only", tmp_path / "ct")[1]["code"] == "SERIES_AMBIGUOUS"
    status, answer = run(capsys, "--headers-only", "--series-choice", "rule", tmp_path / "ct")
    assert status == 0
    assert answer["series_uid"].endswith(".2")
    assert [repair["code"] for repair in answer["repairs"]] == ["SERIES_CHOSEN"]
    assert "series 2 (12 images)" in answer["repairs"][0]["message"]
    assert "by series number over series 5 (12 images)" in answer["repairs"][0]["message"]
    assert [warning["code"] for warning in answer["warnings"]] == ["SERIES_CHOICE_ARBITRARY"]


def test_help_states_the_rule(capsys):
    with pytest.raises(SystemExit, match="0"):
        check_input.main(["--help"])
    assert "at least 90 % of the longest series" in capsys.readouterr().out


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_modality_is_the_caller_s(modality, tmp_path, capsys):
    write_defect("tagged MR", tmp_path / "ct")
    status, answer = run(capsys, "--modality", modality, "--headers-only", tmp_path / "ct")
    assert (status, answer["code"]) == ((3, "WRONG_MODALITY") if modality == "CT" else (0, None))


@pytest.mark.registry
def test_a_photograph_of_skin_is_ok_and_what_was_repaired_is_listed(naevus_photo, capsys):
    status, answer = run(capsys, "--kind", "photograph", naevus_photo)
    assert (status, answer["status"], answer["source"]) == (0, "ok", "photograph")
    assert answer["shape"] == [1360, 1528]
    assert [repair["code"] for repair in answer["repairs"]] == ["IMAGE_FIRST_OF_SEVERAL", "IMAGE_PROFILE"]


@pytest.mark.parametrize(
    ("defect", "code"), [("empty file", "INPUT_UNREADABLE"), ("dicom dermoscopy", "IMAGE_NOT_SKIN")]
)
def test_a_photograph_that_cannot_be_used_is_refused_by_reader_or_gate(defect, code, tmp_path, capsys):
    _, path = write_photograph_defect(defect, tmp_path / "x")
    status, answer = run(capsys, "--kind", "photograph", path)
    assert (status, answer["code"]) == (3, code)


def test_the_command_line_prints_one_json_object_and_nothing_else(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tools.check_input", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        cwd=Path(check_input.__file__).parents[1],
        check=False,
    )
    assert done.returncode == 3
    assert json.loads(done.stdout)["code"] == "INPUT_NOT_FOUND"
    assert done.stderr == ""
