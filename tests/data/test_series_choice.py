"""One series out of a study folder: the rule on plain facts, and on files."""

import copy
import itertools

import numpy as np
import pytest
from pydicom.config import disable_value_validation

from shared_nets.data.ct_reader import CTReader
from shared_nets.data.dicom_body_part import ABDOMEN_BODY_PARTS
from shared_nets.data.dicom_defects import write_defect
from shared_nets.data.dicom_synthetic import (
    SERIES_UID,
    enhanced_ct,
    synthetic_series,
    write_file,
    write_series,
)
from shared_nets.data.series_rule import SeriesFacts, choose_by_rule, kernel_kind
from shared_nets.refusals import InputRefused

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom.valuerep")

SLICES = 32  # at 2 mm they are 64 mm long


def facts(number, **values):
    usual = {
        "uid": f"1.2.{number}",
        "num_images": 100,
        "is_axial": True,
        "is_original": True,
        "kernel": "soft",
        "length_mm": 300.0,
        "slice_distance_mm": 3.0,
    }
    return SeriesFacts(number=number, **{**usual, **values})


@pytest.mark.parametrize(
    ("criterion", "worse"),
    [
        pytest.param("length", {"length_mm": 59.0, "num_images": 200}, id="timing of the contrast"),
        pytest.param("plane", {"is_axial": False, "length_mm": 400.0}, id="coronal"),
        pytest.param("origin", {"is_original": False, "length_mm": 400.0}, id="derived"),
        pytest.param("kernel", {"kernel": "sharp", "length_mm": 400.0}, id="lung kernel"),
        pytest.param("kernel", {"kernel": "unknown"}, id="unknown kernel"),
        pytest.param("coverage", {"length_mm": 269.0, "num_images": 200}, id="less than nine tenths"),
        pytest.param("slice distance", {"slice_distance_mm": 5.0}, id="thick"),
        pytest.param("slice distance", {"slice_distance_mm": 1.0, "num_images": 300}, id="thin"),
        pytest.param("slice distance", {"slice_distance_mm": 3.2}, id="just above 3 mm"),
        pytest.param("number of images", {"num_images": 99}, id="fewer images"),
        pytest.param("series number", {"number": 9}, id="higher number"),
        pytest.param("series number", {"number": None}, id="no number"),
    ],
)
def test_each_criterion_decides_when_all_before_it_are_equal(criterion, worse):
    good, bad = facts(4), facts(**{"number": 3, "uid": "1.2.3", **worse})
    choice = choose_by_rule([bad, good])
    assert choice.best is good
    assert choice.lost_by == {"1.2.3": criterion}


def test_the_uid_decides_between_series_that_share_everything():
    assert choose_by_rule([facts(4, uid="1.9"), facts(4, uid="1.10")]).best.uid == "1.10"


def test_nine_tenths_of_the_longest_of_the_same_kernel_are_enough():
    thorax_too = facts(2, kernel="sharp", length_mm=700.0)
    assert choose_by_rule([thorax_too, facts(3, length_mm=280.0), facts(4, length_mm=300.0)]).best.number == 3


def test_the_order_of_the_series_does_not_matter():
    series = [
        facts(2, kernel="sharp"),
        facts(3),
        facts(4),
        facts(5, slice_distance_mm=1.0),
        facts(6, is_axial=False),
    ]
    choices = [choose_by_rule(order) for order in itertools.permutations(series)]
    assert {choice.best.number for choice in choices} == {3}
    assert {choice.as_good for choice in choices} == {(series[2],)}


def test_only_series_that_nothing_clinical_tells_apart_are_as_good():
    phases = [facts(3), facts(4, num_images=98, length_mm=294.0), facts(5, length_mm=200.0)]
    choice = choose_by_rule(phases)
    assert choice.best is phases[0]
    assert choice.as_good == (phases[1],)


def test_no_series_and_two_with_one_uid_are_errors():
    for series in ([], [facts(3), facts(3)]):
        with pytest.raises(ValueError, match="series must be at least one, with different UIDs"):
            choose_by_rule(series)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "soft") for name in ("B30f", "B31s", "I31f", "Br40d", "Br38f", "Qr40", "B45f", "br36f_3")),
        *((name, "sharp") for name in ("B50f", "B70f", "Bl57f", "Br59d", "I70f", "U90u", "Hr68")),
        *((name, "unknown") for name in ("B46f", "Bv48", "", "QDS", "DETAIL", "CHST", "FC43", "UB")),
        *((name, "soft") for name in ("STANDARD", "soft", "FC08", "FC18", "FC01-H", "B", "C")),
        *(
            (name, "sharp")
            for name in ("LUNG", "BONE", "BONEPLUS", "EDGE", "FC30", "FC52", "FC86", "YC", "L")
        ),
    ],
)
def test_kernels_of_four_vendors_are_known(name, kind):
    assert kernel_kind(name) == kind


def one_series(number, *, slices=SLICES, **values):
    series = synthetic_series(slices)
    with disable_value_validation():
        for k, dataset in enumerate(series):
            dataset.SeriesInstanceUID, dataset.SeriesNumber = f"{SERIES_UID}.{number}", number
            dataset.SOPInstanceUID = f"{SERIES_UID}.{number}.{k}"
            for keyword, value in values.items():
                setattr(dataset, keyword, value)
    return series


def write_study(folder, *series):
    for number, datasets in enumerate(series):
        write_series(folder / f"folder{number}", datasets)
    return folder


def open_by_rule(folder):
    return CTReader(series_choice="rule").open(folder)


def codes(findings):
    return [finding.code for finding in findings]


def test_a_study_of_many_series_gives_the_soft_axial_one_and_says_why(tmp_path):
    coronal = one_series(7)
    for k, dataset in enumerate(coronal):
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        dataset.ImagePositionPatient = [-12, -9 + 2 * k, 100]
    timing = one_series(8, slices=6)
    lung, derived = one_series(2, ConvolutionKernel="B70f"), one_series(5, ImageType=["DERIVED", "SECONDARY"])
    write_study(tmp_path / "study", lung, one_series(4), derived, coronal, timing)
    series = open_by_rule(tmp_path / "study")
    assert series.series_uid == f"{SERIES_UID}.4"
    assert [(finding.code, finding.message) for finding in series.repairs] == [
        (
            "SERIES_CHOSEN",
            "Chosen by rule out of 4: series 4 (32 images), 64 mm long, a slice every 2.0 mm, kernel for "
            "soft tissue; by length over series 8 (6 images); by plane over series 7 (32 images); by kernel "
            "over series 2 (32 images).",
        ),
        ("SERIES_DROPPED", "Left out: series 5 (32 images): derived images."),
    ]
    assert series.warnings == ()


def test_two_phases_of_the_same_geometry_are_chosen_by_number_with_a_warning(tmp_path):
    write_study(tmp_path / "study", one_series(6), one_series(5, ContrastBolusAgent="venous"))
    series = open_by_rule(tmp_path / "study")
    assert series.series_uid == f"{SERIES_UID}.5"
    assert codes(series.repairs) == ["SERIES_CHOSEN"]
    assert codes(series.warnings) == ["SERIES_CHOICE_ARBITRARY"]
    assert "series 5 (32 images) from series 6 (32 images)" in series.warnings[0].message
    assert "venous" not in str(series.warnings)


def test_the_rule_chooses_nothing_unless_it_is_asked(tmp_path):
    write_study(tmp_path / "study", one_series(5, slices=2), one_series(6, slices=2))
    with pytest.raises(InputRefused, match="SERIES_AMBIGUOUS: 2 series could be meant"):
        CTReader().open(tmp_path / "study")


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_the_rule_does_not_choose_between_people_or_studies(keyword, tmp_path):
    write_study(tmp_path / "study", one_series(5, slices=2), one_series(6, slices=2, **{keyword: "1.2.3"}))
    with pytest.raises(InputRefused, match="SERIES_AMBIGUOUS: 2 series of 2 studies"):
        open_by_rule(tmp_path / "study")


def test_a_named_series_comes_before_the_rule(tmp_path):
    write_study(tmp_path / "study", one_series(5, slices=2), one_series(6, slices=2))
    series = CTReader(series_choice="rule", series_uid=f"{SERIES_UID}.6").open(tmp_path / "study")
    assert series.series_uid == f"{SERIES_UID}.6"
    assert codes(series.repairs) == ["SERIES_DROPPED"]


def test_one_series_alone_needs_no_rule(tmp_path):
    write_defect("sound", tmp_path / "ct")
    assert open_by_rule(tmp_path / "ct").repairs == ()


def test_an_enhanced_file_is_weighed_by_its_frames(tmp_path):
    enhanced = enhanced_ct(SLICES)
    enhanced.SeriesInstanceUID, enhanced.SeriesNumber = f"{SERIES_UID}.9", 9
    enhanced.ConvolutionKernel = "B30f"
    write_study(tmp_path / "study", one_series(2, ConvolutionKernel="B70f"))
    write_file(tmp_path / "study" / "enhanced.dcm", enhanced)
    series = open_by_rule(tmp_path / "study")
    assert series.series_uid == f"{SERIES_UID}.9"
    assert "64 mm long, a slice every 2.0 mm" in series.repairs[0].message


def test_a_series_without_positions_loses_to_one_with_positions(tmp_path):
    lost = one_series(1, slices=4)
    for dataset in lost:
        del dataset.ImagePositionPatient
    write_study(tmp_path / "study", lost, one_series(2, slices=2))
    assert open_by_rule(tmp_path / "study").series_uid == f"{SERIES_UID}.2"


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        pytest.param(
            {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"]}, "SERIES_DERIVED", id="mip"
        ),
        pytest.param(
            {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "MAXIMUM"]}, "SERIES_DERIVED", id="maximum"
        ),
        pytest.param(
            {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]}, "PIXEL_NOT_HU", id="iodine"
        ),
        pytest.param(
            {"ImageType": ["DERIVED", "SECONDARY", "SUBTRACTION"]}, "PIXEL_NOT_HU", id="subtraction"
        ),
    ],
)
def test_projections_and_maps_are_refused_alone_and_left_out_beside_others(values, refused, tmp_path):
    write_study(tmp_path / "alone", one_series(3, slices=2, **values))
    with pytest.raises(InputRefused, match=refused):
        CTReader().open(tmp_path / "alone")
    write_study(
        tmp_path / "study",
        one_series(3, slices=2, **values),
        one_series(4, slices=2, ImageType=["DERIVED", "PRIMARY"]),
    )
    series = CTReader().open(tmp_path / "study")
    assert series.series_uid == f"{SERIES_UID}.4"
    assert series.repairs[0].message == "Left out: series 3 (2 images): projections or maps."


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        pytest.param({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "SERIES_DERIVED", id="reformatted"),
        pytest.param({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "VMI"]}, "SERIES_DUAL_ENERGY", id="vmi"),
        pytest.param({"ImageType": ["DERIVED", "PRIMARY", "VNC"]}, "SERIES_DUAL_ENERGY", id="no contrast"),
        pytest.param({"RescaleType": "US"}, "PIXEL_NOT_HU", id="unspecified values"),
        pytest.param({"ManufacturerModelName": "On-Board Imager"}, "CONE_BEAM", id="cone beam"),
        pytest.param({"SeriesDescription": "AC CT 5.0"}, "CT_FOR_ATTENUATION", id="attenuation correction"),
        pytest.param({"ProtocolName": "PET_CTAC Miller"}, "CT_FOR_ATTENUATION", id="protocol of PET"),
        pytest.param({"ProtocolName": "THORACTION"}, None, id="part of a longer word"),
        pytest.param({"ManufacturerModelName": "SOMATOM Force"}, None, id="ordinary scanner"),
    ],
)
def test_kinds_that_can_be_used_are_warned_of(values, warned, tmp_path):
    write_series(tmp_path / "ct", one_series(3, slices=2, **values))
    series = CTReader().open(tmp_path / "ct")
    assert codes(series.warnings) == ([warned] if warned else [])
    assert "Miller" not in str(series)


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        pytest.param({"ProtocolName": "01_HEAD_ROUTINE Miller"}, True, id="protocol of a head"),
        pytest.param({"SeriesDescription": "Brain 5.0"}, True, id="series of a brain"),
        pytest.param({"ProtocolName": "HEAD TO THIGH"}, False, id="whole body"),
        pytest.param({"ProtocolName": "Head and abdomen"}, False, id="the abdomen too"),
        pytest.param({"ProtocolName": "Overhead"}, False, id="part of a word"),
        pytest.param({"ProtocolName": "HEAD", "BodyPartExamined": "ABDOMEN"}, False, id="the tag is set"),
    ],
)
def test_free_text_warns_only_where_the_body_part_is_empty_and_is_not_repeated(values, warned, tmp_path):
    write_series(tmp_path / "ct", one_series(3, slices=2, **{"BodyPartExamined": "", **values}))
    series = CTReader(body_parts=("ABD",)).open(tmp_path / "ct")
    assert codes(series.warnings) == (["WRONG_BODY_PART"] if warned else [])
    assert "Miller" not in str(series.warnings)


@pytest.mark.parametrize("part", ["HEAD NECK", "TEMPORAL BONE", "lower extremity", "CSPINE"])
def test_far_parts_of_the_body_are_refused_however_they_are_written(part, tmp_path):
    write_series(tmp_path / "ct", one_series(3, slices=2, BodyPartExamined=part))
    with pytest.raises(InputRefused, match="WRONG_BODY_PART"):
        CTReader(body_parts=("ABD",)).open(tmp_path / "ct")


@pytest.mark.parametrize(
    ("part", "warned"),
    [
        *(
            (part, False)
            for part in ("ABDOMENPELVIS", "CHESTABDPELVIS", "Kidney", "WHOLEBODY", "TLSPINE", "")
        ),
        *((part, True) for part in ("CHEST", "PELVIS", "HEART", "HIP")),
    ],
)
def test_parts_of_the_trunk_without_kidneys_are_warned_of_and_not_refused(part, warned, tmp_path):
    write_series(tmp_path / "ct", one_series(3, slices=2, BodyPartExamined=part))
    series = CTReader(body_parts=ABDOMEN_BODY_PARTS).open(tmp_path / "ct")
    assert codes(series.warnings) == (["WRONG_BODY_PART"] if warned else [])


def test_choosing_does_not_change_the_pixels(tmp_path):
    soft = one_series(4)
    write_study(tmp_path / "study", one_series(2, ConvolutionKernel="B70f"), copy.deepcopy(soft))
    write_series(tmp_path / "alone", soft)
    reader = CTReader(series_choice="rule")
    both = [reader.get_data(reader.open(tmp_path / name))[0] for name in ("study", "alone")]
    assert np.array_equal(*both)
