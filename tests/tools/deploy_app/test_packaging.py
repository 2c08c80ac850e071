"""What the packager is given is complete, and its configuration says what the bundle is."""

from __future__ import annotations

import json

import pytest
import yaml

from tools.bundle_rules import REPOSITORY
from tools.deploy_app import __main__ as application
from tools.deploy_app import packaging
from tools.deploy_app.packaging import lay_out
from tools.deploy_app.sdk import DeployUnavailable

BUNDLES = REPOSITORY / "bundles"
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json"))


def test_the_folder_has_the_application_the_bundles_and_their_packages(tmp_path):
    command = lay_out("ckd_staging_classification", tmp_path / "map")
    app = tmp_path / "map" / "app"
    assert 'main(bundle="ckd_staging_classification")' in (app / "__main__.py").read_text()
    for name in ("shared_nets/runtime/bundle.py", "tools/deploy_app/app.py", "tools/__init__.py"):
        assert (app / name).read_bytes() == (REPOSITORY / name).read_bytes()
    requirements = (app / "requirements.txt").read_text().splitlines()
    assert {"monai==1.6.1", "holoscan-cu13==4.6.0"} <= set(requirements)
    models = tmp_path / "map" / "models"
    assert {path.name for path in models.iterdir()} == {
        "ckd_staging_classification",
        "kidney_ct_segmentation",  # which it runs
    }
    weights = "ckd_staging_classification/models/model.pt"
    assert (models / weights).read_bytes() == (BUNDLES / weights).read_bytes()
    assert command[:3] == ["monai-deploy", "package", str(app)]
    assert not list((tmp_path / "map").rglob("__pycache__"))


@pytest.mark.parametrize(
    "name", sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json"))
)
def test_every_bundle_can_be_laid_out_under_its_title_and_version(tmp_path, name):
    lay_out(name, tmp_path / "map")
    config = yaml.safe_load((tmp_path / "map" / "app.yaml").read_text())
    metadata = json.loads((BUNDLES / name / "configs" / "metadata.json").read_text())
    assert (config["application"]["title"], config["application"]["version"]) == (
        metadata["task"],
        metadata["version"],
    )
    assert {"input-formats", "output-formats"} <= set(config["application"])
    assert config["resources"]["memory"] == "4Gi"


def test_a_folder_that_is_there_is_left_alone_and_an_unknown_bundle_is_told(tmp_path, capsys):
    with pytest.raises(ValueError, match="must not be there yet"):
        lay_out("kidney_ct_segmentation", tmp_path)
    with pytest.raises(SystemExit):
        packaging.main(["--bundle", "nothing", "--output_dir", str(tmp_path / "map")])
    assert "bundle must be one of ckd_staging_classification" in capsys.readouterr().err


def test_without_the_sdk_the_reason_is_told_and_nothing_is_run(tmp_path, capsys, monkeypatch):
    def missing() -> None:
        raise DeployUnavailable("MONAI Deploy is not installed for Python 3.99: make deploy.")

    monkeypatch.setattr(application, "import_sdk", missing)
    assert application.main(["-i", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "MONAI Deploy is not installed for Python 3.99: make deploy.\n"
    assert not (tmp_path / "out").exists()


def test_input_and_output_must_be_named(capsys, monkeypatch):
    for name in ("INPUT", "OUTPUT"):
        monkeypatch.delenv(f"HOLOSCAN_{name}_PATH", raising=False)
    with pytest.raises(SystemExit):
        application.main(["--bundle", "kidney_ct_segmentation"])
    assert "--input and --output must be given" in capsys.readouterr().err
