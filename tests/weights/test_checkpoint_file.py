"""Files are read without running what they say, and written as the same bytes each time."""

from __future__ import annotations

import argparse
import io

import pytest
import torch
from safetensors.torch import save_file

from shared_nets.weights.checkpoint_file import encode_state_dict, read_checkpoint

WEIGHTS = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_both_formats_are_read(tmp_path, name):
    path = tmp_path / name
    save_file(WEIGHTS, path) if name.endswith("safetensors") else torch.save(WEIGHTS, path)
    content = read_checkpoint(path)
    assert content.keys() == WEIGHTS.keys()
    assert all(torch.equal(content[key], WEIGHTS[key]) for key in WEIGHTS)


def test_a_file_with_python_objects_is_refused_and_says_what_to_do(tmp_path):
    path = tmp_path / "training.pth"
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(lr=1e-4)}, path)
    with pytest.raises(
        ValueError, match=r"tensors, numbers and text only, got .*training\.pth.*save model\.state_dict"
    ):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_damaged_file_is_refused(tmp_path, name):
    path = tmp_path / name
    save_file(WEIGHTS, path) if name.endswith("safetensors") else torch.save(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"path must .*weights\.pth"):
        read_checkpoint(path)


def test_a_list_of_weights_is_refused(tmp_path):
    torch.save(list(WEIGHTS.values()), tmp_path / "list.pth")
    with pytest.raises(ValueError, match="path must hold a dictionary of weights, got a list"):
        read_checkpoint(tmp_path / "list.pth")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path must be a file of weights, got .*nowhere\.pth"):
        read_checkpoint(tmp_path / "nowhere.pth")


def test_equal_weights_give_equal_bytes_that_load_safely():
    content = encode_state_dict(WEIGHTS)
    assert encode_state_dict({name: value.clone() for name, value in WEIGHTS.items()}) == content
    loaded = torch.load(io.BytesIO(content), weights_only=True)
    assert type(loaded) is dict
    assert torch.equal(loaded["a"], WEIGHTS["a"])
