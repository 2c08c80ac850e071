"""The verifier: a bundle that keeps every rule is broken in one place that is only seen when it is built."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from monai.networks.nets import UNet

from tools import export_onnx, verify_bundle
from tools.bundle_rules import bundle_problems
from tools.export_onnx import NotEqualError, export_problems
from tools.network_rules import network_problems, parser_of, undefined_references
from tools.new_bundle import make_bundle
from tools.update_card import updated_files

NAME = "liver_ct_segmentation"

pytestmark = pytest.mark.xdist_group("bundles")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A bundle of the template with weights of its network."""
    folder = make_bundle(NAME, tmp_path_factory.mktemp("bundles"))
    torch.manual_seed(0)
    (folder / "models").mkdir()
    network = parser_of(folder, "inference.json").get_parsed_content("network_def")
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    update(folder)
    return folder


@pytest.fixture
def bundle(good, tmp_path):
    folder = tmp_path / NAME
    for path in good.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(good)).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(good)).write_bytes(path.read_bytes())
    return folder


def update(folder):
    for path, content in updated_files(folder).items():
        path.write_text(content, encoding="utf-8")


def edit(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def save(folder, change):
    path = folder / "models" / "model.pt"
    torch.save(change(torch.load(path, weights_only=True)), path)
    update(folder)


def test_good_bundle_breaks_no_rule(good):
    assert verify_bundle.verify(good) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(lambda state: {"state_dict": state}, "must be a bare state dict", id="checkpoint"),
        pytest.param(
            lambda state: {**state, "x": torch.zeros(1)}, "must fit the network key by key", id="key"
        ),
        pytest.param(
            lambda state: {name: value * float("nan") for name, value in state.items()},
            "must hold finite numbers only",
            id="not a number",
        ),
    ],
)
def test_weights_that_break_a_rule_are_named(bundle, change, problem):
    save(bundle, change)
    (found,) = network_problems(bundle)
    assert found.startswith("models/model.pt")
    assert problem in found


def test_weights_that_would_run_code_are_named(bundle):
    (bundle / "models" / "model.pt").write_bytes(pickle.dumps(UNet))
    update(bundle)
    (found,) = network_problems(bundle)
    assert "models/model.pt must load without running code" in found


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        pytest.param(
            "train.json",
            lambda config: config["network_def"].update(act="elu"),
            "must build one network, got two",
            id="two networks",
        ),
        pytest.param(
            "train.json",
            lambda config: config["network_def"].update(channels="none"),
            "inference.json and train.json must build their network_def, got",
            id="no network",
        ),
        pytest.param(
            "inference.json",
            lambda config: config.update(network="$@netwrk_def.to(@device)"),
            "inference.json must define what it refers to, lacks netwrk_def",
            id="undefined reference",
        ),
        pytest.param(
            "inference.json",
            lambda config: config.pop("inferer"),
            "lacks inferer",
            id="missing property",
        ),
        pytest.param(
            "metadata.json",
            lambda config: config["network_data_format"]["outputs"]["pred"].update(num_channels=3),
            "the network must take and give what metadata.json says",
            id="other channels",
        ),
        pytest.param(
            "metadata.json",
            lambda config: config.update(version=1),
            "metadata.json must fit MONAI's schema",
            id="schema",
        ),
    ],
)
def test_configuration_that_does_not_fit_is_named(bundle, file, change, problem):
    edit(bundle / "configs" / file, change)
    assert any(problem in found for found in network_problems(bundle)), network_problems(bundle)


def test_card_that_is_out_of_date_is_named(bundle):
    card = bundle / "docs" / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("| Version | 0.1.0 |", "| Version | 0.0.9 |"))
    assert network_problems(bundle) == [
        "docs/README.md must be what python -m tools.update_card writes; run it."
    ]


def test_undefined_reference_is_found(bundle):
    parser = parser_of(bundle, "inference.json")
    assert undefined_references(parser) == set()
    parser["network"] = "$@netwrk_def.to(@device)"
    assert undefined_references(parser) == {"netwrk_def"}


def test_command_ends_with_1_when_a_rule_is_broken(bundle, capsys):
    assert verify_bundle.main([str(bundle), "--quick"]) == 0
    assert capsys.readouterr().out == f"{NAME}: no rule is broken\n"
    (bundle / "LICENSE").unlink()
    assert verify_bundle.main([str(bundle)]) == 1
    assert capsys.readouterr().out == f"{NAME}: LICENSE is missing.\n"


def test_broken_files_are_named_before_anything_is_built(bundle):
    (bundle / "configs" / "inference.json").write_text("{")
    assert verify_bundle.verify(bundle) == bundle_problems(bundle) != []


# exports


def test_declared_export_of_the_template_is_equal(bundle, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'shared_nets[onnx]'")
    assert export_onnx.main([str(bundle), "--output", str(tmp_path / "out" / "model.onnx")]) == 0
    assert "largest difference from the original" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]


def test_export_that_is_not_equal_is_named_and_not_kept(bundle, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'shared_nets[onnx]'")

    def with_an_error(network, image, file):
        altered = parser_of(bundle, "inference.json").get_parsed_content("network_def").eval()
        altered.load_state_dict({name: value * 1.01 for name, value in network.state_dict().items()})
        convert(altered, image, file)

    convert = export_onnx._convert
    monkeypatch.setattr(export_onnx, "_convert", with_an_error)
    edit(bundle / "configs" / "metadata.json", lambda content: content.update(exports=["onnx"]))
    (found,) = export_problems(bundle)
    assert "must give numbers within 0.0001, got a difference of" in found
    assert export_onnx.main([str(bundle), "--output", str(tmp_path / "out" / "model.onnx")]) == 1
    assert "nothing was kept" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []
    assert issubclass(NotEqualError, RuntimeError)


def test_network_that_cannot_be_exported_is_named_in_one_line(bundle, monkeypatch, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'shared_nets[onnx]'")

    def fail(*arguments):
        raise RuntimeError("a screen of advice") from ValueError("an operator is unknown\nmore")

    monkeypatch.setattr(export_onnx, "_convert", fail)
    assert export_onnx.main([str(bundle), "--output", str(tmp_path / "model.onnx")]) == 1
    assert capsys.readouterr().err == f"{NAME} cannot be exported: an operator is unknown\n"
    assert list(tmp_path.glob("*.onnx")) == []


def test_export_without_its_packages_says_how_to_get_them(bundle, monkeypatch):
    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None)
    edit(bundle / "configs" / "metadata.json", lambda content: content.update(exports=["onnx"]))
    assert export_problems(bundle) == [
        "metadata.json: exports names onnx, but onnx must be installed to export to ONNX: "
        "pip install 'shared_nets[onnx]'."
    ]


def test_bundle_that_declares_no_export_is_not_exported(bundle, monkeypatch):
    monkeypatch.setattr(export_onnx, "export_onnx", None)
    assert export_problems(bundle) == []
