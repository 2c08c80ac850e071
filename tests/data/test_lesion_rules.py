"""The synthetic task: its rules, and that neither photograph nor person gives the answer away."""

import numpy as np
import pytest

from shared_nets.data.ham10000 import CLASS_NAMES
from shared_nets.data.lesion_rules import (
    AGE_COUNTS,
    SEX_COUNTS,
    SITE_COUNTS,
    SUNNY_SITES,
    draw_lesion_task,
    is_excised,
)
from shared_nets.transforms.lesion_metadata import parse_lesion_metadata
from shared_nets.transforms.lesion_schema import lesion_schema

NAEVUS, MELANOMA, KERATOSIS = (CLASS_NAMES.index(name) for name in ("nv", "mel", "bkl"))


def everyone(label, number=4000, **options):
    return draw_lesion_task(np.full(number, label), **{"seed": 0, **options})


@pytest.mark.parametrize(
    ("diagnosis", "age_years", "site", "answer"),
    [
        pytest.param("mel", 20, "back", True, id="melanoma of the young"),
        pytest.param("bcc", 20, "foot", True, id="carcinoma"),
        pytest.param("akiec", 85, "abdomen", True, id="actinic keratosis"),
        pytest.param("nv", 60, "face", True, id="naevus, just old enough, in the sun"),
        pytest.param("nv", 59, "face", False, id="naevus, not old enough"),
        pytest.param("nv", 85, "back", False, id="naevus, old, in the shade"),
        pytest.param("bkl", 85, "face", False, id="benign keratosis in the same place"),
        pytest.param("df", 85, "face", False, id="dermatofibroma"),
        pytest.param("vasc", 85, "face", False, id="vascular lesion"),
    ],
)
def test_the_rules_answer_as_their_sentences_say(diagnosis, age_years, site, answer):
    assert is_excised(diagnosis, age_years=age_years, site=site) is answer


def test_the_counts_add_up_to_the_images_of_ham10000_that_have_each_value():
    assert sum(AGE_COUNTS.values()) == 10_015 - 57
    assert sum(SEX_COUNTS.values()) == 10_015 - 57
    assert sum(SITE_COUNTS.values()) == 10_015 - 234
    mean_age = sum(age * count for age, count in AGE_COUNTS.items()) / sum(AGE_COUNTS.values())
    assert mean_age == pytest.approx(51.86, abs=0.01)  # as published beside the table


def test_people_do_not_depend_on_the_diagnosis():
    assert everyone(NAEVUS).clinical == everyone(MELANOMA).clinical


def test_answers_depend_on_the_person_for_naevi_only():
    assert everyone(MELANOMA, turned_share=0.0).target.all()
    assert not everyone(KERATOSIS, turned_share=0.0).target.any()
    old, sunny = 3602 / 9958, 2305 / 9781  # from 60 on; face to hand
    share = everyone(NAEVUS, turned_share=0.0).target.mean()
    assert share == pytest.approx(old * sunny, abs=3 * (old * sunny / 4000) ** 0.5)


def test_answers_follow_from_what_people_are_even_where_it_is_withheld():
    silent = everyone(NAEVUS, withheld_share=1.0)
    assert silent.clinical == [{}] * 4000
    told = everyone(NAEVUS, withheld_share=0.0)
    by_hand = [p["age"] >= 60 and p["localization"] in SUNNY_SITES for p in told.clinical]
    assert told.by_rule.tolist() == by_hand == silent.by_rule.tolist()


def test_the_given_shares_are_turned_and_withheld():
    task = everyone(MELANOMA, turned_share=0.25, withheld_share=0.5)
    assert np.mean(task.target != task.by_rule) == pytest.approx(0.25, abs=0.02)
    for name in ("age", "sex", "localization"):
        assert np.mean([name in person for person in task.clinical]) == pytest.approx(0.5, abs=0.025)


def test_a_seed_draws_the_same_task_and_another_one_another():
    again = everyone(NAEVUS)
    assert again.clinical == everyone(NAEVUS).clinical
    assert np.array_equal(again.target, everyone(NAEVUS).target)
    assert again.clinical != everyone(NAEVUS, seed=1).clinical


def test_the_schema_of_clinics_tells_apart_what_the_rules_need():
    schema = lesion_schema("dermoscopy_clinic")
    sites = {
        site: parse_lesion_metadata({"localization": site}, schema).used["anatomical_site"]
        for site in SITE_COUNTS
    }
    sunny = {sites[site] for site in SUNNY_SITES}
    assert None not in sites.values()
    assert sunny == {"head/neck", "upper extremity"}
    assert sunny.isdisjoint(sites[site] for site in SITE_COUNTS if site not in SUNNY_SITES)


@pytest.mark.parametrize(
    "options",
    [pytest.param({"turned_share": 1.5}, id="turned"), pytest.param({"withheld_share": -0.1}, id="withheld")],
)
def test_a_share_that_is_none_is_refused(options):
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        everyone(NAEVUS, **options)


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="diagnosis must be one of"):
        is_excised("melanoma", age_years=50, site="back")
    with pytest.raises(ValueError, match="site must be one of"):
        is_excised("mel", age_years=50, site="unknown")
