"""The command line that converts weights: what it prints, writes and refuses."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from shared_nets.nets.mambaderm import mambaderm, mambaderm_lite
from shared_nets.nets.vision_transformer import (
    VisionTransformer,
    vit_base_patch14,
    vit_base_patch14_reg4,
    vit_base_patch16_amos,
    vit_base_patch16_dino,
    vit_small_patch14_reg4,
)
from shared_nets.nets.vmamba import VMamba, vmamba_tiny, vmamba_tiny_s2l5
from shared_nets.weights.huggingface_dinov2 import to_huggingface_dinov2
from tools import convert_weights
from tools.convert_weights import SOURCES, Source, main

SMALL = {
    "img_size": 28,
    "patch_size": 14,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "layer_scale_init": 0.1,
}


def small_vit() -> VisionTransformer:
    return VisionTransformer(**SMALL)


def small_vit_reg4() -> VisionTransformer:
    return VisionTransformer(**SMALL, num_register_tokens=4)


VIT_SOURCES = sorted(set(SOURCES) - {"vmamba", "mambaderm_v1"})


def small_vmamba() -> VMamba:
    return VMamba(dims=(8, 16), depths=(1, 1))


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """Offer small networks in place of the published ones."""
    small = {name: Source(source.convert, (small_vit, small_vit_reg4)) for name, source in SOURCES.items()}
    small["vmamba"] = Source(SOURCES["vmamba"].convert, (small_vmamba,))
    monkeypatch.setattr(convert_weights, "SOURCES", small)


def as_public(source: str, state_dict: dict) -> dict:
    if source == "amos":
        return {
            "model": {f"student.backbone.{name}": value for name, value in state_dict.items()},
            "iteration": 1,
        }
    return state_dict if source in ("dino", "dinov2") else to_huggingface_dinov2(state_dict)


@pytest.mark.parametrize("source", VIT_SOURCES)
def test_every_source_is_converted_and_loads_strictly(source, tmp_path, capsys):
    vit = small_vit_reg4()
    torch.save(as_public(source, vit.state_dict()), tmp_path / "public.pth")
    output = tmp_path / "new" / "ours.pt"
    assert main(["--source", source, "--input", str(tmp_path / "public.pth"), "--output", str(output)]) == 0
    small_vit_reg4().load_state_dict(torch.load(output, weights_only=True))
    assert torch.equal(torch.load(output, weights_only=True)["register_tokens"], vit.register_tokens)
    printed = capsys.readouterr().out
    assert f"sha256   {hashlib.sha256(output.read_bytes()).hexdigest()}" in printed
    assert "mapped   blocks.0.attn.qkv.weight (48, 16) <- " in printed
    assert "network  small_vit_reg4" in printed
    assert ("dropped  iteration: beside 'model' in the checkpoint" in printed) == (source == "amos")


def test_a_vmamba_file_is_converted_without_its_classifier(tmp_path, capsys):
    torch.save(
        {"model": VMamba(dims=(8, 16), depths=(1, 1), num_classes=3).state_dict()}, tmp_path / "public.pth"
    )
    output = tmp_path / "ours.pt"
    assert main(["--source", "vmamba", "--input", str(tmp_path / "public.pth"), "--output", str(output)]) == 0
    small_vmamba().load_state_dict(torch.load(output, weights_only=True))
    printed = capsys.readouterr().out
    assert "mapped   layers.1.blocks.0.op.A_logs (64, 1) <- layers.1.blocks.0.op.A_logs" in printed
    assert "dropped  classifier.head.weight: classifier on top of the trunk" in printed


def test_a_dry_run_reports_the_same_checksum_and_writes_nothing(tmp_path, capsys):
    save_file(to_huggingface_dinov2(small_vit().state_dict()), tmp_path / "model.safetensors")
    arguments = ["--source", "rad_dino", "--input", str(tmp_path / "model.safetensors")]
    output = tmp_path / "ours.pt"
    assert main([*arguments, "--output", str(output), "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert "output   not written (dry run)" in dry
    assert not output.exists()
    assert main([*arguments, "--output", str(output)]) == 0
    assert dry.splitlines()[:-1] == capsys.readouterr().out.splitlines()[:-1]


def test_weights_for_another_network_are_refused_and_nothing_is_written(tmp_path, capsys):
    other = VisionTransformer(**{**SMALL, "img_size": 42}, num_register_tokens=4)
    torch.save(other.state_dict(), tmp_path / "public.pth")
    output = tmp_path / "ours.pt"
    assert main(["--source", "dinov2", "--input", str(tmp_path / "public.pth"), "--output", str(output)]) == 3
    message = capsys.readouterr().err
    assert "shape: pos_embed is (1, 10, 16) in the file and (1, 5, 16) in the network" in message
    assert "(compared with small_vit_reg4)" in message  # the one that it comes nearest to
    assert sorted(path.name for path in tmp_path.iterdir()) == ["public.pth"]


def test_a_missing_input_is_refused(tmp_path, capsys):
    arguments = [
        "--source",
        "dino",
        "--input",
        str(tmp_path / "nowhere.pth"),
        "--output",
        str(tmp_path / "ours.pt"),
    ]
    assert main(arguments) == 3
    assert "path must be a file of weights" in capsys.readouterr().err


def test_each_source_is_for_the_published_networks():
    v1 = [(make.func, make.keywords) for make in SOURCES["mambaderm_v1"].networks]
    assert v1 == [(mambaderm, {"num_classes": 1}), (mambaderm_lite, {"num_classes": 1})]
    assert {name: source.networks for name, source in SOURCES.items() if name != "mambaderm_v1"} == {
        "dinov2": (vit_small_patch14_reg4, vit_base_patch14_reg4, vit_base_patch14),
        "huggingface": (vit_small_patch14_reg4, vit_base_patch14_reg4, vit_base_patch14),
        "rad_dino": (vit_base_patch14,),
        "cxformer": (vit_small_patch14_reg4, vit_base_patch14_reg4),
        "dino": (vit_base_patch16_dino,),
        "amos": (vit_base_patch16_amos,),
        "vmamba": (vmamba_tiny, vmamba_tiny_s2l5),
    }
