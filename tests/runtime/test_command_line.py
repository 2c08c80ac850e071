"""On the command line a refusal is words on standard error and exit status 3, never a traceback."""

import json

import pytest
import torch
from torch import nn

from shared_nets.runtime import checks
from shared_nets.runtime.command_line import prepare_or_exit, studies_or_exit


def test_studies_are_listed_as_they_are():
    assert studies_or_exit(mask="/scans/m.nii.gz") == [{"study_id": "m", "mask": "/scans/m.nii.gz"}]


def test_a_run_about_nothing_exits_with_status_3_and_says_why(capsys):
    with pytest.raises(SystemExit) as caught:
        studies_or_exit()
    assert caught.value.code == 3
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith("INPUT_EMPTY: No study was named. Give --image")
    assert printed.out == ""


def test_a_mistake_in_the_configuration_is_no_refusal():
    with pytest.raises(ValueError, match="image and datalist must not both be given"):
        studies_or_exit(image="/a.nii", datalist=[{"image": "/b.nii"}])


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "version", lambda name: "1.0.0")
    metadata = {"monai_version": "1.0.0", "pytorch_version": "1.0.0", "numpy_version": "1.0.0"}
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    return tmp_path


def test_a_sound_bundle_is_prepared(bundle):
    torch.save(nn.Linear(2, 1).state_dict(), bundle / "model.pt")
    network = nn.Linear(2, 1)
    prepare_or_exit(network, bundle_root=bundle, ckpt_path=bundle / "model.pt")
    assert network.weight.equal(torch.load(bundle / "model.pt", weights_only=True)["weight"])


def test_weights_that_are_missing_exit_with_status_3(bundle, capsys):
    with pytest.raises(SystemExit) as caught:
        prepare_or_exit(nn.Linear(2, 1), bundle_root=bundle, ckpt_path=bundle / "model.pt")
    assert caught.value.code == 3
    assert "WEIGHTS_MISMATCH: There are no weights model.pt." in capsys.readouterr().err
