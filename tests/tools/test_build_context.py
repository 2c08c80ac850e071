"""The tool that makes a context file out of a site's table."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from shared_nets.nets.tabpfn_context import ClinicalContext, id_digest
from tools.build_context import main

ROWS = ["id,age,is_female,ln_creatinine", "a,60,1,0.1", "b,,0,0.4", "c,71,0,", "d,45,1,-0.2", "e,50,nan,0.0"]


def _run(folder: Path, lines: list[str], *more: str) -> int:
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    required = ("--target", "ln_creatinine", "--id", "id", "--origin", "made up", "--licence", "CC0-1.0")
    files = ("--features", str(folder / "table.csv"), "--output", str(folder / "context.npz"))
    return main([*files, *required, "--folds", "2", *more])


def test_a_table_becomes_a_context(tmp_path, capsys):
    (tmp_path / "schema.json").write_text("{}")
    assert _run(tmp_path, ROWS, "--schema", str(tmp_path / "schema.json")) == 0
    context = ClinicalContext.load(tmp_path / "context.npz")
    assert context.feature_names == ("age", "is_female")
    np.testing.assert_array_equal(context.features, [[60, 1], [np.nan, 0], [45, 1], [50, np.nan]])
    assert context.targets.tolist() == [0.1, 0.4, -0.2, 0.0]
    assert context.id_digests == tuple(id_digest(i) for i in "abde")
    assert np.bincount(context.folds).tolist() == [2, 2]
    assert (context.target_name, context.origin, context.licence) == ("ln_creatinine", "made up", "CC0-1.0")
    assert context.schema_sha256 == hashlib.sha256(b"{}").hexdigest()
    assert "4 rows, 2 features; 1 rows had no target" in capsys.readouterr().out


def test_folds_do_not_follow_the_targets(tmp_path):
    _run(tmp_path, ROWS)
    before = ClinicalContext.load(tmp_path / "context.npz").folds
    _run(tmp_path, [*ROWS[:1], "a,60,1,9.9", *ROWS[2:]])
    assert ClinicalContext.load(tmp_path / "context.npz").folds.tolist() == before.tolist()


def test_rows_of_one_group_share_a_fold(tmp_path):
    lines = ["id,age,ln_creatinine,person"] + [f"v{i},{40 + i},{0.1 * i},p{i // 2}" for i in range(8)]
    assert _run(tmp_path, lines, "--group", "person") == 0
    context = ClinicalContext.load(tmp_path / "context.npz")
    assert context.feature_names == ("age",)
    assert (context.folds[::2] == context.folds[1::2]).all()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param([*ROWS, "a,50,0,0.2"], "CLINICAL_BAD_VALUE.*repeats an id", id="repeated id"),
        pytest.param([*ROWS, "f,old,0,0.2"], "Line 7 holds no finite number in column age", id="word"),
        pytest.param([*ROWS, "f,inf,0,0.2"], "Line 7 holds no finite number in column age", id="infinite"),
        pytest.param(["id,age,creatinine", "a,1,2"], "must have the columns.*ln_creatinine", id="no target"),
        pytest.param(ROWS[:2], "has 1 people with a target, fewer than the 2 folds", id="too few"),
    ],
)
def test_a_faulty_table_is_refused_and_nothing_is_written(tmp_path, capsys, lines, message):
    assert _run(tmp_path, lines) == 3
    assert not (tmp_path / "context.npz").exists()
    error = capsys.readouterr().err
    assert re.search(message, error), error


def test_a_missing_table_is_refused(tmp_path, capsys):
    required = ["--target", "y", "--id", "id", "--origin", "o", "--licence", "l", "--output", "o.npz"]
    assert main(["--features", str(tmp_path / "absent.csv"), *required]) == 3
    assert "INPUT_NOT_FOUND" in capsys.readouterr().err
