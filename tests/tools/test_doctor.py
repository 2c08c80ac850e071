"""The doctor finds what is broken, says how to mend it, and tells nothing that is private."""

from __future__ import annotations

import getpass
import hashlib
import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tools import doctor, doctor_checks
from tools.bundle_rules import REPOSITORY
from tools.doctor_checks import (
    Check,
    demo_checks,
    deploy_check,
    extra_checks,
    machine_checks,
    package_checks,
    program_checks,
    python_checks,
    weight_checks,
)


@pytest.fixture
def install(monkeypatch):
    """Give ``install(name="1.2.3")``: pretend that exactly these packages are installed."""

    def pretend(**versions):
        def found(name):
            if name not in versions:
                raise PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(doctor_checks, "version", found)

    return pretend


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "liver_ct_segmentation"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(b"abc")
    weights = {"models/model.pt": {"sha256": hashlib.sha256(b"abc").hexdigest()}}
    (folder / "configs" / "metadata.json").write_text(json.dumps({"weights": weights}))
    return folder


def requirements(folder):
    path = folder / "requirements.txt"
    path.write_text("# a comment\ntorch==2.13.0\nmonai==1.6.1\n")
    return path


def test_packages_as_required_are_one_line(install, tmp_path):
    install(torch="2.13.0+cpu", monai="1.6.2")
    (check,) = package_checks(requirements(tmp_path))
    assert (check.status, check.said) == ("ok", "all 2 are installed in the versions of requirements.txt")


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        pytest.param({"torch": "2.13.0"}, "1.6.1 is missing", id="missing"),
        pytest.param({"torch": "2.13.0", "monai": "1.7.0"}, "is 1.7.0, must be 1.6.1", id="newer minor"),
        pytest.param({"torch": "2.13.0", "monai": "1.6.0"}, "is 1.6.0, must be 1.6.1", id="older patch"),
    ],
)
def test_package_that_is_missing_or_another_version_is_broken(install, tmp_path, installed, said):
    install(**installed)
    (check,) = package_checks(requirements(tmp_path))
    assert (check.name, check.status, check.said) == ("monai", "broken", said)
    assert check.remedy == "pip install -r requirements.txt"


def test_weights_as_released_are_well(bundle):
    (check,) = weight_checks([bundle])
    assert (check.status, check.said) == ("ok", "1 file as released")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"abd", "models/model.pt is another file"), (None, "models/model.pt is missing")],
)
def test_weights_with_a_broken_hash_or_none_are_broken(bundle, content, said):
    path = bundle / "models" / "model.pt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (check,) = weight_checks([bundle])
    assert (check.status, check.said) == ("broken", said)
    assert check.remedy == "git checkout bundles/liver_ct_segmentation/models"


def test_weights_that_are_fetched_later_are_optional_and_checked_when_they_are_there(bundle):
    path = bundle / "models" / "model.pt"
    (bundle / "large_files.yml").write_text("large_files:\n  - path: models/model.pt\n    url: https://x\n")
    path.unlink()
    (check,) = weight_checks([bundle])
    assert (check.status, check.said) == ("optional", "0 files as released, models/model.pt not fetched")
    path.write_bytes(b"abd")
    (check,) = weight_checks([bundle])
    assert check.status == "broken"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weights": {"a": 1}}'])
def test_metadata_that_cannot_be_read_are_broken(bundle, content):
    (bundle / "configs" / "metadata.json").write_text(content)
    (check,) = weight_checks([bundle])
    assert (check.status, check.said) == ("broken", "metadata.json cannot be read")


def test_no_bundle_at_all_is_broken():
    (check,) = weight_checks([])
    assert check.status == "broken"


def test_optional_parts_say_how_to_get_them(install, tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text(
        '[project.optional-dependencies]\nray = ["ray==2.60.0"]\nlabel = ["httpx==1", "a[b]==2"]\n'
    )
    install(ray="2.60.0", httpx="1", a="2")
    ray, label = extra_checks(path)
    assert (ray.status, ray.remedy) == ("ok", "")
    assert (label.status, label.said) == ("optional", "MONAI Label: 1 package of 3 missing")
    assert label.remedy == "pip install -e '.[label]' && pip install --no-deps monailabel==0.8.5"


@pytest.mark.parametrize("is_there", [True, False])
def test_monai_deploy_is_looked_for_where_it_lies(monkeypatch, is_there):
    monkeypatch.setattr("tools.doctor_checks.is_installed", lambda: is_there)
    check = deploy_check()
    assert (check.status, check.remedy) == (("ok", "") if is_there else ("optional", "make deploy"))


def test_programs_of_others_are_looked_for_by_name():
    checks = list(program_checks(lambda name: "there" if name == "chromium" else None))
    assert {check.name for check in checks if check.status == "ok"} == {"chromium"}
    remedies = {check.name: check.remedy for check in checks}
    assert remedies["dciodvfy"] == "apt-get install dicom3tools"
    assert remedies["chromium"] == ""


def test_old_python_is_broken(monkeypatch):
    monkeypatch.setattr(doctor_checks, "MIN_PYTHON", (9, 0))
    (check,) = python_checks()
    assert check.status == "broken"
    assert "PYTHON=python9.0" in check.remedy


def test_a_small_machine_is_told_what_it_cannot_run(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_checks, "_memory_gb", lambda: 3.5)
    status = {check.name: check.status for check in machine_checks(tmp_path)}
    assert (status["inference"], status["MONAI Label"]) == ("ok", "ok")
    assert status["training of the small sizes"] == "optional"
    monkeypatch.setattr(doctor_checks, "_memory_gb", lambda: 1.0)
    checks = {check.name: check for check in machine_checks(tmp_path)}
    assert (checks["inference"].status, checks["inference"].said) == ("broken", "needs 1.5 GB of memory")


def test_unknown_memory_is_said_and_stops_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_checks, "_memory_gb", lambda: None)
    first, *rest = machine_checks(tmp_path)
    assert "unknown of memory" in first.said
    assert not [check for check in rest if "memory" in check.said]


def test_torch_that_cannot_be_imported_is_a_note(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert doctor_checks._gpu_check().status == "note"


def test_demo_data_are_counted_without_fetching_them(monkeypatch, tmp_path):
    from tools.demo_data import SCANS

    monkeypatch.setenv("SHARED_NETS_CACHE", str(tmp_path))
    (check,) = demo_checks()
    assert (check.status, check.said) == ("optional", f"0 of {len(SCANS)} are cached")
    (tmp_path / SCANS["lidc_dicom"].archive.folder_name).mkdir()
    (check,) = demo_checks()
    assert check.said == f"1 of {len(SCANS)} are cached"
    assert list(tmp_path.iterdir()) == [tmp_path / SCANS["lidc_dicom"].archive.folder_name]


def test_the_real_weights_are_well():
    bundles = sorted(path for path in (REPOSITORY / "bundles").iterdir() if (path / "configs").is_dir())
    assert {check.status for check in weight_checks(bundles)} == {"ok"}


CHECKS = [
    Check(part="Packages", name="monai", status="broken", said="1.6.1 is missing", remedy="pip install"),
    Check(part="Optional", name="c++", status="optional", said="the scan", remedy="apt-get install g++"),
]


@pytest.mark.parametrize(("checks", "status"), [(CHECKS, 1), (CHECKS[1:], 0)])
def test_exit_status_is_1_only_when_something_needed_is_broken(monkeypatch, capsys, checks, status):
    monkeypatch.setattr(doctor, "all_checks", lambda repository: checks)
    assert doctor.main([]) == status
    text = capsys.readouterr().out
    assert "  -- c++" in text
    assert ("  !! monai  1.6.1 is missing  → pip install" in text) is bool(status)
    assert doctor.main(["--json"]) == status
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is not bool(status)
    assert report["checks"][-1]["remedy"] == "apt-get install g++"


def test_the_whole_report_fits_one_screen_and_names_no_host_user_or_foreign_path(capsys):
    doctor.main([])
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 48
    private = {platform.node(), str(Path.home()), f"/{getpass.getuser()}/"} - {"", "/"}
    assert not [word for word in private if word in text]


def test_the_doctor_runs_where_no_package_is_installed():
    """``-I -S``: an isolated Python without site-packages."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from tools.doctor import main; sys.exit(main([]))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(REPOSITORY)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert f"{version('monai')} is missing  → pip install -r requirements.txt" in done.stdout
    assert "not looked for: filelock is missing" in done.stdout
