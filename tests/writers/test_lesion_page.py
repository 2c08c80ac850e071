"""The page of a lesion: label or abstention first, every number, and no word that claims more."""

import html
import re

import pytest

from shared_nets.types import RESEARCH_USE_ONLY, Finding
from shared_nets.writers.result_page import result_page
from tests.writers.lesion_results import abstaining_result, lesion_result, uncalibrated_result

FORBIDDEN = re.compile(r"diagnos|patient has|suffers|healthy|harmless|\bsafe\b|cancer[- ]free", re.IGNORECASE)


def text_of(result) -> str:
    """The words of a page, with a space for every tag."""
    page = result_page(result, picture_png=None).decode()
    body = page[page.index("<body>") :].replace("<wbr>", "")
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def test_the_page_says_label_malignancy_set_and_likeness():
    text = text_of(lesion_result())
    for words in (
        "Skin lesion · mole_1 Most probable class Melanocytic naevus Probability of this class: 0.65.",
        "The model gives 0.26 that this lesion is of a malignant class (melanoma, basal cell carcinoma, "
        "actinic keratosis / Bowen's disease).",
        "Warnings The photograph has few pixels. IMAGE_SMALL",
        "melanoma malignant class, in the prediction set 0.20",
        "dermatofibroma < 0.01",
        "where they are like those of the calibration: melanocytic naevus, melanoma.",
        "not unlike those that the model learned from: its distance is 14.2, the limit 60.5.",
        "age 55 a age",
        "Missing (1): site.",
        "Of lesions like those in the validation split of DermaMNIST",
        "EXIF_TURNED",
        "temperature 1.25",
    ):
        assert words in text, words


def test_without_a_label_the_page_says_so_and_why_before_anything_else():
    text = text_of(abstaining_result())
    assert "The model abstains No label given The model gives 0.26" in text
    assert "Why no label is given The image is unlike those that the model learned from" in text
    assert text.index("ABSTAIN_OUT_OF_DISTRIBUTION") < text.index("IMAGE_SMALL")
    assert "The image is unlike those that the model learned from: its distance is 90.1" in text
    assert "Melanocytic naevus" not in text  # but in the table, in small letters
    assert "melanocytic naevus in the prediction set 0.65" in text


def test_without_a_calibration_nothing_is_promised():
    text = text_of(uncalibrated_result())
    assert "Prediction set, not calibrated: melanocytic naevus." in text
    assert "Likeness to the training images Not checked." in text
    assert "The photograph alone" in text


@pytest.mark.parametrize("make", [lesion_result, abstaining_result, uncalibrated_result])
def test_no_word_claims_a_diagnosis(make):
    text = text_of(make()).replace(RESEARCH_USE_ONLY, "")
    assert FORBIDDEN.findall(text) == []


def test_bars_are_as_long_as_the_probabilities_and_the_most_probable_is_bold():
    page = result_page(lesion_result(), picture_png=None).decode()
    bars = re.findall(r'class="bar" style="width:([\d.]+)%"', page)
    assert bars == ["2.1", "3.4", "9.0", "0.2", "20.1", "64.8", "0.4"]
    assert re.findall(r'<tr class="chosen"><th scope="row">([^<]+)<', page) == ["melanocytic naevus"]


def test_texts_stay_texts_and_the_picture_is_described():
    evil = "<script>x</script>"
    result = lesion_result(
        class_probabilities={evil: 0.6, "mel": 0.4},
        label=evil,
        malignant_classes=("mel",),
        prediction_set=(evil,),
        metadata_used={evil: {"value": evil, "unit": None, "source": evil}},
        abstentions=(Finding(code="ABSTAIN_X", message=evil),),
    )
    page = result_page(result, picture_png=b"x").decode()
    assert "<script" not in page
    (alternative,) = re.findall(r'alt="([^"]*)"', page)
    assert alternative.startswith("The photograph; beside it where covering a place lowers the probability")
