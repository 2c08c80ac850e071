"""DermaMNIST as MedMNIST publishes it, on a small file of its layout."""

from __future__ import annotations

import numpy as np
import pytest

from shared_nets.data.dermamnist import read_dermamnist
from shared_nets.refusals import InputRefused


def content(size=28):
    rng = np.random.default_rng(0)
    parts = {}
    for split, num in (("train", 7), ("val", 4), ("test", 5)):
        parts[f"{split}_images"] = rng.integers(0, 256, (num, size, size, 3), dtype=np.uint8)
        parts[f"{split}_labels"] = (np.arange(num) % 7).astype(np.uint8)[:, None]
    return parts


@pytest.mark.parametrize("size", [28, 64])
def test_the_official_parts_are_read_as_they_are(tmp_path, size):
    parts = content(size)
    np.savez(tmp_path / "dermamnist.npz", **parts)
    read = read_dermamnist(tmp_path / "dermamnist.npz")
    assert {split: len(part.labels) for split, part in read.items()} == {"train": 7, "val": 4, "test": 5}
    assert (read["test"].images == parts["test_images"]).all()
    assert read["train"].labels.tolist() == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"val_labels": np.full((4, 1), 7, dtype=np.uint8)}, id="an eighth class"),
        pytest.param({"val_labels": np.zeros((3, 1), dtype=np.uint8)}, id="a label too few"),
        pytest.param({"test_images": np.zeros((5, 28, 28), dtype=np.uint8)}, id="grey"),
        pytest.param({"test_images": np.zeros((5, 28, 28, 3))}, id="fractions"),
    ],
)
def test_another_set_is_refused(tmp_path, change):
    np.savez(tmp_path / "x.npz", **content() | change)
    with pytest.raises(InputRefused, match=r"INPUT_UNREADABLE: x\.npz is not DermaMNIST"):
        read_dermamnist(tmp_path / "x.npz")


def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path):
    with pytest.raises(InputRefused, match="INPUT_NOT_FOUND"):
        read_dermamnist(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputRefused, match="INPUT_UNREADABLE"):
        read_dermamnist(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", train_images=np.zeros(3))
    with pytest.raises(InputRefused, match="INPUT_UNREADABLE"):
        read_dermamnist(tmp_path / "x.npz")
