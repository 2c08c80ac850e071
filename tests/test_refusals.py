"""The one exception of bad input: its code, its words, its way through a worker process."""

import pickle
import re

import pytest

from shared_nets.refusals import CODES, EXIT_STATUS_REFUSED, InputRefused


def test_a_refusal_says_code_problem_and_remedy():
    refusal = InputRefused("MASK_EMPTY", "The mask shows no kidney.", "Check the label set.")
    assert str(refusal) == "MASK_EMPTY: The mask shows no kidney. Check the label set."
    assert refusal.as_dict() == {
        "code": "MASK_EMPTY",
        "message": "The mask shows no kidney.",
        "remedy": "Check the label set.",
    }


def test_a_code_outside_the_table_is_refused_itself():
    with pytest.raises(KeyError, match=r"code must be one of shared_nets\.refusals\.CODES, got 'MASK_ODD'"):
        InputRefused("MASK_ODD", "message", "remedy")


def test_a_refusal_survives_the_way_out_of_a_worker_process():
    refusal = pickle.loads(pickle.dumps(InputRefused("INPUT_EMPTY", "Nothing.", "Add something.")))
    assert refusal.as_dict() == {"code": "INPUT_EMPTY", "message": "Nothing.", "remedy": "Add something."}


def test_codes_are_words_that_the_schema_of_refusals_allows():
    assert [code for code in CODES if not re.fullmatch(r"[A-Z][A-Z0-9_]+", code)] == []
    assert all(CODES.values())


def test_the_exit_status_of_a_refusal_is_three():
    assert EXIT_STATUS_REFUSED == 3
