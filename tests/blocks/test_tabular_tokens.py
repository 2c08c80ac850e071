"""Rows as tokens: missing values, scale, nothing known, and the schema that goes with the weights."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from shared_nets.blocks.tabular_tokens import TabularTokens

NAN = float("nan")


@dataclass(frozen=True)
class Table:
    num_numbers: int = 2
    category_sizes: tuple[int, ...] = (3,)
    sha256: str = "ab" * 32


def make(schema=None, **overrides) -> TabularTokens:
    torch.manual_seed(0)
    tokens = TabularTokens(schema=schema or Table(), embed_dim=16, **overrides).eval()
    with torch.no_grad():
        for parameter in tokens.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return tokens


def test_there_is_one_token_a_value_behind_the_class_token():
    assert make()(torch.tensor([[1.0, 2.0, 1.0]])).shape == (1, 1 + 3, 16)


def test_without_blocks_each_token_is_its_value_alone():
    tokens = make(depth=0)
    tokens.set_statistics([10.0, 0.0], [5.0, 1.0])
    out = tokens(torch.tensor([[20.0, NAN, 2.0]]))[0]
    expected = torch.stack([
        tokens.cls_token[0, 0],
        (20.0 - 10.0) / 5.0 * tokens.number_weight[0] + tokens.number_bias[0],
        tokens.missing_embed[1],
        tokens.cat_embeddings[0].weight[2],
    ])  # fmt: skip
    torch.testing.assert_close(out, tokens.norm(expected))


def test_the_class_token_sees_every_value():
    tokens = make()
    row = torch.tensor([[1.0, 2.0, 1.0]])
    for index, other in enumerate((1.5, NAN, 2.0)):
        changed = row.clone()
        changed[0, index] = other
        assert (tokens(changed)[0, 0] - tokens(row)[0, 0]).abs().max() > 1e-3


def test_a_missing_value_is_not_its_mean():
    tokens = make()
    assert not torch.allclose(
        tokens(torch.tensor([[0.0, 1.0, 1.0]])), tokens(torch.tensor([[NAN, 1.0, 1.0]]))
    )


def test_a_row_in_which_nothing_is_known_is_the_null_token():
    tokens = make()
    out = tokens(torch.tensor([[NAN, NAN, 0.0], [NAN, NAN, 1.0]]))
    assert torch.equal(out[0], tokens.null_token[0].expand(4, -1))
    assert not torch.equal(out[1], out[0])
    assert torch.equal(tokens(tokens.nothing_known(1))[0], out[0])


def test_a_category_that_is_nan_is_unknown():
    tokens = make()
    assert torch.equal(tokens(torch.tensor([[1.0, 1.0, NAN]])), tokens(torch.tensor([[1.0, 1.0, 0.0]])))


def test_missing_values_leave_no_gradient_that_is_not_a_number():
    tokens = make()
    tokens(torch.tensor([[NAN, 1.0, 0.0], [NAN, NAN, 0.0]])).pow(2).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in tokens.parameters())


def test_statistics_travel_with_the_weights():
    tokens = make()
    tokens.set_statistics([55.0, 3.0], torch.tensor([15.0, 2.0]))
    other = make()
    other.load_state_dict(tokens.state_dict())
    row = torch.tensor([[40.0, 5.0, 1.0]])
    assert torch.equal(other(row), tokens(row))
    assert tokens.numbers_std.tolist() == [15.0, 2.0]


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        pytest.param([0.0], [1.0, 1.0], "mean must hold 2 finite numbers", id="too few"),
        pytest.param([0.0, NAN], [1.0, 1.0], "mean must hold 2 finite numbers", id="not finite"),
        pytest.param([0.0, 0.0], [1.0, 0.0], "std must be above 0", id="no spread"),
    ],
)
def test_statistics_that_cannot_be_used_are_named(mean, std, message):
    with pytest.raises(ValueError, match=message):
        make().set_statistics(mean, std)


def test_a_table_of_numbers_or_of_categories_alone_is_enough():
    assert make(Table(category_sizes=()))(torch.ones(1, 2)).shape == (1, 3, 16)
    assert make(Table(num_numbers=0))(torch.ones(1, 1)).shape == (1, 2, 16)
    with pytest.raises(ValueError, match="schema must hold a number or a category"):
        make(Table(num_numbers=0, category_sizes=()))


def test_a_category_beyond_the_vocabulary_is_an_error():
    with pytest.raises(IndexError):
        make()(torch.tensor([[1.0, 1.0, 3.0]]))
