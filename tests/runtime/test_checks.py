"""What must hold before a bundle runs: packages, weights, and every key of them."""

import hashlib
import json
import pickle
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from torch import nn

from shared_nets.refusals import InputRefused
from shared_nets.runtime import checks
from shared_nets.runtime.checks import (
    check_packages,
    check_weights,
    file_sha256,
    load_weights,
    prepare_bundle,
    read_metadata,
)

METADATA = {
    "monai_version": "1.6.1",
    "pytorch_version": "2.13.0",
    "numpy_version": "2.4.6",
    "required_packages_version": {"pydicom": "3.0.2"},
}
WANTED = {"monai": "1.6.1", "torch": "2.13.0", "numpy": "2.4.6", "pydicom": "3.0.2"}


@pytest.fixture
def install(monkeypatch):
    """Give ``install(**versions)``: pretend that exactly the wanted packages, so changed, are installed."""

    def pretend(**versions) -> None:
        installed = {**WANTED, **versions}

        def version(name: str) -> str:
            if installed.get(name) is None:
                raise PackageNotFoundError(name)
            return installed[name]

        monkeypatch.setattr(checks, "version", version)

    return pretend


@pytest.mark.parametrize(
    "versions",
    [
        pytest.param({}, id="the-same"),
        pytest.param({"monai": "1.6.9"}, id="a-newer-patch"),
        pytest.param({"torch": "2.13.0+cpu"}, id="a-build-of-it"),
        pytest.param({"torch": "2.13"}, id="a-zero-left-out"),
        pytest.param({"pydicom": "3.0.10"}, id="a-patch-of-two-digits"),
        pytest.param({"numpy": "2.4.6.post1"}, id="a-post-release"),
    ],
)
def test_the_same_minor_version_with_the_same_or_a_newer_patch_will_do(install, versions):
    install(**versions)
    check_packages(METADATA)


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        pytest.param({"monai": "1.7.1"}, "monai is 1.7.1, not 1.6.1.", id="a-newer-minor"),
        pytest.param({"monai": "1.5.9"}, "monai is 1.5.9, not 1.6.1.", id="an-older-minor"),
        pytest.param({"torch": "3.13.0"}, "torch is 3.13.0, not 2.13.0.", id="a-newer-major"),
        pytest.param({"numpy": "2.4.5"}, "numpy is 2.4.5, not 2.4.6.", id="an-older-patch"),
        pytest.param({"pydicom": None}, "pydicom 3.0.2 is not installed.", id="missing"),
        pytest.param(
            {"monai": "1.7.0", "pydicom": None},
            "monai is 1.7.0, not 1.6.1; pydicom 3.0.2 is not installed.",
            id="everything-at-once",
        ),
    ],
)
def test_another_version_is_refused_by_name(install, versions, message):
    install(**versions)
    with pytest.raises(InputRefused, match=r"^PACKAGES_MISMATCH: ") as caught:
        check_packages(METADATA)
    assert caught.value.message == message
    assert "pip install -r requirements.txt" in caught.value.remedy


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_weights_with_the_released_sha256_will_do(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").write_bytes(b"abc")
    check_weights(tmp_path, {"weights": {"models/model.pt": {"sha256": hashlib.sha256(b"abc").hexdigest()}}})
    check_weights(tmp_path, {})


def test_weights_that_the_run_makes_need_not_be_there(tmp_path):
    metadata = {"weights": {"models/calibration.npz": {"sha256": "0" * 64}}}
    check_weights(tmp_path, metadata, makes=["models/calibration.npz"])
    with pytest.raises(InputRefused, match="WEIGHTS_MISMATCH"):
        check_weights(tmp_path, metadata)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, r"The weights models/model\.pt are missing", id="missing"),
        pytest.param(
            b"abd", r"models/model\.pt is not the file that the bundle was released with", id="other"
        ),
        pytest.param(b"", r"models/model\.pt is not the file that the bundle was released with", id="empty"),
    ],
)
def test_other_weights_are_refused(tmp_path, content, message):
    (tmp_path / "models").mkdir()
    if content is not None:
        (tmp_path / "models" / "model.pt").write_bytes(content)
    metadata = {"weights": {"models/model.pt": {"sha256": hashlib.sha256(b"abc").hexdigest()}}}
    with pytest.raises(InputRefused, match=f"^WEIGHTS_MISMATCH: {message}"):
        check_weights(tmp_path, metadata)


# loading

STATE = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}


def test_every_key_is_loaded(tmp_path):
    torch.save(STATE, tmp_path / "model.pt")
    network = nn.Linear(2, 1)
    load_weights(network, tmp_path / "model.pt")
    assert network.weight.tolist() == [[1.0, 2.0]]
    assert network.bias.tolist() == [3.0]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        pytest.param({"weight": STATE["weight"]}, "Missing key.*bias", id="a-missing-key"),
        pytest.param({**STATE, "head": torch.zeros(1)}, "Unexpected key.*head", id="an-unknown-key"),
        pytest.param({**STATE, "bias": torch.zeros(2)}, "size mismatch for bias", id="another-shape"),
        pytest.param({"state_dict": STATE, "epoch": 3}, "Missing key", id="a-training-checkpoint"),
        pytest.param({**STATE, "bias": "three"}, "does not fit", id="a-word-for-a-tensor"),
        pytest.param([STATE["weight"]], "does not fit", id="a-list"),
        pytest.param(STATE["weight"], "does not fit", id="a-bare-tensor"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, state, message):
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(InputRefused, match=rf"(?s)^WEIGHTS_MISMATCH: model\.pt .*{message}") as caught:
        load_weights(nn.Linear(2, 1), tmp_path / "model.pt")
    assert "--ckpt_path" in caught.value.remedy


class RunsWhenUnpickled:
    """A pickle that would make a folder on being read."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
def test_a_file_that_holds_more_than_tensors_is_refused_and_not_run(tmp_path, save):
    save({**STATE, "extra": RunsWhenUnpickled(tmp_path / "was_run")}, tmp_path / "model.pt")
    with pytest.raises(InputRefused, match=r"^WEIGHTS_MISMATCH: model\.pt cannot be read as plain tensors"):
        load_weights(nn.Linear(2, 1), tmp_path / "model.pt")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.example/spec/v1\n", b"PK\x03\x04cut"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputRefused, match=r"^WEIGHTS_MISMATCH: model\.pt cannot be read as plain tensors"):
        load_weights(nn.Linear(2, 1), tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["none.pt", "."], ids=["missing", "a-folder"])
def test_weights_that_are_not_there_are_refused(tmp_path, name):
    with pytest.raises(InputRefused, match=r"^WEIGHTS_MISMATCH: There are no weights"):
        load_weights(nn.Linear(2, 1), tmp_path / name)


# together


@pytest.fixture
def bundle(tmp_path, install):
    """A bundle with one weight file, whose metadata name its sha256, and the packages it wants."""
    install()
    for folder in ("models", "configs"):
        (tmp_path / folder).mkdir()
    torch.save(STATE, tmp_path / "models" / "model.pt")
    sha256 = file_sha256(tmp_path / "models" / "model.pt")
    metadata = {**METADATA, "name": "µ", "weights": {"models/model.pt": {"sha256": sha256}}}
    (tmp_path / "configs" / "metadata.json").write_text(
        json.dumps(metadata, ensure_ascii=False), encoding="utf-8"
    )
    return tmp_path


def test_metadata_are_read_as_utf8(bundle):
    assert read_metadata(bundle)["name"] == "µ"


def test_a_sound_bundle_gets_its_weights(bundle):
    network = nn.Linear(2, 1)
    prepare_bundle(network, bundle_root=bundle, ckpt_path=bundle / "models" / "model.pt")
    assert network.bias.tolist() == [3.0]


def test_weights_of_ones_own_may_lie_elsewhere(bundle):
    torch.save({**STATE, "bias": torch.tensor([9.0])}, bundle / "mine.pt")
    network = nn.Linear(2, 1)
    prepare_bundle(network, bundle_root=bundle, ckpt_path=bundle / "mine.pt")
    assert network.bias.tolist() == [9.0]


def test_a_further_file_must_be_there_unless_the_run_does_without_it(bundle):
    where = {"bundle_root": bundle, "ckpt_path": bundle / "models" / "model.pt"}
    prepare_bundle(nn.Linear(2, 1), **where, other_files={"context_path": None})
    with pytest.raises(InputRefused, match=r"There is no file context\.npz, which context_path points to"):
        prepare_bundle(nn.Linear(2, 1), **where, other_files={"context_path": bundle / "context.npz"})


def test_changed_weights_and_packages_are_refused_before_anything_is_loaded(bundle, install):
    network = nn.Linear(2, 1)
    before = network.bias.tolist()
    torch.save({**STATE, "bias": torch.tensor([9.0])}, bundle / "models" / "model.pt")
    with pytest.raises(InputRefused, match=r"^WEIGHTS_MISMATCH: "):
        prepare_bundle(network, bundle_root=bundle, ckpt_path=bundle / "models" / "model.pt")
    install(monai="1.7.0")
    with pytest.raises(InputRefused, match=r"^PACKAGES_MISMATCH: "):
        prepare_bundle(network, bundle_root=bundle, ckpt_path=bundle / "models" / "model.pt")
    assert network.bias.tolist() == before
