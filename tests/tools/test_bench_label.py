"""The benchmark of MONAI Label runs to its end on a small series, and says what it measured."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from shared_nets.data.phantom import make_phantom, write_dicom_series
from tools import bench_label

pytestmark = pytest.mark.xdist_group("monailabel")


@pytest.mark.slow
def test_start_times_and_memory_are_measured_side_by_side(tmp_path, capsys):
    if find_spec("monailabel") is None:
        pytest.skip("MONAI Label is not installed: make label")
    phantom = make_phantom(right_ml=150.0, left_ml=130.0, shape=(48, 40, 24), spacing_mm=(5.0, 5.0, 5.0))
    write_dicom_series(phantom.hu, phantom.affine, tmp_path / "series")
    assert bench_label.main(["--quick", "--image", str(tmp_path / "series")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"start to /info: \d+\.\d s on the wall, \d+\.\d s of processor", said)
    for name in bench_label.REQUESTS:
        assert len(re.findall(rf"{name}.*\d ×", said)) == 2  # the first one, and the median
    assert re.search(r"peak memory: runtime \d+ MiB, MONAI Label \d+ MiB, [+-]\d+ MiB", said)


def test_without_monai_label_nothing_is_measured_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr(bench_label.importlib.util, "find_spec", lambda name: None)
    assert bench_label.main([]) == 0
    assert capsys.readouterr().out.startswith("MONAI Label is not installed")
