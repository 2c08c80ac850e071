"""Kidneys written as DICOM Segmentation are the same voxels at the same place for whoever reads them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from scipy.spatial.transform import Rotation

from shared_nets.data.dicom_defects import write_defect
from shared_nets.data.dicom_synthetic import enhanced_ct, synthetic_series, write_file, write_series
from shared_nets.writers.dicom_seg import kidney_segmentation
from tests.writers.dicom_studies import (
    LEFT,
    RIGHT,
    UNKNOWN,
    errors_of,
    mask_on,
    objects_of,
    read_back,
    source_of,
    write_phantom,
)

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
CODES = np.array([0, int(RIGHT), int(LEFT), int(UNKNOWN)])


def axial(folder):
    write_phantom(folder)


def anisotropic(folder):
    write_phantom(folder, shape=(40, 24, 10), spacing_mm=(0.7, 1.3, 2.1))


def oblique(folder):
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", [17, -25, 8], degrees=True).as_matrix()
    affine[:3, :3] = turned @ np.diag([-0.9, -1.1, 3.0])
    affine[:3, 3] = [12.34, -56.78, 90.12]
    write_phantom(folder, affine=affine)


def coronal(folder):
    affine = np.eye(4)
    affine[:3, :3] = np.array(
        [[-1.5, 0, 0], [0, 0, 2.0], [0, -1.5, 0]]
    )  # columns: to left, to feet, to front
    affine[:3, 3] = [20.0, -30.0, 40.0]
    write_phantom(folder, affine=affine)


def descending(folder):
    write_series(folder, synthetic_series()[::-1])


def rounded_positions(folder):
    series = synthetic_series()
    for k, dataset in enumerate(series):
        dataset.ImagePositionPatient = [-12, -9, round(100 + 0.75 * k, 1)]  # gaps of 0.7 and 0.8 mm
    write_series(folder, series)


def enhanced(folder):
    folder.mkdir()
    write_file(folder / "ct.dcm", enhanced_ct(order=[5, 0, 1, 2, 3, 4, 11, 6, 7, 8, 9, 10]))


def tilted(folder):
    write_defect("gantry tilt", folder)


GRIDS = [axial, anisotropic, oblique, coronal, descending, rounded_positions, enhanced, tilted]


@pytest.fixture
def segment(tmp_path):
    """Give ``segment(write_ct, **mask) -> (source, mask, path)``."""

    def write(write_ct, **changes):
        write_ct(tmp_path / "ct")
        source = source_of(tmp_path / "ct")
        mask = mask_on(source, **changes)
        _, content = kidney_segmentation(mask, source, objects_of(source))
        path = tmp_path / "kidneys.seg.dcm"
        path.write_bytes(content)
        return source, mask, path

    return write


def positions_of(seg):
    frames = seg.PerFrameFunctionalGroupsSequence
    return [np.array(f.PlanePositionSequence[0].ImagePositionPatient, dtype=float) for f in frames]


@pytest.mark.parametrize("write_ct", GRIDS, ids=lambda write_ct: write_ct.__name__)
def test_our_own_reader_finds_every_voxel_again(segment, write_ct):
    source, mask, path = segment(write_ct)
    assert np.array_equal(read_back(path, source), CODES[mask.whole()])


@pytest.mark.parametrize("write_ct", GRIDS, ids=lambda write_ct: write_ct.__name__)
def test_highdicom_finds_every_voxel_again(segment, write_ct):
    source, mask, path = segment(write_ct)
    volume = segread(path).get_volume(combine_segments=True)
    found = np.zeros(source.shape, dtype=np.uint8)
    to_grid = np.linalg.inv(LPS @ source.affine) @ volume.affine  # (frame, row, column) to (i, j, k)
    for index in zip(*np.nonzero(volume.array), strict=True):
        exact = (to_grid @ [*index, 1.0])[:3]
        assert np.abs(exact - np.rint(exact)).max() < 0.01
        found[tuple(np.rint(exact).astype(int))] = volume.array[index]
    assert np.array_equal(found, mask.whole())


@pytest.mark.parametrize("write_ct", GRIDS, ids=lambda write_ct: write_ct.__name__)
def test_the_validator_finds_no_error(segment, write_ct):
    _, _, path = segment(write_ct)
    assert errors_of(path) == []


@pytest.mark.parametrize("write_ct", [axial, anisotropic, oblique, coronal, descending, rounded_positions])
def test_each_frame_refers_to_the_file_of_its_slice(segment, write_ct):
    source, mask, path = segment(write_ct)
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in source.files]
    shown = segread(path).get_pixels_by_source_instance(  # (K, rows, columns)
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(shown.transpose(2, 1, 0), mask.whole())


def test_each_frame_refers_to_the_frame_of_its_slice(segment):
    source, mask, path = segment(enhanced)
    uid = pydicom.dcmread(source.files[0]).SOPInstanceUID
    shown = segread(path).get_pixels_by_source_frame(
        uid, source.frame_numbers, combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(shown.transpose(2, 1, 0), mask.whole())


@pytest.mark.parametrize("write_ct", [axial, anisotropic, oblique, coronal, descending])
def test_geometry_is_that_of_the_source_files_to_the_digit(segment, write_ct):
    source, mask, path = segment(write_ct)
    slices = [pydicom.dcmread(file) for file in source.files]
    seg = pydicom.dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert (seg.Rows, seg.Columns) == (slices[0].Rows, slices[0].Columns)
    assert seg.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
    assert shared.PixelMeasuresSequence[0].PixelSpacing == pytest.approx(slices[0].PixelSpacing, abs=1e-6)
    assert shared.PixelMeasuresSequence[0].SliceThickness == slices[0].SliceThickness
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == pytest.approx(
        slices[0].ImageOrientationPatient, abs=1e-9
    )
    places = np.array([s.ImagePositionPatient for s in slices], dtype=float)
    for position in positions_of(seg):
        assert np.abs(places - position).max(axis=1).min() < 1e-5
    assert seg.NumberOfFrames == sum((mask.labels == label).any(axis=(0, 1)).sum() for label in (1, 2))


def test_a_straightened_gantry_has_its_own_grid_and_still_names_its_source(segment):
    source, _, path = segment(tilted)
    assert source.is_resampled
    seg = pydicom.dcmread(path)
    files = [pydicom.dcmread(file) for file in source.files]
    assert (seg.Columns, seg.Rows) == source.shape[:2] != (files[0].Columns, files[0].Rows)
    places = np.array([(LPS @ source.affine @ [0, 0, k, 1])[:3] for k in range(source.shape[2])])
    for position in positions_of(seg):
        assert np.abs(places - position).max(axis=1).min() < 1e-5
    references = seg.ReferencedSeriesSequence[0]
    assert references.SeriesInstanceUID == files[0].SeriesInstanceUID
    assert [item.ReferencedSOPInstanceUID for item in references.ReferencedInstanceSequence] == [
        file.SOPInstanceUID
        for file in files[2:9]  # those that the box of the mask spans
    ]


def test_segments_say_which_organ_they_are_and_who_drew_them(segment):
    _, _, path = segment(axial, labels=(1, 2, 3))
    segments = pydicom.dcmread(path).SegmentSequence
    assert [s.SegmentedPropertyTypeCodeSequence[0].CodeValue for s in segments] == [RIGHT, LEFT, UNKNOWN]
    assert [s.SegmentLabel for s in segments] == ["Right kidney", "Left kidney", "Kidney, side unknown"]
    assert {s.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning for s in segments} == {
        "Anatomical Structure"
    }
    assert {s.SegmentAlgorithmType for s in segments} == {"AUTOMATIC"}
    (algorithm,) = segments[0].SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("kidney_ct_segmentation", "0.1.0")
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert len({s.TrackingUID for s in segments}) == 3


def test_a_mask_that_came_with_the_study_is_not_called_ours(segment):
    _, _, path = segment(axial, made_by="supplied", algorithm_name="supplied mask", algorithm_version="")
    seg = pydicom.dcmread(path)
    assert {s.SegmentAlgorithmType for s in seg.SegmentSequence} == {"SEMIAUTOMATIC"}
    assert seg.SegmentSequence[0].SegmentAlgorithmName == "came with the study: supplied mask"
    assert "SegmentationAlgorithmIdentificationSequence" not in seg.SegmentSequence[0]
    assert seg.SeriesDescription == "Kidneys, supplied mask (research only)"
    assert errors_of(path) == []


@pytest.mark.parametrize("label", [1, 2, 3])
def test_a_single_kidney_is_the_only_segment(segment, label):
    source, mask, path = segment(axial, labels=(label,))
    seg = pydicom.dcmread(path)
    assert [s.SegmentNumber for s in seg.SegmentSequence] == [1]
    assert np.array_equal(read_back(path, source), CODES[mask.whole()])


def test_a_kidney_on_one_slice_keeps_the_slice_distance(segment):
    source, mask, path = segment(axial, labels=(1, 2))
    flat = mask.labels.copy()
    flat[:, :, [n for n in range(flat.shape[2]) if n != 4]] = 0
    _, content = kidney_segmentation(dataclasses.replace(mask, labels=flat), source, objects_of(source))
    path.write_bytes(content)
    measures = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert math.isclose(measures.SpacingBetweenSlices, 12.0)
    assert np.count_nonzero(read_back(path, source)) == np.count_nonzero(flat)


def test_without_a_kidney_there_is_no_segmentation(tmp_path):
    axial(tmp_path / "ct")
    source = source_of(tmp_path / "ct")
    assert kidney_segmentation(mask_on(source, labels=()), source, objects_of(source)) is None


def test_a_mask_on_another_grid_is_an_error(tmp_path):
    axial(tmp_path / "ct")
    source = source_of(tmp_path / "ct")
    moved = source.affine.copy()
    moved[0, 3] += 5.0
    with pytest.raises(ValueError, match="mask must lie on the grid of the source"):
        kidney_segmentation(mask_on(source, affine=moved), source, objects_of(source))
