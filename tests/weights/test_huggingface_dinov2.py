"""Our trunk and Hugging Face's DINOv2 models are one function, and weights travel both ways."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared_nets.weights.conversion import WeightsMismatch, expected_shapes
from shared_nets.weights.huggingface_dinov2 import from_huggingface_dinov2, to_huggingface_dinov2

REGISTERS = pytest.mark.parametrize(
    "registers", [pytest.param(0, id="plain"), pytest.param(4, id="registers")]
)
SIZES = pytest.mark.parametrize(
    "size",
    [
        pytest.param((56, 56), id="native"),
        pytest.param((42, 84), id="oblong"),
        pytest.param((98, 98), id="larger"),
        pytest.param((28, 112), id="as many patches"),
    ],
)


@pytest.fixture
def make_pair(make_vit, make_huggingface):
    def make(registers: int):
        theirs = make_huggingface(num_register_tokens=registers)
        ours = make_vit(num_register_tokens=registers, antialias=registers > 0, seed=1)
        conversion = from_huggingface_dinov2(theirs.state_dict(), expected=expected_shapes(ours))
        ours.load_state_dict(conversion.state_dict)
        return ours, theirs

    return make


@SIZES
@REGISTERS
def test_outputs_equal_those_of_hugging_face(make_pair, registers, size):
    ours, theirs = make_pair(registers)
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        features = ours.forward_features(image)
        reference = theirs(image)
    assert reference.last_hidden_state.std() > 0.05  # it is not the constant zero that agrees
    tokens = torch.cat([features.cls_token[:, None], features.register_tokens, features.patch_tokens], dim=1)
    torch.testing.assert_close(tokens, reference.last_hidden_state, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours(image), reference.pooler_output, rtol=0, atol=1e-5)


@REGISTERS
def test_masked_outputs_equal_those_of_hugging_face(make_pair, registers):
    ours, theirs = make_pair(registers)
    image = torch.randn(2, 3, 70, 42, generator=torch.Generator().manual_seed(2))
    masks = torch.rand(2, 15, generator=torch.Generator().manual_seed(3)) < 0.4
    with torch.no_grad():
        patches = ours.forward_features(image, masks).patch_tokens
        reference = theirs(image, bool_masked_pos=masks).last_hidden_state[:, 1 + registers :]
    torch.testing.assert_close(patches, reference, rtol=0, atol=1e-5)


@REGISTERS
def test_a_hugging_face_file_survives_the_round_trip_to_the_bit(make_pair, tmp_path, registers):
    ours, theirs = make_pair(registers)
    theirs.save_pretrained(tmp_path)
    file = load_file(tmp_path / "model.safetensors")
    assert "encoder.layer.0.attention.attention.query.weight" in file  # the names that public files have
    conversion = from_huggingface_dinov2(file, expected=expected_shapes(ours))
    back = to_huggingface_dinov2(conversion.state_dict)
    assert back.keys() == file.keys()
    for name, value in file.items():
        assert torch.equal(back[name], value), name
    for name, value in ours.state_dict().items():
        assert torch.equal(conversion.state_dict[name], value), name


@REGISTERS
def test_hugging_face_loads_our_weights_and_gives_our_outputs(
    make_vit, make_huggingface, tmp_path, registers
):
    ours = make_vit(num_register_tokens=registers, antialias=registers > 0, seed=5)
    theirs = make_huggingface(num_register_tokens=registers)
    theirs.config.save_pretrained(tmp_path)
    save_file(to_huggingface_dinov2(ours.state_dict()), tmp_path / "model.safetensors", {"format": "pt"})
    theirs, info = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())  # nothing missing, unexpected or mismatched
    image = torch.randn(1, 3, 84, 42, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs.eval()(image).pooler_output, rtol=0, atol=1e-5)


def test_query_key_and_value_become_rows_in_that_order(make_vit):
    ours = make_vit()
    file = to_huggingface_dinov2(ours.state_dict())
    for row, part in enumerate(("query", "key", "value")):
        rows = ours.blocks[1].attn.qkv.weight[64 * row : 64 * (row + 1)]
        assert torch.equal(file[f"encoder.layer.1.attention.attention.{part}.weight"], rows)


def test_registers_are_never_lost_on_the_way(make_vit, make_huggingface):
    """The original CXformer conversion dropped them in silence."""
    theirs = make_huggingface(num_register_tokens=4)
    with pytest.raises(WeightsMismatch, match=r"unexpected: embeddings\.register_tokens"):
        from_huggingface_dinov2(theirs.state_dict(), expected=expected_shapes(make_vit()))
    without = {name: value for name, value in theirs.state_dict().items() if "register" not in name}
    with pytest.raises(WeightsMismatch, match=r"missing: register_tokens"):
        from_huggingface_dinov2(without, expected=expected_shapes(make_vit(num_register_tokens=4)))


def test_a_prefix_is_removed_and_a_classifier_is_dropped_by_name(make_pair):
    ours, theirs = make_pair(4)
    state_dict = {f"dinov2_with_registers.{name}": value for name, value in theirs.state_dict().items()}
    state_dict["classifier.weight"] = torch.zeros(5, 128)
    conversion = from_huggingface_dinov2(state_dict, expected=expected_shapes(ours))
    assert conversion.dropped == {"classifier.weight": "classifier on top of the backbone"}
    assert torch.equal(conversion.state_dict["register_tokens"], ours.register_tokens)


def test_a_missing_key_projection_is_named(make_pair):
    ours, theirs = make_pair(0)
    state_dict = dict(theirs.state_dict())
    del state_dict["encoder.layer.2.attention.k_proj.bias"]
    with pytest.raises(
        WeightsMismatch, match=r"missing: parts \[1\] of blocks\.2\.attn\.qkv\.bias, which has \["
    ):
        from_huggingface_dinov2(state_dict, expected=expected_shapes(ours))


def test_a_name_without_a_counterpart_there_is_refused(make_vit):
    state_dict = {
        **make_vit().state_dict(),
        "blocks.0.attn.bias_mask": torch.zeros(1),
        "head.weight": torch.zeros(1),
    }
    with pytest.raises(
        WeightsMismatch, match=r"unexpected: blocks\.0\.attn\.bias_mask\n  unexpected: head\.weight"
    ):
        to_huggingface_dinov2(state_dict)
