"""A lesion result: numbers by hand, every reason to give no label, and what happens without a calibration."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from shared_nets.transforms.lesion_result import LesionResultd
from shared_nets.types import Finding, LesionCalibration

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MALIGNANT = ("mel", "bcc", "akiec")
#: Probabilities 0.0625, 0.125, 0.0625, 0, 0.25, 0.5, 0 (nearly) at the temperature 2.
LOGITS = 2.0 * torch.tensor([0.0625, 0.125, 0.0625, 1e-12, 0.25, 0.5, 1e-12]).log()
CALIBRATION = LesionCalibration(
    temperature=2.0,
    conformal_quantiles=(0.75,) * 7,
    coverage=0.9,
    num_calibration=1003,
    ood_means=np.array([[0.0, 0.0]] * 6 + [[10.0, 0.0]], dtype=np.float32),
    ood_precision=np.diag([1.0, 4.0]).astype(np.float32),
    ood_limit=9.0,
    min_confidence=0.4,
    class_names=CLASSES,
)
BLURRED = Finding(code="IMAGE_BLURRED", message="The image is blurred.")
NOISY = Finding(code="IMAGE_NOISY", message="The image is noisy.")


@pytest.fixture
def build():
    """Give ``build(item=None, calibration=CALIBRATION, **options) -> dict``, the item with its result."""

    def make(item=None, *, calibration=CALIBRATION, **options):
        options = {"class_names": CLASSES, "malignant_classes": MALIGNANT, **options}
        given = {"study_id": "s1", "pred": LOGITS, "embedding": torch.zeros(2), **(item or {})}
        return LesionResultd(calibration=calibration, **options)(given)

    return make


def codes(findings) -> list[str]:
    return [finding.code for finding in findings]


def test_a_sure_answer_has_label_probabilities_set_and_malignancy(build):
    result = build()["result"]
    assert result.label == "nv"
    expected = [0.0625, 0.125, 0.0625, 0.0, 0.25, 0.5, 0.0]
    assert list(result.class_probabilities) == list(CLASSES)
    assert list(result.class_probabilities.values()) == pytest.approx(expected, abs=1e-6)
    assert sum(result.class_probabilities.values()) == pytest.approx(1.0, abs=1e-12)
    assert result.malignancy == pytest.approx(0.4375, abs=1e-6)  # 0.25 + 0.125 + 0.0625
    assert result.malignant_classes == MALIGNANT
    assert result.prediction_set[0] == "nv"
    assert (result.coverage, result.ood_score, result.ood_limit) == (0.9, 0.0, 9.0)
    assert result.abstentions == result.warnings == ()


def test_the_set_holds_what_the_quantile_lets_in_falling_in_probability(build):
    wider = dataclasses.replace(CALIBRATION, conformal_quantiles=(0.9,) * 7)
    assert build(calibration=wider)["result"].prediction_set == ("nv", "mel", "bcc")


def test_each_class_comes_into_the_set_by_its_own_quantile(build):
    # scores 0.9375, 0.875, 0.9375, 1, 0.75, 0.5, 1: akiec and df are let in, melanoma just not
    own = dataclasses.replace(CALIBRATION, conformal_quantiles=(0.95, 0.5, 0.5, 1.0, 0.74, 0.6, 0.9))
    result = build(calibration=own)["result"]
    assert result.prediction_set == ("nv", "akiec", "df")
    assert "Every set holds df: there were too few images" in " ".join(result.statements)
    assert "Every set holds" not in " ".join(build()["result"].statements)


def test_an_unsure_answer_names_no_class_but_keeps_its_numbers(build):
    strict = dataclasses.replace(CALIBRATION, min_confidence=0.51)
    result = build(calibration=strict)["result"]
    assert result.label is None
    assert codes(result.abstentions) == ["ABSTAIN_LOW_CONFIDENCE"]
    assert "50.0% only" in result.abstentions[0].message
    assert "from 51.0% on" in result.abstentions[0].message
    assert result.class_probabilities["nv"] == pytest.approx(0.5, abs=1e-6)
    assert "nv" in result.prediction_set


@pytest.mark.parametrize(
    ("embedding", "score"),
    [
        pytest.param([10.0, 1.4], 7.84, id="near the last class"),  # 4 · 1.4²
        pytest.param([5.0, 0.0], 25.0, id="between classes"),
        pytest.param([3.0, 0.0], 9.0, id="on the limit"),
    ],
)
def test_an_image_unlike_the_training_images_names_no_class(build, embedding, score):
    result = build({"embedding": torch.tensor(embedding)})["result"]
    assert result.ood_score == pytest.approx(score, rel=1e-5)
    assert codes(result.abstentions) == (["ABSTAIN_OUT_OF_DISTRIBUTION"] if score > 9.0 else [])
    assert (result.label is None) is (score > 9.0)


def test_a_poor_image_names_no_class_and_says_what_is_wrong(build):
    result = build({"image_findings": (BLURRED, NOISY)})["result"]
    assert result.label is None
    assert codes(result.abstentions) == ["ABSTAIN_IMAGE_QUALITY"]
    assert result.abstentions[0].message == "The image is not good enough for a label: The image is blurred."
    assert codes(result.warnings) == ["IMAGE_BLURRED", "IMAGE_NOISY"]


def test_which_warnings_leave_no_label_standing_can_be_chosen(build):
    result = build({"image_findings": (BLURRED, NOISY)}, abstain_on=["IMAGE_NOISY"])["result"]
    assert result.abstentions[0].message.endswith("The image is noisy.")
    assert build({"image_findings": (BLURRED,)}, abstain_on=())["result"].label == "nv"


def test_warnings_of_the_reader_can_leave_no_label_standing(build):
    grey = {"code": "IMAGE_GREY", "message": "The image has no colour."}
    photo = MetaTensor(torch.zeros(3, 4, 4), meta={"warnings": [grey]})
    assert build({"photo": photo})["result"].label == "nv"
    result = build({"photo": photo}, abstain_on=["IMAGE_GREY"])["result"]
    assert (result.label, codes(result.warnings)) == (None, ["IMAGE_GREY"])


def test_all_reasons_are_given(build):
    strict = dataclasses.replace(CALIBRATION, min_confidence=0.99)
    item = {"embedding": torch.tensor([5.0, 0.0]), "image_findings": (BLURRED,)}
    assert codes(build(item, calibration=strict)["result"].abstentions) == [
        "ABSTAIN_LOW_CONFIDENCE",
        "ABSTAIN_OUT_OF_DISTRIBUTION",
        "ABSTAIN_IMAGE_QUALITY",
    ]


def test_without_a_calibration_the_numbers_are_the_networks_own_and_a_warning_says_so(build):
    result = build({"pred": LOGITS / 2}, calibration=None)["result"]
    assert result.class_probabilities["mel"] == pytest.approx(0.25, abs=1e-6)
    assert (result.label, result.prediction_set) == ("nv", ("nv",))
    assert (result.coverage, result.ood_score, result.ood_limit) == (None, None, None)
    assert codes(result.warnings) == ["CALIBRATION_MISSING"]


def test_without_an_embedding_nothing_is_said_of_the_distance(build):
    result = build({"embedding": None})["result"]
    assert (result.ood_score, result.ood_limit) == (None, None)
    assert codes(result.warnings) == ["OOD_NOT_CHECKED"]
    assert result.label == "nv"


def test_one_logit_is_the_malignant_class_of_two(build):
    result = build(
        {"pred": torch.tensor([math.log(3.0)])},
        calibration=None,
        class_names=("benign", "malignant"),
        malignant_classes=("malignant",),
    )["result"]
    assert result.class_probabilities == pytest.approx({"benign": 0.25, "malignant": 0.75})
    assert (result.label, result.malignancy) == ("malignant", pytest.approx(0.75))


def test_what_reader_gate_and_metadata_said_is_kept_apart(build):
    photo = MetaTensor(
        torch.zeros(3, 30, 40, dtype=torch.uint8),
        meta={
            "source": "dicom",
            "study_uid": "1.2.3",
            "series_uid": "1.2.3.4",
            "files": ["a.dcm"],
            "frame_numbers": [1],
            "repairs": ({"code": "EXIF_TURNED", "message": "Turned."},),
            "warnings": (Finding(code="READER_SAYS", message="Odd."),),
        },
    )
    age = {"age": {"value": 50.0, "unit": "a", "source": "age"}}
    data = build(
        {
            "photo": photo,
            "image_findings": (NOISY,),
            "metadata_findings": (Finding(code="SITE_UNKNOWN", message="Where?"),),
            "metadata_used": age,
            "metadata_missing": ("sex",),
        }
    )
    result = data["result"]
    assert codes(result.warnings) == ["READER_SAYS", "IMAGE_NOISY", "SITE_UNKNOWN"]
    assert codes(result.provenance.repairs) == ["EXIF_TURNED"]
    assert (result.metadata_used, result.metadata_missing) == (age, ("sex",))
    assert result.provenance.image["study_uid"] == "1.2.3"
    assert result.provenance.image["shape"] == [30, 40]
    assert data["source_image"].files == ("a.dcm",)
    assert data["source_image"].shape == (40, 30, 1)


def test_the_statement_says_whose_lesions_the_calibration_holds_for(build):
    options = {"calibrated_on": "the validation split of DermaMNIST", "statements": ("More.",)}
    statements = build(**options)["result"].statements
    assert (
        "of each class that are like those in the validation split of DermaMNIST (1003 images), about 90%"
        in (statements[2])
    )
    assert statements[-1] == "More."


def test_settings_other_than_those_of_the_calibration_are_warned_of(build):
    fitted = dataclasses.replace(
        CALIBRATION, made_with={"num_views": 1, "img_size": 28, "weights_sha256": "a"}
    )
    other = build(calibration=fitted, thresholds={"img_size": 28, "num_views": 8})["result"]
    assert codes(other.warnings) == ["CALIBRATION_OTHER_SETTINGS"]
    assert "(num_views 1, now 8)" in other.warnings[0].message
    assert build(calibration=fitted, thresholds={"img_size": 28, "num_views": 1})["result"].warnings == ()


def test_the_thresholds_of_the_calibration_stand_in_the_provenance(build):
    thresholds = build(thresholds={"img_size": 28})["result"].provenance.thresholds
    assert thresholds == {
        "img_size": 28,
        "temperature": 2.0,
        "coverage": 0.9,
        "num_calibration": 1003,
        "ood_limit": 9.0,
        "min_confidence": 0.4,
        **{f"conformal_quantile_{name}": 0.75 for name in CLASSES},
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"class_names": ("mel", "bcc", "akiec")}, "must be those of the calibration", id="other-classes"
        ),
        pytest.param({"malignant_classes": ("scc",)}, "must be some of class_names", id="unknown-class"),
        pytest.param({"malignant_classes": ()}, "must be some of class_names", id="none-malignant"),
        pytest.param({"class_names": ("nv", "nv")}, "two or more different names", id="twice"),
    ],
)
def test_classes_that_do_not_fit_are_an_error(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_logits_of_another_network_are_an_error(build):
    with pytest.raises(ValueError, match="a logit for each of 7 classes"):
        build({"pred": torch.zeros(6)})
    with pytest.raises(ValueError, match="logits must be finite"):
        build({"pred": torch.full((7,), math.nan)})


def test_a_benign_label_does_not_hide_that_a_malignant_class_is_in_the_set(build):
    wide = dataclasses.replace(CALIBRATION, conformal_quantiles=(0.76,) * 7)  # 1 - 0.25 for melanoma
    (warning,) = build(calibration=wide)["result"].warnings
    assert warning.code == "MALIGNANT_IN_SET"
    assert "mel cannot be left out" in warning.message
    narrow = dataclasses.replace(CALIBRATION, conformal_quantiles=(0.7,) * 7)
    assert build(calibration=narrow)["result"].warnings == ()
