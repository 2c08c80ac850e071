"""On the command line a refusal is words on standard error and exit status 3, never a traceback."""

import json

import pytest
import torch
from torch import nn

from shared_nets.runtime import checks
from shared_nets.runtime.command_line import prepare_or_exit, splits_or_exit, studies_or_exit


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


def test_several_lists_are_read_one_after_the_other_and_named_in_their_studies(tmp_path):
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"a": [{"image": "1.png"}], "b": [{"image": "2.png"}], "c": []}))
    studies = splits_or_exit(["b", "a"], datalist=str(path))
    assert [(study["study_id"], study["split"]) for study in studies] == [("2", "b"), ("1", "a")]
    with pytest.raises(SystemExit, match="3"):
        splits_or_exit(["a", "d"], datalist=str(path))


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
