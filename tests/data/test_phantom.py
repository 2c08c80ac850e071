"""The synthetic phantom holds what its arguments say, and its DICOM series is one that others read alike."""

from __future__ import annotations

import math

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from shared_nets.data.phantom import (
    LABELS,
    kidney_semi_axes_mm,
    make_phantom,
    write_dicom_series,
    write_nifti,
)


def volume_ml(labels: np.ndarray, name: str, voxel_mm3: float) -> float:
    return float((labels == LABELS[name]).sum() * voxel_mm3 / 1000.0)


def test_semi_axes_hold_the_stated_volume():
    a, b, c = kidney_semi_axes_mm(150.0)
    assert 4.0 / 3.0 * math.pi * a * b * c == pytest.approx(150_000.0)
    assert (b / a, c / a) == pytest.approx((0.9, 2.0))


@pytest.mark.parametrize(("right_ml", "left_ml"), [(160.0, 150.0), (60.0, 220.0)])
def test_kidneys_have_the_stated_volumes(right_ml, left_ml):
    labels = make_phantom(right_ml=right_ml, left_ml=left_ml).labels
    # 3 mm voxels on a 30 mm ellipsoid: the count is off by well under 2 %
    assert volume_ml(labels, "kidney_right", 27.0) == pytest.approx(right_ml, rel=0.02)
    assert volume_ml(labels, "kidney_left", 27.0) == pytest.approx(left_ml, rel=0.02)


def test_right_kidney_lies_on_the_patients_right_and_behind_the_liver():
    phantom = make_phantom()
    centres = {
        name: (phantom.affine @ [*np.argwhere(phantom.labels == number).mean(axis=0), 1.0])[:3]
        for name, number in LABELS.items()
    }
    # RAS: right is positive, the back is negative
    assert centres["kidney_right"] == pytest.approx((62.0, -45.0, -8.0), abs=1.0)
    assert centres["kidney_left"] == pytest.approx((-62.0, -45.0, 8.0), abs=1.0)
    assert centres["liver"][0] > 0.0
    assert centres["liver"][1] > centres["kidney_right"][1]


def test_uncut_kidneys_leave_first_and_last_slice_free():
    labels = make_phantom().labels
    kidneys = np.isin(labels, [LABELS["kidney_right"], LABELS["kidney_left"]])
    assert not kidneys[:, :, 0].any()
    assert not kidneys[:, :, -1].any()


def test_cut_lower_pole_is_missing_from_the_first_slice_on():
    cut = make_phantom(cut_lower_mm=30.0, noise_hu=0.0)
    lower_pole_mm = -8.0 - kidney_semi_axes_mm(160.0)[2]
    assert cut.affine[2, 3] == pytest.approx(lower_pole_mm + 30.0)
    assert (cut.labels[:, :, 0] == LABELS["kidney_right"]).any()
    assert volume_ml(cut.labels, "kidney_right", 27.0) < 0.95 * 160.0


def test_volume_of_zero_leaves_the_kidney_out():
    labels = make_phantom(left_ml=0.0).labels
    assert set(np.unique(labels)) == {0, LABELS["kidney_right"], LABELS["liver"]}


def test_same_arguments_give_the_same_bytes_and_another_seed_does_not():
    first, again, other = make_phantom(seed=3), make_phantom(seed=3), make_phantom(seed=4)
    assert first.hu.tobytes() == again.hu.tobytes()
    assert first.hu.tobytes() != other.hu.tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"right_ml": -1.0}, "right_ml must be 0 or more, got -1.0", id="negative volume"),
        pytest.param({"cut_lower_mm": math.nan}, "cut_lower_mm must be 0 or more, got nan", id="nan"),
        pytest.param({"spacing_mm": (1.0, 0.0, 1.0)}, "must be positive", id="no spacing"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_phantom(**arguments)


@pytest.fixture(scope="module")
def small():
    return make_phantom(shape=(70, 60, 6), spacing_mm=(5.0, 4.0, 6.5), cut_lower_mm=20.0)


def test_dicom_series_is_read_by_simpleitk_at_the_same_place(small, tmp_path):
    paths = write_dicom_series(small.hu, small.affine, tmp_path / "ct")
    image = sitk.ReadImage([str(path) for path in paths])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), small.hu)
    assert image.GetSpacing() == pytest.approx((5.0, 4.0, 6.5))
    assert image.GetOrigin() == pytest.approx((np.diag([-1, -1, 1, 1]) @ small.affine)[:3, 3])
    assert image.GetDirection() == pytest.approx(np.eye(3).ravel())


def test_dicom_series_keeps_the_orientation_of_a_turned_volume(small, tmp_path):
    turned = small.affine @ np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # k → X, i → Y
    hu = small.hu.transpose(1, 2, 0)
    image = sitk.ReadImage([str(path) for path in write_dicom_series(hu, turned, tmp_path / "ct")])
    index = (3, 4, 5)
    lps = image.TransformIndexToPhysicalPoint(index)
    assert lps == pytest.approx((np.diag([-1, -1, 1, 1]) @ turned @ [*index, 1])[:3])
    assert image[index] == hu[index]


def test_dicom_series_says_that_it_is_synthetic_and_has_one_uid_a_slice(small, tmp_path):
    datasets = [pydicom.dcmread(path) for path in write_dicom_series(small.hu, small.affine, tmp_path)]
    assert "SYNTHETIC" in datasets[0].SeriesDescription
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == 6
    assert len({dataset.SeriesInstanceUID for dataset in datasets}) == 1
    assert all(dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID for dataset in datasets)


def test_same_voxels_give_the_same_files(small, tmp_path):
    first = write_dicom_series(small.hu, small.affine, tmp_path / "a")
    again = write_dicom_series(small.hu, small.affine, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_sheared_volume_is_no_ct_series(small, tmp_path):
    sheared = small.affine.copy()
    sheared[1, 2] = 2.0
    with pytest.raises(ValueError, match="affine must have perpendicular axes"):
        write_dicom_series(small.hu, sheared, tmp_path)


def test_value_below_the_intercept_cannot_be_stored(small, tmp_path):
    with pytest.raises(ValueError, match="rescale_intercept must leave 0 to 65535"):
        write_dicom_series(small.hu, small.affine, tmp_path, rescale_intercept=0)


def test_nifti_holds_the_voxels_their_type_and_place(small, tmp_path):
    image = nib.load(write_nifti(small.labels, small.affine, tmp_path / "labels.nii.gz"))
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), small.labels)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.affine, small.affine, atol=1e-5)  # NIfTI keeps float32
    assert image.header.get_xyzt_units()[0] == "mm"
