"""Synthetic bodies whose right answer is known, and the real scans at hand.

The synthetic ones are ellipses and shells of constant density plus noise, ``(X, Y, Z)`` at 3 mm; no patient.
"""

import nibabel as nib
import numpy as np
import pytest

from shared_nets.data.ct_reader import CTReader
from shared_nets.data.phantom import make_phantom
from shared_nets.transforms.abdomen_gate import AbdomenCheck, abdomen_findings, kidneys_or_refusal

MM = (3.0, 3.0, 3.0)
SHAPE = (128, 120, 100)


def codes(check: AbdomenCheck) -> list[str]:
    return [finding.code for finding in check.findings]


def refusal(check: AbdomenCheck) -> str | None:
    return check.refusal.code if check.refusal else None


def ellipsoid(centre_mm, semi_axes_mm, shape=SHAPE):
    grid = np.meshgrid(*(3.0 * (np.arange(n) - (n - 1) / 2) for n in shape), indexing="ij", sparse=True)
    return sum(((x - c) / a) ** 2 for x, c, a in zip(grid, centre_mm, semi_axes_mm, strict=True)) <= 1.0


def scan(*parts, shape=SHAPE, noise_hu=10.0):
    """Paint (mask, HU) one over the other, in air."""
    hu = np.full(shape, -1000.0, dtype=np.float32)
    for mask, value in parts:
        hu[mask] = value
    return hu + np.random.default_rng(0).normal(0.0, noise_hu, shape).astype(np.float32)


def abdomen(**arguments):
    """The phantom with kidneys, turned so that its indices grow to the right and to the front."""
    return make_phantom(**arguments).hu[::-1, ::-1].astype(np.float32)


def trunk(*, lung_above_mm):
    """A trunk of 300 mm, of which the part above a height is filled by two lungs."""
    tall = np.inf
    above = np.broadcast_to(3.0 * (np.arange(SHAPE[2]) - (SHAPE[2] - 1) / 2) > lung_above_mm, SHAPE)
    lungs = ellipsoid((-75, 0, 0), (60, 90, tall)) | ellipsoid((75, 0, 0), (60, 90, tall))
    return scan(
        (ellipsoid((0, 0, 0), (170, 125, tall)), -100.0),
        (ellipsoid((0, 0, 0), (150, 105, tall)), 50.0),
        (ellipsoid((0, 20, 0), (15, 60, tall)), -100.0),
        (ellipsoid((0, -80, 0), (20, 20, tall)), 300.0),
        (lungs & above, -850.0),
    )


def head(*, contrast=False):
    return scan(
        (ellipsoid((0, 0, 0), (79, 99, 114)), 20.0),  # scalp
        (ellipsoid((0, 0, 0), (75, 95, 110)), 900.0),  # skull, 7 mm
        (ellipsoid((0, 0, 0), (68, 88, 103)), 35.0),  # brain
        (ellipsoid((0, 20, 0), (10, 40, 12)), 180.0 if contrast else 5.0),
    )


def legs():
    tall = np.inf
    both = [ellipsoid((side * 100, 0, 0), (r, r, tall)) for r in (80, 65, 15) for side in (-1, 1)]
    values = (-100.0, -100.0, 60.0, 60.0, 1000.0, 1000.0)
    return scan(*zip(both, values, strict=True))


def test_the_phantom_of_an_abdomen_passes_without_a_word():
    check = abdomen_findings(abdomen(), MM)
    assert refusal(check) is None
    assert codes(check) == []
    assert check.looks_like_abdomen
    assert check.measures.abdomen_mm == check.measures.body_mm == 56 * 3.0
    # an ellipse of 175 by 125 mm has the area of a circle of twice √(175·125) = 295.8 mm
    assert check.measures.diameter_mm == pytest.approx(295.8, abs=3.0)


@pytest.mark.parametrize("contrast", [False, True], ids=["plain", "with contrast"])
def test_a_head_is_refused(contrast):
    check = abdomen_findings(head(contrast=contrast), MM)
    assert refusal(check) == "WRONG_BODY_PART"
    assert "skull" in check.refusal.message


def test_a_head_at_the_upper_end_of_a_trunk_is_no_reason_to_refuse():
    volume = np.concatenate([trunk(lung_above_mm=0), head()], axis=2)
    check = abdomen_findings(volume, MM)
    assert refusal(check) is None
    assert check.measures.head_mm > 150
    assert check.measures.abdomen_mm == 150
    assert codes(check) == []


@pytest.mark.parametrize("hu", [0.0, 120.0], ids=["water", "acrylic"])
def test_a_cylinder_of_one_material_is_refused_as_a_phantom(hu):
    check = abdomen_findings(scan((ellipsoid((0, 0, 0), (100, 100, np.inf)), hu), noise_hu=30.0), MM)
    assert refusal(check) == "WRONG_BODY_PART"
    assert "phantom" in check.refusal.message


def test_air_is_refused():
    assert refusal(abdomen_findings(scan(), MM)) == "WRONG_BODY_PART"


def test_a_chest_alone_is_said_not_to_reach_the_kidneys():
    check = abdomen_findings(trunk(lung_above_mm=-1000), MM)
    assert refusal(check) is None
    assert codes(check) == ["KIDNEYS_PROBABLY_OUTSIDE"]
    assert not check.looks_like_abdomen


@pytest.mark.parametrize(
    ("lung_above_mm", "below_mm", "expected"),
    [
        pytest.param(-100.5, 51.0, ["KIDNEYS_PROBABLY_OUTSIDE"], id="51 mm below the lungs"),
        pytest.param(-70.5, 81.0, [], id="81 mm below the lungs"),
    ],
)
def test_how_far_a_scan_reaches_below_the_lungs_decides(lung_above_mm, below_mm, expected):
    check = abdomen_findings(trunk(lung_above_mm=lung_above_mm), MM)  # slices run from -148.5 to 148.5 mm
    assert check.measures.abdomen_mm == below_mm
    assert codes(check) == expected
    assert check.looks_like_abdomen


def test_two_legs_do_not_look_like_an_abdomen():
    check = abdomen_findings(legs(), MM)
    assert refusal(check) is None
    assert codes(check) == ["WRONG_BODY_PART"]
    assert check.measures.legs_mm == 300
    assert not check.looks_like_abdomen


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda hu: hu + 150, "PIXEL_NOT_HU", id="shifted up"),
        pytest.param(lambda hu: hu - 150, "PIXEL_NOT_HU", id="shifted down"),
        pytest.param(lambda hu: hu + 1024, "PIXEL_NOT_HU", id="intercept lost"),
        pytest.param(lambda hu: (hu + 1000) * 0.3, "PIXEL_NOT_HU", id="like an MR"),
        pytest.param(lambda hu: hu, None, id="unchanged"),
    ],
)
def test_values_that_are_certainly_no_hounsfield_units_are_refused(change, expected):
    assert refusal(abdomen_findings(change(trunk(lung_above_mm=60)), MM)) == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda hu: np.where(hu < -500, hu + 200, hu), "the air", id="cone beam: air at -800"),
        pytest.param(lambda hu: 0.8 * hu, "the air", id="scaled"),
        pytest.param(lambda hu: hu.clip(-200, 300), "clipped", id="clipped to a window"),
    ],
)
def test_doubtful_values_are_warned_of(change, reason):
    check = abdomen_findings(change(trunk(lung_above_mm=60)), MM)
    assert refusal(check) is None
    assert codes(check)[0] == "PIXEL_NOT_HU"
    assert reason in check.findings[0].message


def test_padding_outside_the_scanner_s_circle_changes_nothing():
    volume = trunk(lung_above_mm=60)
    padded = np.where(ellipsoid((0, 0, 0), (185, 185, np.inf)), volume, np.float32(-3024.0))
    assert codes(abdomen_findings(padded, MM)) == []
    assert (
        abdomen_findings(padded, MM).measures.abdomen_mm == abdomen_findings(volume, MM).measures.abdomen_mm
    )


def test_a_body_that_the_field_of_view_cuts_is_judged_by_no_width():
    volume = trunk(lung_above_mm=60)[40:-40, 40:-40]
    check = abdomen_findings(volume, MM)
    assert refusal(check) is None
    assert codes(check) == ["FIELD_OF_VIEW_CUTS_BODY"]
    assert check.looks_like_abdomen
    assert check.measures.lung_mm == pytest.approx(90, abs=3)


def test_a_table_and_arms_beside_the_trunk_are_no_second_body():
    tall = np.inf
    volume = trunk(lung_above_mm=60)
    volume[:, 12:14] = 150.0  # a table top, 6 mm thick
    volume[ellipsoid((183, 0, 0), (9, 40, tall))] = 60.0  # arms, as far as they fit into the picture
    check = abdomen_findings(volume, MM)
    assert codes(check) == []
    assert check.measures.legs_mm == 0


def test_a_body_of_a_child_s_width_is_said_so():
    check = abdomen_findings(abdomen(), (1.5, 1.5, 3.0))  # half of 296 mm
    assert codes(check) == ["BODY_SIZE_IMPLAUSIBLE"]


def test_a_scan_shorter_than_a_kidney_is_said_so():
    assert codes(abdomen_findings(abdomen(shape=(128, 128, 10)), MM)) == ["SCAN_TOO_SHORT"]


def test_noise_of_a_low_dose_scan_changes_no_answer():
    check = abdomen_findings(abdomen(noise_hu=60.0), MM)
    assert (refusal(check), codes(check)) == (None, [])


@pytest.mark.parametrize(
    ("volume", "found_ml", "expected"),
    [
        pytest.param(abdomen(), 300.0, None, id="kidneys"),
        pytest.param(abdomen(right_ml=0, left_ml=0), 0.0, "KIDNEY_NOT_FOUND", id="abdomen without"),
        pytest.param(abdomen(), 4.9, "KIDNEY_NOT_FOUND", id="a speck"),
        pytest.param(trunk(lung_above_mm=-1000), 0.0, "WRONG_BODY_PART", id="chest"),
        pytest.param(legs(), 0.0, "WRONG_BODY_PART", id="legs"),
        pytest.param(head(), 300.0, "WRONG_BODY_PART", id="a head in which kidneys were found"),
        pytest.param(trunk(lung_above_mm=-1000), 20.0, None, id="upper poles below a chest"),
    ],
)
def test_what_was_found_and_what_it_looks_like_decide_together(volume, found_ml, expected):
    answer = kidneys_or_refusal(found_ml, abdomen_findings(volume, MM))
    assert (answer.code if answer else None) == expected


@pytest.mark.parametrize(
    ("volume", "spacing_mm", "message"),
    [
        pytest.param(np.zeros((4, 4)), MM, "volume must be finite, with three axes", id="two axes"),
        pytest.param(np.full((4, 4, 4), np.nan), MM, "volume must be finite", id="nan"),
        pytest.param(np.zeros((4, 4, 4)), (3.0, 0.0, 3.0), "spacing_mm must be three positive", id="spacing"),
    ],
)
def test_wrong_arguments_are_named(volume, spacing_mm, message):
    with pytest.raises(ValueError, match=message):
        abdomen_findings(volume, spacing_mm)


def coarse(path, factor):
    """Read a scan, average ``factor`` by ``factor`` pixels, and turn it to RAS."""
    series = CTReader().open(path)
    hu = CTReader().get_data(series)[0]
    i, j = (n // factor * factor for n in hu.shape[:2])
    blocks = hu[:i, :j].reshape(i // factor, factor, j // factor, factor, -1)
    affine = series.affine @ np.diag([factor, factor, 1.0, 1.0])
    image = nib.as_closest_canonical(nib.Nifti1Image(blocks.mean(axis=(1, 3), dtype=np.float32), affine))
    return np.asarray(image.dataobj), tuple(float(x) for x in image.header.get_zooms())


@pytest.mark.registry
def test_a_real_scan_of_chest_and_upper_abdomen_passes_and_its_upper_half_does_not(lidc_dicom):
    volume, spacing_mm = coarse(lidc_dicom, 4)
    check = abdomen_findings(volume, spacing_mm)
    assert (refusal(check), codes(check), check.looks_like_abdomen) == (None, [], True)
    assert check.measures.lung_mm > 120
    upper = abdomen_findings(volume[..., volume.shape[2] // 2 :], spacing_mm)
    assert (refusal(upper), codes(upper)) == (None, ["KIDNEYS_PROBABLY_OUTSIDE"])
    assert kidneys_or_refusal(0.0, upper).code == "WRONG_BODY_PART"
    cone_beam = abdomen_findings(volume + np.float32(150.0), spacing_mm)  # padding stays below air
    assert "PIXEL_NOT_HU" in (refusal(cone_beam), *codes(cone_beam))


@pytest.mark.registry
def test_a_real_scan_of_the_abdomen_passes(totalsegmentator_ct):
    check = abdomen_findings(*coarse(totalsegmentator_ct, 1))
    assert (refusal(check), codes(check), check.looks_like_abdomen) == (None, [], True)
    assert check.measures.abdomen_mm == check.measures.body_mm == 336.0
    assert check.measures.lung_mm == check.measures.head_mm == check.measures.legs_mm == 0.0


@pytest.mark.registry
def test_forty_real_millimetres_of_liver_and_spleen_are_too_short(totalsegmentator_dicom):
    check = abdomen_findings(*coarse(totalsegmentator_dicom, 3))
    assert (refusal(check), codes(check)) == (None, ["SCAN_TOO_SHORT"])
    assert kidneys_or_refusal(0.0, check).code == "KIDNEY_NOT_FOUND"
