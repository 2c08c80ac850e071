"""All benchmarks run, and one that fails is neither hidden nor stops the others."""

from __future__ import annotations

import pytest

from tools import bench


@pytest.fixture
def tools_folder(tmp_path, monkeypatch):
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "bench_fast.py").write_text(
        'import sys\nprint("fast with", sys.argv[1:] or "nothing")  # "--quick"\n'
    )
    (folder / "bench_broken.py").write_text("raise SystemExit(5)\n")
    (folder / "demo.py").write_text("raise SystemExit('no benchmark')\n")
    monkeypatch.setattr(bench, "_TOOLS", folder)
    monkeypatch.setattr(bench, "find_benchmarks", lambda find=bench.find_benchmarks: find(folder))
    return folder


def test_every_benchmark_runs_and_the_summary_names_the_one_that_failed(tools_folder, capfd):
    assert bench.main([]) == 1
    said = capfd.readouterr().out
    assert "fast with nothing" in said
    assert "broken       failed with exit status 5, 0 s" in said
    assert "fast         ran, 0 s" in said
    assert "no benchmark" not in said


def test_quick_is_passed_on_to_a_benchmark_that_knows_it(tools_folder, capfd):
    assert bench.main(["--quick", "fast"]) == 0
    assert "fast with ['--quick']" in capfd.readouterr().out


def test_unknown_benchmark_is_refused(tools_folder, capsys):
    with pytest.raises(SystemExit):
        bench.main(["slow"])
    assert "NAME must be one of broken, fast, got slow." in capsys.readouterr().err
