"""Shapes whose volume, surface and axes are known by formula, and SimpleITK as a second opinion."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from shared_nets.refusals import InputRefused
from shared_nets.transforms.clinical_schema import KIDNEY_SHAPE
from shared_nets.transforms.kidney_shape import (
    FEATURES,
    OUTLINE_FEATURES,
    KidneyShaped,
    kidney_shape,
)
from shared_nets.transforms.mask_measures import local_thickness_mm, surface_mesh

SPACING_MM = (1.5, 1.5, 2.0)


def grid_mm(shape, spacing_mm):
    return [np.arange(n).reshape([-1 if a == i else 1 for a in range(3)]) * s
            for i, (n, s) in enumerate(zip(shape, spacing_mm, strict=True))]  # fmt: skip


def ellipsoid(shape, spacing_mm, centre_mm, semi_axes_mm):
    grid = grid_mm(shape, spacing_mm)
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre_mm, semi_axes_mm, strict=True)) <= 1.0


@pytest.fixture(scope="module")
def two_kidneys():
    """Right kidney with semi-axes 24, 20 and 50 mm, left kidney 20, 18 and 40 mm, one tumour and one cyst."""
    shape = (160, 60, 80)
    labels = np.zeros(shape, np.uint8)
    labels[ellipsoid(shape, SPACING_MM, (180, 45, 80), (24, 20, 50))] = 1
    labels[ellipsoid(shape, SPACING_MM, (60, 45, 80), (20, 18, 40))] = 1
    labels[ellipsoid(shape, SPACING_MM, (60, 45, 100), (10, 10, 10)) & (labels == 1)] = 2
    labels[ellipsoid(shape, SPACING_MM, (180, 45, 50), (6, 6, 6)) & (labels == 1)] = 3
    return labels, np.diag([*SPACING_MM, 1.0])


def test_names_are_those_of_the_schema_in_its_order():
    assert KIDNEY_SHAPE.names == FEATURES
    assert KIDNEY_SHAPE.names[:12] == OUTLINE_FEATURES


def test_a_ball_has_the_volume_axes_and_diameter_of_its_formula():
    shape, radius = (48, 48, 48), 30.0
    ball = ellipsoid(shape, (1.5,) * 3, (35.0, 36.0, 35.5), (radius,) * 3)
    values = kidney_shape(ball.astype(np.uint8), np.diag([1.5, 1.5, 1.5, 1.0])).values
    volume = 4.0 / 3.0 * np.pi * radius**3
    assert values["original_shape_MeshVolume"] == pytest.approx(volume, rel=0.01)
    assert values["kidney_volume_ml"] == pytest.approx(volume / 1000.0, rel=0.01)
    # the second moment of a ball is r²/5 along each axis: 4 sqrt(r²/5)
    for name in ("MinorAxisLength", "LeastAxisLength"):
        assert values[f"original_shape_{name}"] == pytest.approx(4.0 * radius / np.sqrt(5.0), rel=0.01)
    assert values["original_shape_Elongation"] == pytest.approx(1.0, abs=0.01)
    assert values["original_shape_Flatness"] == pytest.approx(1.0, abs=0.01)
    assert values["original_shape_Maximum3DDiameter"] == pytest.approx(2.0 * radius, abs=1.5)  # one voxel
    # a surface of voxel corners is rougher than the ball: about 8 % more area, and as much less sphericity
    assert values["outline_surface_area_cm2"] == pytest.approx(4.0 * np.pi * radius**2 / 100.0, rel=0.1)
    assert 0.9 < values["original_shape_Sphericity"] < 1.0
    assert values["convexity_ratio_vol"] == pytest.approx(1.0, abs=0.05)
    assert values["local_thickness_mean"] == pytest.approx(2.0 * radius, abs=6.0)  # four voxels


def test_a_box_has_the_axes_and_faces_of_its_formula():
    labels = np.zeros((40, 30, 50), np.uint8)
    labels[5:35, 5:25, 5:45] = 1  # 30 × 20 × 40 voxels: 45 × 30 × 80 mm
    values = kidney_shape(labels, np.diag([*SPACING_MM, 1.0])).values
    assert values["kidney_volume_ml"] == pytest.approx(45 * 30 * 80 / 1000.0)
    # n points a step s apart have the variance s² (n² - 1) / 12
    axes = [4.0 * s * np.sqrt((n**2 - 1) / 12.0) for n, s in ((20, 1.5), (30, 1.5), (40, 2.0))]
    assert values["original_shape_LeastAxisLength"] == pytest.approx(axes[0])
    assert values["original_shape_MinorAxisLength"] == pytest.approx(axes[1])
    assert values["original_shape_Elongation"] == pytest.approx(axes[1] / axes[2])
    assert values["original_shape_Flatness"] == pytest.approx(axes[0] / axes[2])
    # surface points lie half a voxel outside a face, over the centres of its voxels: 29 · 1.5 by 40 · 2 mm
    assert values["original_shape_Maximum2DDiameterColumn"] == pytest.approx(np.hypot(29 * 1.5, 40 * 2.0))
    assert values["convexity_ratio_area"] == pytest.approx(1.0, abs=1e-6)
    assert values["convexity_ratio_vol"] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("voxels", [pytest.param(5, id="odd"), pytest.param(9, id="thick")])
def test_a_plate_is_as_thick_as_its_voxels(voxels):
    plate = np.ones((40, 40, voxels), bool)
    assert np.median(local_thickness_mm(plate, (1.5, 1.5, 1.5))) == pytest.approx(voxels * 1.5)


def test_thickness_does_not_depend_on_how_thick_the_slices_are():
    fine = ellipsoid((60, 60, 60), (1.5,) * 3, (45, 45, 45), (30, 20, 36))
    coarse = fine[:, :, 1::3]
    means = [local_thickness_mm(m, s).mean() for m, s in ((fine, (1.5,) * 3), (coarse, (1.5, 1.5, 4.5)))]
    assert means[0] == pytest.approx(means[1], abs=1.5)  # one voxel


def test_measuring_thickness_leaves_the_spacing_alone():
    spacing_mm = np.array([1.5, 1.5, 4.5])
    local_thickness_mm(np.ones((4, 4, 4), bool), spacing_mm)
    assert spacing_mm.tolist() == [1.5, 1.5, 4.5]


def test_simpleitk_finds_the_same_volume_axes_and_diameter(two_kidneys):
    labels, affine = two_kidneys
    values = kidney_shape(labels, affine).values
    image = sitk.GetImageFromArray((labels > 0).astype(np.uint8).transpose(2, 1, 0))
    image.SetSpacing(SPACING_MM)
    other = sitk.LabelShapeStatisticsImageFilter()
    other.ComputeFeretDiameterOn()
    other.Execute(image)
    least, minor, major = 4.0 * np.sqrt(other.GetPrincipalMoments(1))
    assert values["original_shape_LeastAxisLength"] == pytest.approx(least, rel=1e-6)
    assert values["original_shape_MinorAxisLength"] == pytest.approx(minor, rel=1e-6)
    assert values["original_shape_Elongation"] == pytest.approx(minor / major, rel=1e-6)
    assert values["original_shape_MeshVolume"] == pytest.approx(other.GetPhysicalSize(1), rel=0.01)
    # SimpleITK measures between voxel centres, the mesh reaches half a voxel further at either end
    assert 0.0 <= values["original_shape_Maximum3DDiameter"] - other.GetFeretDiameter(1) < 2.5


def test_volumes_and_lengths_are_given_by_side_and_by_tissue(two_kidneys):
    labels, affine = two_kidneys
    values = kidney_shape(labels, affine).values
    ml = np.prod(SPACING_MM) / 1000.0
    counts = np.bincount(labels.ravel())
    assert values["kidney_count"] == 2.0
    assert values["kidney_volume_ml"] == pytest.approx(counts[1] * ml)
    assert values["tumour_volume_ml"] == pytest.approx(counts[2] * ml)
    assert values["cyst_volume_ml"] == pytest.approx(counts[3] * ml)
    right = np.count_nonzero(labels[80:] == 1) * ml
    left = np.count_nonzero(labels[:80] == 1) * ml
    assert values["right_kidney_volume_ml"] == pytest.approx(right)
    assert values["left_kidney_volume_ml"] == pytest.approx(left)
    assert values["larger_kidney_volume_ml"] == values["right_kidney_volume_ml"]
    assert values["smaller_kidney_volume_ml"] == values["left_kidney_volume_ml"]
    assert values["kidney_volume_asymmetry"] == pytest.approx((right - left) / (right + left))
    assert values["right_kidney_length_mm"] == pytest.approx(100.0, abs=2.0)  # one voxel
    assert values["left_kidney_length_mm"] == pytest.approx(80.0, abs=2.0)
    assert values["longer_kidney_length_mm"] == values["right_kidney_length_mm"]


@pytest.mark.parametrize(
    "turn",
    [
        pytest.param(lambda a: (a[::-1], np.diag([-1.5, 1.5, 2.0, 1.0])), id="x"),
        pytest.param(lambda a: (a[:, ::-1, ::-1], np.diag([1.5, -1.5, -2.0, 1.0])), id="y and z"),
        pytest.param(
            lambda a: (a.transpose(2, 0, 1), np.diag([1.5, 1.5, 2.0, 1.0])[:, [2, 0, 1, 3]]), id="z first",
        ),
    ],
)  # fmt: skip
def test_the_order_of_the_axes_does_not_matter(two_kidneys, turn):
    labels, affine = two_kidneys
    expected = kidney_shape(labels, affine).values
    assert kidney_shape(*turn(labels)).values == pytest.approx(expected, rel=1e-9)


def test_finer_voxels_are_sampled_down_and_it_is_said(two_kidneys):
    labels, affine = two_kidneys
    fine = labels.repeat(2, axis=0).repeat(2, axis=1)
    shape = kidney_shape(fine, np.diag([0.75, 0.75, 2.0, 1.0]))
    assert [f.code for f in shape.findings] == ["KIDNEY_SHAPE_SAMPLED_DOWN"]
    assert "0.75 × 0.75 × 2.00 mm" in shape.findings[0].message
    assert shape.values == pytest.approx(kidney_shape(labels, affine).values, rel=0.02)


def test_one_kidney_has_no_length_and_no_volume_on_the_other_side(two_kidneys):
    labels, affine = two_kidneys
    only_right = labels.copy()
    only_right[:80] = 0
    shape = kidney_shape(only_right, affine)
    assert shape.values["kidney_count"] == 1.0
    assert shape.values["left_kidney_volume_ml"] == 0.0
    assert shape.values["smaller_kidney_volume_ml"] == 0.0
    assert shape.values["kidney_volume_asymmetry"] == 1.0
    assert np.isnan(shape.values["left_kidney_length_mm"])
    assert np.isnan(shape.values["shorter_kidney_length_mm"])
    assert shape.values["longer_kidney_length_mm"] == shape.values["right_kidney_length_mm"]
    assert [f.code for f in shape.findings] == ["KIDNEY_SHAPE_ONE_KIDNEY"]


def test_a_stray_voxel_on_the_other_side_is_not_a_kidney(two_kidneys):
    labels, affine = two_kidneys
    stray = labels.copy()
    stray[:80] = 0
    stray[30, 30, 40] = 1
    assert kidney_shape(stray, affine).values["kidney_count"] == 1.0


def test_a_kidney_in_the_lowest_slice_is_reported_as_cut_off(two_kidneys):
    labels, affine = two_kidneys
    cut = labels[:, :, 30:]
    assert "KIDNEY_SHAPE_FROM_CUT_MASK" in [f.code for f in kidney_shape(cut, affine).findings]


def test_a_flag_reports_a_cut_that_the_mask_does_not_show(two_kidneys):
    shape = kidney_shape(*two_kidneys, is_cut_off=True)
    assert [f.code for f in shape.findings] == ["KIDNEY_SHAPE_FROM_CUT_MASK"]
    assert not np.isnan(shape.values["kidney_volume_ml"])


@pytest.mark.parametrize(
    ("labels", "affine", "code", "message"),
    [
        pytest.param(np.zeros((4, 4, 4)), np.eye(4), "MASK_EMPTY", "no kidney", id="empty"),
        pytest.param(np.full((4, 4, 4), 2), np.eye(4), "MASK_EMPTY", "no kidney", id="tumour only"),
        pytest.param(np.full((4, 4, 4), 5), np.eye(4), "MASK_LABELS_UNKNOWN", "up to 5", id="label 5"),
        pytest.param(np.full((4, 4, 4), 0.5), np.eye(4), "MASK_LABELS_UNKNOWN", "whole", id="probabilities"),
        pytest.param(np.ones((4, 4)), np.eye(4), "GEOMETRY_NOT_A_VOLUME", "2 axes", id="one slice"),
        pytest.param(np.ones((4, 4, 4)), np.diag([1, 0, 1, 1]), "GEOMETRY_BAD_SPACING", "size", id="flat"),
        pytest.param(
            np.ones((4, 4, 4)), np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
            "GEOMETRY_BAD_ORIENTATION", "same way", id="parallel axes",
        ),
    ],
)  # fmt: skip
def test_what_is_no_kidney_mask_is_refused(labels, affine, code, message):
    with pytest.raises(InputRefused, match=message) as refusal:
        kidney_shape(labels, affine)
    assert refusal.value.code == code


def test_one_voxel_is_measured_without_failing():
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[2, 2, 2] = 1
    values = kidney_shape(labels, np.diag([2.0, 2.0, 2.0, 1.0])).values
    # the mesh of one voxel is an octahedron of 2 mm diameter
    assert values["original_shape_MeshVolume"] == pytest.approx(2.0**3 / 6.0)
    assert values["original_shape_Maximum3DDiameter"] == pytest.approx(2.0)
    assert np.isnan(values["original_shape_Elongation"])


def test_a_kidney_that_sampling_down_would_lose_is_refused():
    labels = np.full((40, 40, 40), 2, np.uint8)
    labels[0, 0, 0] = 1
    with pytest.raises(InputRefused, match="less kidney than a voxel"):
        kidney_shape(labels, np.diag([0.5, 0.5, 0.5, 1.0]))


def test_a_mesh_with_a_hole_counts_the_hole_out():
    block = np.ones((9, 9, 9), bool)
    full = surface_mesh(block, np.ones(3))
    block[3:6, 3:6, 3:6] = False
    hollow = surface_mesh(block, np.ones(3))
    assert full.volume_mm3 - hollow.volume_mm3 == pytest.approx(27.0, rel=0.15)  # edges of the mesh are cut
    assert hollow.area_mm2 > full.area_mm2


def test_the_transform_reads_a_label_map_with_its_affine(two_kidneys):
    labels, affine = two_kidneys
    mask = MetaTensor(torch.from_numpy(labels)[None], affine=torch.from_numpy(affine))
    sample = KidneyShaped()({"kidney_labels": mask, "kidney_is_cut_off": True})
    assert sample["kidney_shape"] == kidney_shape(labels, affine).values
    assert [f.code for f in sample["kidney_shape_findings"]] == ["KIDNEY_SHAPE_FROM_CUT_MASK"]


def test_the_transform_passes_samples_without_a_mask_only_when_told_to():
    with pytest.raises(KeyError, match="kidney_labels"):
        KidneyShaped()({})
    assert KidneyShaped(allow_missing_keys=True)({"study_id": "a"}) == {"study_id": "a"}


def test_the_transform_wants_an_affine(two_kidneys):
    with pytest.raises(ValueError, match="kidney_labels must be a MetaTensor"):
        KidneyShaped()({"kidney_labels": two_kidneys[0]})
