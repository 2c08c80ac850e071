"""Layouts of the DINO and DINOv2 repositories: plain, chunked, teacher, student of AMOS."""

from __future__ import annotations

import pytest
import torch

from shared_nets.weights.conversion import WeightsMismatch, expected_shapes
from shared_nets.weights.dino import from_dino, from_dinov2_student


def chunked(state_dict: dict) -> dict:
    """Name blocks as training with ``block_chunks`` does: two blocks a chunk, the index counts on."""
    return {
        f"blocks.{int(name.split('.')[1]) // 2}.{name.removeprefix('blocks.')}"
        if name.startswith("blocks.")
        else name: value
        for name, value in state_dict.items()
    }


def prefixed(prefix: str, state_dict: dict) -> dict:
    return {prefix + name: value for name, value in state_dict.items()}


def assert_same(converted: dict, original: dict) -> None:
    assert list(converted) == list(original)
    for name, value in original.items():
        assert torch.equal(converted[name], value), name


def test_a_plain_backbone_keeps_its_names(make_vit):
    vit = make_vit(num_register_tokens=4)
    conversion = from_dino(vit.state_dict(), expected=expected_shapes(vit))
    assert_same(conversion.state_dict, vit.state_dict())
    assert conversion.dropped == {}


def test_chunked_blocks_are_put_in_one_row(make_vit):
    vit = make_vit()
    names = chunked(vit.state_dict())
    assert "blocks.1.2.attn.qkv.weight" in names
    assert_same(from_dino(names, expected=expected_shapes(vit)).state_dict, vit.state_dict())


def test_a_block_given_twice_is_refused(make_vit):
    vit = make_vit()
    both = {**vit.state_dict(), **chunked(vit.state_dict())}
    with pytest.raises(
        WeightsMismatch, match=r"given twice: blocks\.2\.norm1\.weight, by blocks\.2\.norm1\.weight"
    ):
        from_dino(both, expected=expected_shapes(vit))


def test_the_teacher_of_a_training_checkpoint_is_taken_and_the_rest_is_listed(make_vit):
    teacher, student = make_vit(seed=1), make_vit(seed=2)
    head = {"dino_head.mlp.0.weight": torch.ones(2, 2), "ibot_head.last_layer.weight_v": torch.ones(2, 2)}
    checkpoint = {
        "teacher": {**prefixed("backbone.", chunked(teacher.state_dict())), **head},
        "student": prefixed("backbone.", student.state_dict()),
        "epoch": 3,
    }
    conversion = from_dino(checkpoint, expected=expected_shapes(teacher))
    assert_same(conversion.state_dict, teacher.state_dict())
    assert set(conversion.dropped) == {*head, "student", "epoch"}


def test_dino_weights_have_neither_layer_scale_nor_mask_token(make_vit):
    vit = make_vit(layer_scale_init=None, use_mask_token=False)
    names = set(vit.state_dict())
    assert not any("ls1" in name or "mask_token" in name for name in names)
    assert_same(from_dino(vit.state_dict(), expected=expected_shapes(vit)).state_dict, vit.state_dict())
    with pytest.raises(WeightsMismatch, match=r"missing: mask_token\n.*missing: blocks\.0\.ls1\.gamma"):
        from_dino(vit.state_dict(), expected=expected_shapes(make_vit()))


def test_the_student_of_an_amos_checkpoint_is_taken_and_the_rest_is_listed(make_vit):
    student, teacher = make_vit(seed=1, ffn_bias=False), make_vit(seed=2, ffn_bias=False)
    beside = {
        **prefixed("teacher.backbone.", teacher.state_dict()),
        "student.dino_head.mlp.0.weight": torch.ones(2, 2),
        "student.ibot_head.mlp.0.weight": torch.ones(2, 2),
        "teacher.dino_head.mlp.0.weight": torch.ones(2, 2),
        "dino_loss.center": torch.ones(1, 2),
    }
    checkpoint = {
        "model": {**prefixed("student.backbone.", student.state_dict()), **beside},
        "optimizer": {"state": {}},
        "iteration": 10,
    }
    conversion = from_dinov2_student(checkpoint, expected=expected_shapes(student))
    assert_same(conversion.state_dict, student.state_dict())
    assert set(conversion.dropped) == {*beside, "optimizer", "iteration"}
    assert not any("mlp.fc1.bias" in name for name in conversion.state_dict)


def test_mlp_biases_that_the_network_lacks_are_named(make_vit):
    with pytest.raises(WeightsMismatch, match=r"unexpected: student\.backbone\.blocks\.0\.mlp\.fc1\.bias"):
        from_dinov2_student(
            {"model": prefixed("student.backbone.", make_vit().state_dict())},
            expected=expected_shapes(make_vit(ffn_bias=False)),
        )
