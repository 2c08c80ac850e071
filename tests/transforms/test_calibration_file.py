"""A calibration goes to a file and comes back; a file that is none is refused."""

from __future__ import annotations

import io
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest

from shared_nets.refusals import InputRefused
from shared_nets.transforms.calibration_file import calibration_bytes, read_calibration
from shared_nets.types import LesionCalibration


@pytest.fixture
def calibration():
    return LesionCalibration(
        temperature=1.37,
        conformal_quantiles=(0.83, 1.0),
        coverage=0.9,
        num_calibration=1003,
        ood_means=np.arange(6, dtype=np.float32).reshape(2, 3),
        ood_precision=np.eye(3, dtype=np.float32),
        ood_limit=42.5,
        min_confidence=0.61,
        class_names=("naevus", "mélanome"),
        made_with={"num_views": 8, "hair_removal": False, "metadata_schema": None, "weights_sha256": "0a"},
    )


def test_what_is_written_is_read_again(tmp_path, calibration):
    path = tmp_path / "calibration.npz"
    path.write_bytes(calibration_bytes(calibration))
    read = read_calibration(path)
    for field in fields(LesionCalibration):
        ours, theirs = getattr(calibration, field.name), getattr(read, field.name)
        assert type(theirs) is type(ours)
        assert np.array_equal(theirs, ours)
    assert read.ood_means.dtype == np.float32


def test_the_bytes_do_not_depend_on_the_time(calibration):
    content = calibration_bytes(calibration)
    assert content == calibration_bytes(calibration)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputRefused, match=r"INPUT_NOT_FOUND: There is no calibration x\.npz"):
        read_calibration(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"class_names": ("a", "b", "c")}, id="other classes"),
        pytest.param({"ood_precision": np.ones((2, 3), dtype=np.float32)}, id="no square"),
        pytest.param({"temperature": 0.0}, id="no temperature"),
        pytest.param({"ood_limit": float("nan")}, id="not a number"),
        pytest.param({"conformal_quantiles": (0.83,)}, id="a quantile missing"),
        pytest.param({"conformal_quantiles": (0.83, float("nan"))}, id="a quantile that is no number"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path, calibration, change):
    path = tmp_path / "calibration.npz"
    path.write_bytes(calibration_bytes(replace(calibration, **change)))
    with pytest.raises(InputRefused, match=r"INPUT_UNREADABLE: calibration\.npz is no calibration"):
        read_calibration(path)


@pytest.mark.parametrize("damage", ["text", "half", "lacking", "pickle"])
def test_a_damaged_file_is_refused(tmp_path, calibration, damage):
    path, content = tmp_path / "calibration.npz", calibration_bytes(calibration)
    if damage == "text":
        path.write_text("temperature: 1.3")
    elif damage == "half":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "lacking":
        np.savez(path, temperature=1.0)
    else:
        parts = dict(np.load(io.BytesIO(content)))
        np.savez(path, **{**parts, "class_names": np.array(["a", {}], dtype=object)})
    with pytest.raises(InputRefused, match="INPUT_UNREADABLE"):
        read_calibration(path)
