"""Sex, age band and site as the data sets tell them."""

from __future__ import annotations

import pytest

from shared_nets.data.lesion_subgroups import lesion_subgroup


@pytest.mark.parametrize(
    ("age", "band"),
    [(0.0, "under 40"), (39.9, "under 40"), (40.0, "40 to 59"), (60.0, "60 or more"), (85.0, "60 or more")],
)
def test_an_age_belongs_to_one_band(age, band):
    assert lesion_subgroup(sex=None, age_years=age, site=None) == {"age_band": band}


def test_words_are_compared_in_lower_case():
    assert lesion_subgroup(sex=" Female", age_years=None, site="Lower extremity ") == {
        "sex": "female", "site": "lower extremity",
    }  # fmt: skip


@pytest.mark.parametrize(
    "known", [{"sex": "unknown", "site": "unknown"}, {"sex": "", "site": ""}, {"sex": "x", "site": None}]
)
def test_what_nobody_knows_is_left_out(known):
    assert lesion_subgroup(age_years=float("nan"), **known) == {}
