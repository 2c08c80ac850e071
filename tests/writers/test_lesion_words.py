"""A lesion result in words: full names, probabilities without false certainty, and why there is no label."""

import pytest

from shared_nets.writers.lesion_words import (
    CLASS_CONCEPTS,
    CLASS_NAMES,
    class_in_words,
    label_in_words,
    probability_in_digits,
    probability_in_words,
)
from shared_nets.writers.result_words import result_in_one_line, result_in_words
from tests.writers.lesion_results import abstaining_result, lesion_result, uncalibrated_result


@pytest.mark.parametrize(
    ("probability", "words", "digits"),
    [
        (0.0, "less than 0.01", "< 0.01"),
        (0.00499, "less than 0.01", "< 0.01"),
        (0.005, "0.01", "0.01"),
        (0.2345, "0.23", "0.23"),
        (0.9949, "0.99", "0.99"),
        (0.995, "more than 0.99", "> 0.99"),
        (1.0, "more than 0.99", "> 0.99"),
    ],
)
def test_no_probability_is_written_as_nothing_or_as_certainty(probability, words, digits):
    assert probability_in_words(probability) == words
    assert probability_in_digits(probability) == digits


def test_classes_have_full_names_and_unknown_ones_keep_theirs():
    assert class_in_words("akiec") == "actinic keratosis / Bowen's disease"
    assert class_in_words("squamous_cell") == "squamous cell"
    assert label_in_words(lesion_result()) == "Melanocytic naevus"
    assert label_in_words(abstaining_result()) == "No label given"
    assert set(CLASS_CONCEPTS) <= set(CLASS_NAMES)


def test_a_result_says_class_malignancy_and_set():
    assert result_in_words(lesion_result()) == (
        "Most probable class melanocytic naevus (probability 0.65). The model gives 0.26 that this lesion is "
        "of a malignant class (melanoma, basal cell carcinoma, actinic keratosis / Bowen's disease). "
        "Prediction set, made to hold the class of 90% of the lesions of each class, where they are like "
        "those of the calibration: melanocytic naevus, melanoma."
    )


def test_a_result_without_a_label_says_why_first():
    words = result_in_words(abstaining_result())
    assert words.startswith("No label given. The image is unlike those that the model learned from")
    assert "The model gives 0.26" in words


def test_a_set_without_calibration_promises_nothing():
    assert result_in_words(uncalibrated_result()).endswith(
        "Prediction set, not calibrated: melanocytic naevus."
    )


def test_a_line_of_the_log_holds_label_codes_and_set():
    assert result_in_one_line(lesion_result()) == "Melanocytic naevus; malignant class 0.26, set: nv, mel"
    assert result_in_one_line(abstaining_result()) == (
        "No label given, ABSTAIN_OUT_OF_DISTRIBUTION; malignant class 0.26, set: nv"
    )


@pytest.mark.parametrize("words", [result_in_words, result_in_one_line])
def test_what_is_no_result_has_no_words(words):
    with pytest.raises(TypeError, match="must be of a kind that has words, got str"):
        words("nv")
