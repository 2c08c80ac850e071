"""Every name is accounted for, nothing is resized, and the result is plain float32."""

from __future__ import annotations

import pytest
import torch

from shared_nets.weights.conversion import Dropped, Target, WeightsMismatch, convert_state_dict


def convert(state_dict, expected, names=None):
    names = names or {}
    return convert_state_dict(
        state_dict, target_of=lambda name: names.get(name, Target(name)), expected=expected
    )


def test_parts_are_joined_in_their_order_and_named_in_the_account():
    conversion = convert(
        {"b": torch.tensor([3.0, 4.0]), "a": torch.tensor([1.0, 2.0]), "c": torch.zeros(1)},
        {"joined": (4,)},
        {"a": Target("joined", 0, 2), "b": Target("joined", 1, 2), "c": Dropped("not needed")},
    )
    assert conversion.state_dict["joined"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert conversion.report() == ["mapped   joined (4,) <- a + b", "dropped  c: not needed"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_become_contiguous_float32_in_memory_of_their_own(dtype):
    whole = torch.arange(12.0, dtype=dtype).view(3, 4)
    conversion = convert({"w": whole.mT}, {"w": (4, 3)})
    converted = conversion.state_dict["w"]
    assert converted.dtype == torch.float32
    assert converted.is_contiguous()
    assert converted.untyped_storage().nbytes() == 12 * 4
    assert torch.equal(converted, whole.mT.float())
    whole.zero_()
    assert converted[1, 1] == 5.0


def test_all_problems_are_told_at_once():
    with pytest.raises(WeightsMismatch) as caught:
        convert(
            {
                "known": torch.zeros(2, 3),
                "stranger": torch.zeros(1),
                "count": torch.zeros(2, dtype=torch.int64),
                "text": "words",
                "broken": torch.tensor([1.0, float("nan")]),
            },
            {"known": (3, 2), "lost": (1,), "count": (2,), "text": (1,), "broken": (2,)},
        )
    assert set(caught.value.problems) == {
        "shape: known is (2, 3) in the file and (3, 2) in the network",
        "unexpected: stranger",
        "missing: lost",
        "not floating-point numbers: count",
        "missing: count",
        "not floating-point numbers: text",
        "missing: text",
        "not finite: broken",
        "missing: broken",
    }
    assert "state_dict must hold exactly the weights of the network, got:" in str(caught.value)


def test_a_position_embedding_of_another_size_is_refused_with_both_shapes():
    with pytest.raises(
        WeightsMismatch, match=r"pos_embed is \(1, 257, 8\) in the file and \(1, 197, 8\) in the network"
    ):
        convert({"pos_embed": torch.zeros(1, 257, 8)}, {"pos_embed": (1, 197, 8)})


def test_a_part_of_the_wrong_shape_is_named_with_the_shape_it_should_have():
    with pytest.raises(WeightsMismatch, match=r"qkv is \(3, 2\) in the file and \(2, 2\) in the network"):
        convert(
            {"q": torch.zeros(3, 2), "k": torch.zeros(1, 2)},
            {"qkv": (4, 2)},
            {"q": Target("qkv", 0, 2), "k": Target("qkv", 1, 2)},
        )
