"""Real scans out of registry packages; skipped with a reason where they cannot be fetched."""

import nibabel as nib
import numpy as np
import pytest

from shared_nets.data.ct_reader import CTReader

pytestmark = pytest.mark.registry


def test_the_lidc_scan_has_the_same_voxels_in_the_same_place_as_dicom_and_as_nifti(lidc_dicom, lidc_nifti):
    reader = CTReader()
    dicom, nifti = reader.open(lidc_dicom), reader.open(lidc_nifti)
    assert dicom.shape == nifti.shape == (512, 512, 133)
    between = np.linalg.inv(nifti.affine) @ dicom.affine  # DICOM index → NIfTI index
    np.testing.assert_allclose(
        between, [[1, 0, 0, 0], [0, -1, 0, 511], [0, 0, 1, 0], [0, 0, 0, 1]], atol=1e-4
    )
    chosen = [0, 66, 132]
    flipped = reader.get_data(nifti, chosen)[0][:, ::-1]
    assert np.array_equal(reader.get_data(dicom, chosen)[0], flipped)
    assert dicom.header["BodyPartExamined"] == "CHEST"


def test_nifti_values_are_those_of_nibabel(lidc_nifti):
    image, _ = CTReader().get_data(CTReader().open(lidc_nifti), [40])
    assert np.array_equal(image[..., 0], np.asarray(nib.load(lidc_nifti).dataobj[..., 40]))


def test_the_jpeg_2000_series_is_read_though_its_uids_were_removed(totalsegmentator_dicom):
    series = CTReader().open(totalsegmentator_dicom)
    assert series.shape == (512, 512, 20)
    assert series.spacing_mm == (0.9765625, 0.9765625, 2.0)
    assert [finding.code for finding in series.warnings] == ["SERIES_NO_UID"]
    image, _ = CTReader().get_data(series, [10])
    assert image.min() == -1024
