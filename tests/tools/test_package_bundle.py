"""A release: the same bytes every time, and the same answer where the package is not installed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from shared_nets.data.phantom import make_phantom, write_dicom_series
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.runtime.carried_code import carried_package, open_bundle
from tests.tools.releases import changed_code, package, unpack
from tools import package_bundle
from tools.bundle_rules import REPOSITORY, sha256_of
from tools.new_bundle import make_bundle

pytest.importorskip("cyclonedx", reason="needs pip install 'shared_nets[release]'")

BUNDLE = "kidney_ct_segmentation"
CKD = "ckd_staging_classification"
MOMENT = "2026-01-02T03:04:05+00:00"
OLD_WORDS, NEW_WORDS = "were not checked by a human", "were checked by nobody, says the new release"
#: Run by every Python that has its folder on PYTHONPATH: the installed package is not to be found.
HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "shared_nets":
            raise ModuleNotFoundError(f"No module named {name!r}, hidden by a test", name=name)

sys.meta_path.insert(0, Hidden())
"""

pytestmark = pytest.mark.xdist_group("releases")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return package(BUNDLE, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def unpacked(release, tmp_path_factory):
    return unpack(release, tmp_path_factory.mktemp("unpacked"))


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """The kidney bundle of a later release, whose code says something else."""
    folder = tmp_path_factory.mktemp("newer")
    changes = {
        "__init__.py": ('__version__ = "0.1.0"', '__version__ = "0.2.0"'),
        "transforms/kidney_result.py": (OLD_WORDS, NEW_WORDS),
    }
    code = changed_code(folder, changes)
    return unpack(package(BUNDLE, folder / "dist", package=code), folder)


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "ct"
    phantom = make_phantom(right_ml=150.0, left_ml=130.0)
    write_dicom_series(phantom.hu, phantom.affine, folder)
    return folder


def copied_bundle(folder):
    return Path(shutil.copytree(REPOSITORY / "bundles" / BUNDLE, folder / BUNDLE))


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# the files


def test_a_release_is_a_zip_its_sha256_and_its_bill_of_materials(release):
    version = json.loads((REPOSITORY / "bundles" / BUNDLE / "configs" / "metadata.json").read_text())[
        "version"
    ]
    name = f"{BUNDLE}_v{version}"
    assert [path.name for path in release] == [f"{name}.zip", f"{name}.zip.sha256", f"{name}.cdx.json"]
    digest = hashlib.sha256(release.archive.read_bytes()).hexdigest()
    assert release.checksum.read_text() == f"{digest}  {name}.zip\n"


def test_the_zip_holds_the_bundle_its_code_and_what_to_install(release):
    with zipfile.ZipFile(release.archive) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        modes = {entry.external_attr >> 16 for entry in archive.infolist()}
    assert names == sorted(names)
    assert modes == {0o100644}
    assert {name.split("/")[0] for name in names} == {BUNDLE}
    inside = {name.partition("/")[2] for name in names}
    assert {
        "LICENSE",
        "requirements.txt",
        "models/model.pt",
        "configs/metadata.json",
        "docs/README.md",
    } <= inside
    assert not [name for name in inside if "__pycache__" in name]


def test_equal_sources_give_equal_bytes_wherever_and_whenever(release, tmp_path):
    bundle = copied_bundle(tmp_path)
    for path in bundle.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o755)
    (bundle / "eval").mkdir()
    (bundle / "eval" / "result.json").write_text("left behind by a run")
    again = package(BUNDLE, tmp_path / "dist", bundle=bundle)
    for first, second in zip(release, again, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_the_date_is_the_one_that_the_environment_states(release, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767323045")  # MOMENT
    dated = package(BUNDLE, tmp_path)
    with zipfile.ZipFile(dated.archive) as archive, zipfile.ZipFile(release.archive) as undated:
        assert {entry.date_time for entry in archive.infolist()} == {
            (2026, 1, 2, 3, 4, 4)
        }  # zip counts in twos
        assert {entry.date_time for entry in undated.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert [entry.CRC for entry in archive.infolist()] == [entry.CRC for entry in undated.infolist()]
    assert json.loads(dated.sbom.read_text())["metadata"]["timestamp"] == MOMENT


def test_what_is_too_large_for_a_release_is_left_to_large_files_yml(tmp_path):
    bundle = copied_bundle(tmp_path)
    weights = bundle / "models" / "model.pt"
    entry = {"path": "models/model.pt", "url": "https://example.org/model.pt", "hash_type": "sha256"}
    text = yaml.safe_dump({"large_files": [entry | {"hash_val": sha256_of(weights)}]})
    (bundle / "large_files.yml").write_text(text)
    folder = unpack(package(BUNDLE, tmp_path / "dist", bundle=bundle), tmp_path / "unpacked")
    assert not (folder / "models").exists()
    assert (folder / "large_files.yml").read_text() == text
    weights.write_bytes(b"other weights")
    with pytest.raises(ValueError, match=r"models/model\.pt must have the sha256 [0-9a-f]{64}, got"):
        package(BUNDLE, tmp_path / "dist", bundle=bundle)


def test_the_bill_of_materials_is_valid_and_names_code_weights_and_packages(release):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = release.sbom.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    sbom = json.loads(text)
    bundle = sbom["metadata"]["component"]
    assert (bundle["name"], bundle["type"]) == (BUNDLE, "machine-learning-model")
    assert bundle["hashes"] == [{"alg": "SHA-256", "content": sha256_of(release.archive)}]
    components = {component["bom-ref"]: component for component in sbom["components"]}
    assert components["torch==2.13.0"]["purl"] == "pkg:pypi/torch@2.13.0"
    weights = REPOSITORY / "bundles" / BUNDLE / "models" / "model.pt"
    assert components["models/model.pt"]["hashes"][0]["content"] == sha256_of(weights)
    assert components["models/model.pt"]["licenses"] == [{"license": {"name": "CC BY-NC-SA 4.0"}}]
    needed = {entry["ref"]: entry.get("dependsOn", []) for entry in sbom["dependencies"]}
    (code,) = [name for name in needed["bundle"] if name != "models/model.pt"]
    assert "monai==1.6.1" in needed[code]


def test_a_bundle_that_breaks_a_rule_is_not_packaged(tmp_path, capsys):
    bundle = make_bundle("liver_ct_segmentation", tmp_path)
    assert package_bundle.main([str(bundle), "--output", str(tmp_path / "dist")]) == 1
    assert "liver_ct_segmentation: models/model.pt is missing." in capsys.readouterr().err
    assert not (tmp_path / "dist").exists()


# the answer


def hidden_package(folder, *arguments):
    """Run Python where ``shared_nets`` cannot be imported, from a folder that holds nothing of it."""
    (folder / "hide").mkdir()
    (folder / "hide" / "sitecustomize.py").write_text(HIDE)
    environment = {**os.environ, "PYTHONPATH": str(folder / "hide")}
    return subprocess.run(
        [sys.executable, *arguments],
        **{
            "cwd": folder / "hide",
            "env": environment,
            "check": False,
            "capture_output": True,
            "encoding": "utf-8",
        },
    )


@pytest.mark.slow
def test_the_zip_gives_the_bytes_of_the_repository_where_the_package_is_not_installed(unpacked, ct, tmp_path):
    """All of them, the hash of the configuration too: the name of the copy does not count."""
    done = hidden_package(
        tmp_path,
        *("-m", "monai.bundle", "run", "--config_file", str(unpacked / "configs" / "inference.json")),
        *("--bundle_root", str(unpacked), "--image", str(ct), "--study_id", "phantom"),
        *("--output_dir", str(tmp_path / "zip"), "--created", MOMENT),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runtime = BundleRuntime(REPOSITORY / "bundles" / BUNDLE, device="$torch.device('cpu')", created=MOMENT)
    (outcome,) = runtime.run([{"study_id": "phantom", "image": str(ct)}], output_dir=tmp_path / "repository")
    assert outcome.result is not None
    assert files_of(tmp_path / "zip" / "phantom") == files_of(tmp_path / "repository" / "phantom")


def test_the_package_really_is_hidden(tmp_path):
    done = hidden_package(tmp_path, "-c", "import shared_nets")
    assert "hidden by a test" in done.stderr


def test_releases_of_two_versions_and_the_repository_run_in_one_process(unpacked, newer, ct, tmp_path):
    plain = {
        name: False for name in ("write_picture", "write_page", "write_dicom", "write_nifti", "write_fhir")
    }
    options = {"device": "$torch.device('cpu')", "created": MOMENT, "overlap": 0.0, **plain}
    folders = {"repository": REPOSITORY / "bundles" / BUNDLE, "old": unpacked, "new": newer}
    runtimes = {name: open_bundle(folder, **options) for name, folder in folders.items()}
    results = {}
    for name in ("old", "new", "repository", "old"):  # by turns
        study = {"study_id": "phantom", "image": str(ct)}
        runtimes[name].run([study], output_dir=tmp_path / name)
        results[name] = json.loads((tmp_path / name / "phantom" / "result.json").read_text(encoding="utf-8"))
    packages = {type(runtime).__module__.partition(".")[0] for runtime in runtimes.values()}
    assert packages == {"shared_nets", carried_package(unpacked), carried_package(newer)}
    assert len(packages) == 3
    assert results["old"] == results["repository"]
    assert results["new"]["kidneys"] == results["old"]["kidneys"]
    assert [words in results["new"]["statements"][0] for words in (OLD_WORDS, NEW_WORDS)] == [False, True]
    assert [words in results["old"]["statements"][0] for words in (OLD_WORDS, NEW_WORDS)] == [True, False]
    assert [results[name]["provenance"]["packages"]["shared_nets"] for name in ("old", "new")] == [
        "0.1.0",
        "0.2.0",
    ]


def test_the_ckd_bundle_uses_the_kidney_bundle_of_another_release(newer, ct, tmp_path):
    ckd = unpack(package(CKD, tmp_path / "dist"), tmp_path)
    options = {"device": "$torch.device('cpu')", "created": MOMENT, "kidney_bundle": str(newer)}
    runtime = open_bundle(ckd, **options)
    people = [{"study_id": "phantom", "image": str(ct)}, {"study_id": "gone", "image": str(ct / "nowhere")}]
    clinical = {"age": 65, "sex": "female"}
    drawn, refused = runtime.run([study | {"clinical": clinical} for study in people])
    assert drawn.refusal is None
    assert drawn.result.provenance.mask["algorithm"] == BUNDLE
    assert refused.refusal.code == "INPUT_NOT_FOUND"
    newer_copy = f"{carried_package(newer)}.runtime.bundle"
    assert type(runtime.content("segmenter")._runtime).__module__ == newer_copy
    assert type(runtime).__module__ == f"{carried_package(ckd)}.runtime.bundle"


def test_what_the_bundle_of_another_release_refuses_is_a_refusal(newer, ct, tmp_path):
    """A body without kidneys, drawn by other code than the one that asks."""
    ckd = unpack(package(CKD, tmp_path / "dist"), tmp_path)
    runtime = open_bundle(ckd, device="$torch.device('cpu')", kidney_bundle=str(newer))
    segmenter = runtime.content("segmenter")
    resolved = segmenter._loaded().workflow.parser.ref_resolver.resolved_content
    resolved["inferer"] = lambda image, network: torch.full_like(image, -10.0)  # no kidney anywhere
    study = {"study_id": "phantom", "image": str(ct), "clinical": {"age": 65, "sex": "female"}}
    (outcome,) = runtime.run([study])
    assert outcome.refusal.code == "KIDNEY_NOT_FOUND"
    assert type(outcome.refusal).__module__ == f"{carried_package(ckd)}.refusals"
