"""The command line over many studies: exit statuses, arguments, and the bundle's own bytes."""

from __future__ import annotations

import json

import pytest

from shared_nets.data.phantom import make_phantom, write_dicom_series, write_nifti
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.runtime.run_folder import RunFolder, Shard, lock_file
from tests.runtime.stand_in import StandIn
from tools import run_worklist
from tools.bundle_rules import REPOSITORY

BUNDLE = REPOSITORY / "bundles" / "ckd_staging_classification"
CREATED = "2026-01-02T03:04:05+00:00"
WOMAN = {"age": 65, "sex": "female", "bmi": 24.5}


@pytest.fixture
def loaded(monkeypatch):
    """Load a runtime without a network instead of the bundle, and keep what it was asked for."""
    asked = []

    def load(root, **options):
        asked.append((root, options))
        return StandIn()

    monkeypatch.setattr(run_worklist, "BundleRuntime", load)
    return asked


@pytest.fixture
def run(tmp_path, loaded):
    def run(*arguments, ends=("done",)):
        rows = [{"study_id": f"s{number}", "ends": end} for number, end in enumerate(ends)]
        (tmp_path / "list.json").write_text(json.dumps(rows))
        given = ["--bundle_root", str(BUNDLE), "--datalist", str(tmp_path / "list.json")]
        return run_worklist.main([*given, "--output_dir", str(tmp_path / "out"), *arguments])

    return run


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        pytest.param(["done", "done"], 0, id="all done"),
        pytest.param(["done", "refused"], 3, id="one refused"),
        pytest.param(["refused", "failed"], 1, id="one failed"),
    ],
)
def test_the_exit_status_says_how_the_studies_ended_also_when_there_is_nothing_left_to_do(run, ends, status):
    assert run(ends=ends) == status
    assert run(ends=ends) == status


def test_one_line_says_how_the_studies_ended_and_where_the_quarantine_is(run, tmp_path, capsys):
    run(ends=["done", "refused", "failed"])
    printed = capsys.readouterr()
    path = tmp_path / "out" / "_worklist" / "quarantine.csv"
    assert printed.out == f"1 done, 1 refused, 1 failed, 0 waiting; see {path}\n"
    assert "shard 1/1" in printed.err  # the progress bar


def test_the_exit_status_is_that_of_the_shard_and_the_summary_that_of_all(run, tmp_path, capsys):
    ends = ["done", "refused"]
    assert run("--shard", "1/2", ends=ends) == 0
    assert run_worklist.main(["--summary", "--output_dir", str(tmp_path / "out")]) == 0
    assert "1 done, 0 refused, 0 failed, 1 waiting" in capsys.readouterr().out
    assert run("--shard", "2/2", ends=ends) == 3
    assert run_worklist.main(["--summary", "--output_dir", str(tmp_path / "out")]) == 3


def test_the_bundle_is_loaded_once_with_the_values_and_the_moment_of_the_run(run, loaded, tmp_path):
    overlay = tmp_path / "overlay.json"
    overlay.write_text('{"num_slices": 12}')
    values = ["--set", "label_set=kits", "--set", "num_slices=8", "--set", 'device="cpu"']
    run("--created", CREATED, "--overlay", str(overlay), *values, ends=["done", "done"])
    ((root, options),) = loaded
    assert root == BUNDLE
    assert options == {
        "overlays": [overlay], "created": CREATED, "label_set": "kits", "num_slices": 8, "device": "cpu",
    }  # fmt: skip


def test_other_values_in_the_same_folder_are_refused_with_status_2(run, capsys):
    assert run() == 0
    assert run("--set", "num_slices=8") == 2
    assert (
        "WORKLIST_CHANGED: The output folder belongs to another run: its config_sha256"
        in capsys.readouterr().err
    )
    assert run("--set", "num_slices=8", "--redo") == 0


def test_a_shard_that_another_process_works_on_ends_in_a_status_to_try_again(run, tmp_path, capsys):
    assert run() == 0
    lock = lock_file(RunFolder(tmp_path / "out").lock_path(Shard(1, 1)))
    with lock.acquire(timeout=0):
        assert run() == 75
    assert "WORKLIST_IN_USE" in capsys.readouterr().err
    assert run() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--shard", "3/2"], "shard must be i/n", id="shard"),
        pytest.param(["--set", "8"], "must be NAME=VALUE", id="value without a name"),
        pytest.param(["--num_threads", "0"], "must be 1 or more", id="threads"),
        pytest.param(["--dataset_dir", "x"], "not allowed with argument", id="two lists"),
    ],
)
def test_arguments_that_cannot_be_end_in_status_2(run, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_without_studies_or_summary_nothing_is_run(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run_worklist.main(["--output_dir", str(tmp_path)])
    assert caught.value.code == 2
    assert "--bundle_root and one of --dataset_dir and --datalist must be given" in capsys.readouterr().err


def test_a_folder_without_studies_ends_in_status_2(tmp_path, loaded, capsys):
    (tmp_path / "empty").mkdir()
    given = ["--bundle_root", str(BUNDLE), "--dataset_dir", str(tmp_path / "empty")]
    assert run_worklist.main([*given, "--output_dir", str(tmp_path / "out")]) == 2
    assert "INPUT_EMPTY" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.xdist_group("ckd_bundle")
def test_the_real_bundle_leaves_its_own_bytes_in_two_shards(tmp_path):
    for name, volume_ml in (("big", 150.0), ("child", 150.0), ("small", 90.0)):
        phantom = make_phantom(right_ml=volume_ml, left_ml=volume_ml)
        folder = tmp_path / "studies" / name
        write_dicom_series(phantom.hu, phantom.affine, folder / "ct")
        write_nifti(phantom.labels, phantom.affine, folder / "mask.nii.gz")
        clinical = {**WOMAN, "age": 9} if name == "child" else WOMAN
        (folder / "clinical.json").write_text(json.dumps(clinical))
    given = ["--bundle_root", str(BUNDLE), "--dataset_dir", str(tmp_path / "studies"), "--created", CREATED]
    given += ["--output_dir", str(tmp_path / "out"), "--set", "device=$torch.device('cpu')"]
    given += ["--set", "label_set=totalsegmentator"]
    assert run_worklist.main([*given, "--shard", "1/2"]) == 0
    assert run_worklist.main([*given, "--shard", "2/2"]) == 3

    runtime = BundleRuntime(
        BUNDLE, device="$torch.device('cpu')", label_set="totalsegmentator", created=CREATED
    )
    studies = run_worklist.list_studies(dataset_dir=str(tmp_path / "studies"))
    runtime.run(studies, output_dir=tmp_path / "direct")
    files = [path for path in (tmp_path / "direct").rglob("*") if path.is_file()]
    assert len(files) >= 5  # two results with a picture each, and a refusal
    for path in files:
        assert (tmp_path / "out" / path.relative_to(tmp_path / "direct")).read_bytes() == path.read_bytes()
    assert (tmp_path / "out" / "_worklist" / "quarantine.csv").read_text().count("AGE_UNDER_18") == 1


def test_a_folder_of_photographs_is_run_and_a_changed_photograph_is_seen(tmp_path, loaded, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.jpg", "b.png"):
        (photos / name).write_bytes(name.encode())
    (photos / "a.json").write_text('{"age": 50}')
    given = [
        "--bundle_root",
        str(BUNDLE),
        "--dataset_dir",
        str(photos),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert run_worklist.main(given) == 0
    assert capsys.readouterr().out.startswith("2 done, 0 refused, 0 failed, 0 waiting; see ")
    result = json.loads((tmp_path / "out" / "a" / "result.json").read_bytes())
    assert result["clinical"] == str(photos / "a.json")
    (photos / "b.png").write_bytes(b"c.png")
    assert run_worklist.main(given) == 2
    assert "1 studies were made from other input" in capsys.readouterr().err
    assert run_worklist.main([*given, "--redo"]) == 0
