"""A mask lands on its CT exactly where the grids agree, and is refused where it cannot belong."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from shared_nets.refusals import InputRefused
from shared_nets.transforms.kidney_mask import canonical_labels
from shared_nets.transforms.mask_geometry import match_mask_to_image


def whole(kidneys) -> np.ndarray:
    """Paste the box into the whole grid."""
    grid = np.zeros(kidneys.grid_shape, dtype=np.uint8)
    grid[tuple(slice(o, o + n) for o, n in zip(kidneys.offset, kidneys.labels.shape, strict=True))] = (
        kidneys.labels
    )
    return grid


def match(labels, mask_affine, shape, affine, **options):
    kidneys = canonical_labels(labels, mask_affine, label_set="totalsegmentator")
    return match_mask_to_image(kidneys, image_shape=shape, image_affine=affine, **options)


def codes(findings) -> list[str]:
    return [finding.code for finding in findings]


def test_the_same_grid_is_taken_as_it_is(make_kidneys):
    labels, affine = make_kidneys()
    matched, findings = match(labels, affine, labels.shape, affine)
    assert np.array_equal(whole(matched), labels > 0)
    assert findings == ()


def test_flipped_and_permuted_axes_are_rearranged_exactly(make_kidneys, reorient, all_orientations):
    labels, affine = make_kidneys()
    labels[8, 10, 4] = 0  # no symmetry to hide behind
    for orientation in all_orientations:
        turned, turned_affine = reorient(labels, affine, orientation)
        matched, findings = match(turned, turned_affine, labels.shape, affine)
        assert np.array_equal(whole(matched), labels > 0)
        assert codes(findings) in ([], ["MASK_REORIENTED"])
        assert np.array_equal(matched.grid_affine, affine)


def test_a_cropped_mask_is_put_back_where_it_was(make_kidneys):
    labels, affine = make_kidneys()
    cropped_affine = affine.copy()
    cropped_affine[:3, 3] += affine[:3, :3] @ [5, 6, 3]
    matched, findings = match(labels[5:55, 6:30, 3:16], cropped_affine, labels.shape, affine)
    assert np.array_equal(whole(matched), labels > 0)
    assert findings == ()


def test_a_rounded_header_is_the_same_grid_and_a_shifted_one_is_not(make_kidneys):
    labels, affine = make_kidneys()
    shifted = affine.copy()
    shifted[0, 3] += 0.05
    assert codes(match(labels, shifted, labels.shape, affine)[1]) == []
    shifted[0, 3] += 0.5
    matched, findings = match(labels, shifted, labels.shape, affine)
    assert codes(findings) == ["MASK_RESAMPLED"]
    assert np.array_equal(whole(matched), labels > 0)  # half a millimetre is less than half a voxel


def test_another_grid_is_sampled_as_simpleitk_does(make_kidneys):
    labels, affine = make_kidneys()
    angle = np.radians(7.0)
    image_affine = np.eye(4)
    image_affine[:3, :3] = [
        [-1.7 * np.cos(angle), 1.9 * np.sin(angle), 0],
        [-1.7 * np.sin(angle), -1.9 * np.cos(angle), 0],
        [0, 0, 3.3],
    ]
    image_affine[:3, 3] = [130.0, 60.0, 90.0]
    shape = (150, 70, 40)
    matched, findings = match(labels, affine, shape, image_affine)
    assert codes(findings) == ["MASK_RESAMPLED"]

    def itk(array, matrix):
        image = sitk.GetImageFromArray(array.transpose(2, 1, 0).copy())
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(matrix[:3, 3].tolist())
        return image

    expected = sitk.Resample(
        itk((labels > 0).astype(np.uint8), affine),
        itk(np.zeros(shape, np.uint8), image_affine),
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
    )
    expected = sitk.GetArrayFromImage(expected).transpose(2, 1, 0)
    assert expected.sum() > 10_000
    assert np.count_nonzero(whole(matched) != expected) <= 2  # a voxel centre may fall on a border


@pytest.mark.parametrize(
    ("shift_mm", "message"),
    [
        pytest.param((900.0, 0.0, 0.0), "do not overlap", id="elsewhere"),
        pytest.param((0.0, 0.0, -45.0), "50% of the mask's kidney volume lies outside", id="half outside"),
    ],
)
def test_kidneys_outside_the_image_are_refused(make_kidneys, shift_mm, message):
    labels, affine = make_kidneys()
    shifted = affine.copy()
    shifted[:3, 3] += shift_mm
    with pytest.raises(InputRefused, match=f"MASK_GEOMETRY_MISMATCH: .*{message}"):
        match(labels, shifted, labels.shape, affine)


def test_a_mask_that_ends_inside_a_kidney_is_refused_unless_empty_slices_are_left_out(make_kidneys):
    labels, affine = make_kidneys(range(4, 14))
    cut_affine = affine.copy()
    cut_affine[:3, 3] += affine[:3, :3] @ [0, 0, 4]
    only_kidney_slices = labels[:, :, 4:14]
    with pytest.raises(InputRefused, match="MASK_GEOMETRY_MISMATCH: The mask's grid ends inside a kidney"):
        match(only_kidney_slices, cut_affine, labels.shape, affine)
    matched, findings = match(
        only_kidney_slices, cut_affine, labels.shape, affine, has_empty_slices_omitted=True
    )
    assert np.array_equal(whole(matched), labels > 0)
    assert findings == ()


def test_a_kidney_cut_by_the_image_itself_is_no_mismatch(make_kidneys):
    labels, affine = make_kidneys(range(0, 10))
    matched, findings = match(labels, affine, labels.shape, affine)
    assert matched.offset[2] == 0
    assert findings == ()


def test_an_affine_without_volume_is_refused(make_kidneys):
    labels, affine = make_kidneys()
    with pytest.raises(InputRefused, match=r"GEOMETRY_BAD_SPACING: .*of the image"):
        match(labels, affine, labels.shape, np.diag([1.0, 1.0, 0.0, 1.0]))
