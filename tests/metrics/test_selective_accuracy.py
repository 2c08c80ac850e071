"""The confidence to abstain below, by hand."""

from __future__ import annotations

import pytest

from shared_nets.metrics.selective_accuracy import confidence_for_accuracy

CONFIDENCE = [0.5, 0.9, 0.8, 0.7, 0.6]
IS_RIGHT = [False, True, True, False, True]


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        pytest.param(1.0, 0.8, id="2 of 2"),
        pytest.param(0.75, 0.6, id="3 of 4, though 2 of 3 before it is less"),
        pytest.param(0.6, 0.5, id="3 of 5: nobody abstains"),
    ],
)
def test_the_largest_set_that_is_right_often_enough_keeps_its_answers(accuracy, expected):
    assert confidence_for_accuracy(CONFIDENCE, IS_RIGHT, accuracy=accuracy, min_kept=1) == expected


def test_equal_confidences_keep_or_lose_their_answers_together():
    # 0.8 twice, right and wrong: with both it is 2 of 3
    found = confidence_for_accuracy([0.9, 0.8, 0.8], [True, True, False], accuracy=0.9, min_kept=1)
    assert found == 0.9


def test_a_lucky_few_do_not_set_the_limit():
    with pytest.raises(ValueError, match=r"by at least 3 of the images, got none at 0\.9"):
        confidence_for_accuracy(CONFIDENCE, IS_RIGHT, accuracy=0.9, min_kept=3)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"is_right must have the shape of confidence \(2,\), got \(1,\)"):
        confidence_for_accuracy([0.1, 0.2], [True], accuracy=0.9)
