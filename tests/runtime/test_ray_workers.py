"""Ray's processes leave the bytes that one process leaves, and one that dies takes only its study with it."""

from __future__ import annotations

import secrets
import sys
import tempfile
from importlib.util import find_spec

import pytest

from shared_nets.runtime.ray_workers import RayWorkers, _Worker
from shared_nets.runtime.run_folder import RUN_FOLDER, RunFolder, RunSettings, Shard
from shared_nets.runtime.worklist import Worklist
from tests.runtime.stand_in import CREATED, FACTS, RefusesToLoad, StandIn, make_studies, run_shard, tree


@pytest.fixture
def ray_in_a_folder_of_its_own(monkeypatch):
    """Keep what Ray writes out of the home folder; its sockets need a short path, and its import the mode."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install 'shared_nets[ray]'")
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        yield


@pytest.mark.slow
@pytest.mark.xdist_group("worklist")
def test_ray_leaves_the_bytes_of_one_process_and_outlives_a_worker(ray_in_a_folder_of_its_own, tmp_path):
    studies = make_studies(6, s01="refused", s02="failed", s04="killed")
    folder = RunFolder(tmp_path / "ray")
    settings = RunSettings(facts=FACTS, created=CREATED)
    worklist = Worklist(studies, output_dir=tmp_path / "ray", settings=settings, show_progress=False)
    endings = worklist.run(
        lambda run: RayWorkers(StandIn, folder, Shard(), run["num_threads"], num_workers=2)
    )
    states = ["done", "refused", "failed", "done", "failed", "done"]
    assert [ending.state for ending in endings] == states
    assert "WorkerDied" in endings[4].message

    run_shard([study for study in studies if study["ends"] != "killed"], tmp_path / "one")
    of_the_run = {f"{RUN_FOLDER}/{name}" for name in ("worklist.json", "summary.json", "quarantine.csv")}
    of_the_dead = {f"{RUN_FOLDER}/studies/s04.json"}
    ours = {name: content for name, content in tree(tmp_path / "ray").items() if name not in of_the_run}
    theirs = {name: content for name, content in tree(tmp_path / "one").items() if name not in of_the_run}
    assert {name: content for name, content in ours.items() if name not in of_the_dead} == theirs


def test_a_worker_hands_back_why_the_bundle_cannot_be_loaded(tmp_path):
    worker = _Worker(RefusesToLoad, RunFolder(tmp_path), Shard(), 0, 1)
    assert worker.prepare()["code"] == "WEIGHTS_MISMATCH"


def test_without_ray_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'shared_nets\[ray\]'"):
        RayWorkers(StandIn, RunFolder(tmp_path), Shard(), 1)
