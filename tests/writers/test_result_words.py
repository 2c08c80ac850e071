"""A result in words: units that people know, estimates called estimates, sizes by name."""

import pytest

from shared_nets.transforms.ckd_epi import STAGE_LOWER_BOUNDS, STAGES
from shared_nets.types import Estimate
from shared_nets.writers.result_words import (
    STAGE_RANGES,
    estimate_in_words,
    kidney_measures,
    result_in_words,
    unit_in_words,
)


def test_the_ranges_of_the_stages_are_those_of_the_equations():
    assert tuple(STAGE_RANGES) == STAGES
    first = [int(words.strip("≥ ").split("–")[0]) for words in list(STAGE_RANGES.values())[:-1]]
    assert tuple(float(number) for number in first) == STAGE_LOWER_BOUNDS[:-1]
    last = [int(words.split("–")[1]) + 1 for words in list(STAGE_RANGES.values())[1:-1]]
    assert tuple(float(number) for number in last) == STAGE_LOWER_BOUNDS[:-2]
    assert STAGE_RANGES["G5"] == "< 15"


@pytest.mark.parametrize(
    ("unit", "words"),
    [("mL/min/{1.73_m2}", "mL/min/1.73 m²"), ("[hnsf'U]", "HU"), ("mg/dL", "mg/dL"), ("1", "")],
)
def test_a_unit_is_written_as_people_write_it(unit, words):
    assert unit_in_words(unit) == words


def test_an_estimate_is_written_with_unit_and_interval():
    estimate = Estimate(value=1.174, low=0.9133, high=1.6715, level=0.9, unit="mg/dL")
    assert estimate_in_words(estimate, digits=2) == "1.17 mg/dL (90% interval 0.91 to 1.67)"


def test_a_ckd_result_is_one_sentence_that_says_estimated(make_result):
    assert result_in_words(make_result()) == (
        "Estimated KDIGO GFR category G3a (probability 50%); eGFR 54 mL/min/1.73 m² (90% interval 36 to 82); "
        "creatinine, estimated, 1.35 mg/dL (90% interval 0.95 to 1.90)."
    )
    assert result_in_words(make_result(creatinine=None, egfr=None)) == (
        "Estimated KDIGO GFR category G3a (probability 50%)."
    )


def test_a_kidney_result_is_one_sentence_that_says_what_is_cut_off_or_missing(make_kidney_result):
    assert result_in_words(make_kidney_result()) == (
        "Kidney volumes: right 151 mL; left 163 mL, cut off by the edge of the scan; together 315 mL."
    )
    none = make_kidney_result(kidneys={}, total_volume_ml=0.0)
    assert result_in_words(none) == "No kidney was found."
    assert kidney_measures(none) == ()


def test_the_name_of_a_size_says_side_tissue_quantity_and_unit(make_result):
    sizes = {"right_kidney_length_mm": 108.0, "kidney_volume_ml": 290.0, "tumour_volume_ml": 4.0}
    found = [
        (m.name, m.side, m.tissue, m.quantity, m.value, m.unit, m.words)
        for m in kidney_measures(make_result(kidney_measurements=sizes))
    ]
    assert found == [
        ("right-kidney-length", "right", "kidney", "length", 108.0, "mm", "Right kidney length"),
        ("kidney-volume", None, "kidney", "volume", 290.0, "mL", "Kidney volume"),
        ("tumour-volume", None, "tumour", "volume", 4.0, "mL", "Tumour volume"),
    ]


def test_a_tumour_of_no_size_is_left_out_and_a_kidney_of_no_size_is_not(make_result):
    sizes = {"tumour_volume_ml": 0.0, "cyst_volume_ml": 0.0, "left_kidney_volume_ml": 0.0}
    found = [measure.name for measure in kidney_measures(make_result(kidney_measurements=sizes))]
    assert found == ["left-kidney-volume"]


def test_a_size_without_a_unit_in_its_name_is_an_error(make_result):
    with pytest.raises(ValueError, match="must end in one of"):
        kidney_measures(make_result(kidney_measurements={"kidney_count": 2.0}))
