"""Masks of every format become the same labels on the same grid, or are refused with a code."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
from monai.transforms import LoadImaged
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from shared_nets.data.mask_reader import MaskReader
from shared_nets.data.phantom import write_dicom_series
from shared_nets.refusals import InputRefused
from shared_nets.transforms.kidney_mask import canonical_labels
from shared_nets.transforms.mask_geometry import match_mask_to_image

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE = np.array([[-2.0, 0, 0, 50], [0, -2.0, 0, 40], [0, 0, 5.0, -30], [0, 0, 0, 1]])
LIVER = Code("10200004", "SCT", "Liver")
RIGHT_KIDNEY = Code("9846003", "SCT", "Right kidney")
LEFT_KIDNEY = Code("18639004", "SCT", "Left kidney")


@pytest.fixture
def labels() -> np.ndarray:
    grid = np.zeros((16, 12, 8), dtype=np.uint8)
    grid[2:6, 3:7, 2:5] = 2
    grid[10:14, 4:8, 3:6] = 3
    return grid


def read(path):
    reader = MaskReader()
    return reader.get_data(reader.read(path))


def write_nifti(path, labels, affine=AFFINE):
    image = nib.Nifti1Image(labels, affine)
    image.set_sform(affine, code=1)
    nib.save(image, path)
    return path


def write_itk(path, labels):
    image = sitk.GetImageFromArray(labels.transpose(2, 1, 0).copy())
    lps = LPS @ AFFINE
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def write_seg(tmp_path):
    """Give ``write_seg(segments, codes) -> path``: DICOM SEG on a CT series written for it."""

    def _write(segments, segment_codes, *, kind="BINARY", name="seg.dcm"):
        hu = np.zeros(segments.shape[:3], dtype=np.int16)
        files = write_dicom_series(hu, AFFINE, tmp_path / "ct")
        images = [pydicom.dcmread(file) for file in files]
        algorithm = AlgorithmIdentificationSequence("phantom", codes.cid7162.ArtificialIntelligence, "1")
        seg = Segmentation(
            source_images=images,
            pixel_array=segments.transpose(2, 1, 0, 3),  # frames, rows, columns, segments
            segmentation_type=kind,
            segment_descriptions=[
                SegmentDescription(
                    number,
                    code.meaning,
                    codes.SCT.AnatomicalStructure,
                    code,
                    SegmentAlgorithmTypeValues.AUTOMATIC,
                    algorithm,
                )
                for number, code in enumerate(segment_codes, 1)
            ],
            series_instance_uid=generate_uid(),
            series_number=2,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="phantom",
            manufacturer_model_name="phantom",
            software_versions="1",
            device_serial_number="1",
        )
        path = tmp_path / name
        seg.save_as(path)
        return path

    return _write


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_nifti_of_any_number_type_becomes_small_whole_numbers(tmp_path, labels, suffix, dtype):
    found, meta = read(write_nifti(tmp_path / f"mask{suffix}", labels.astype(dtype)))
    assert np.array_equal(found, labels)
    assert found.dtype == np.uint8
    assert meta["affine"] == pytest.approx(AFFINE)
    assert meta["mask_source"] == "nifti"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_other_formats_lie_on_the_same_ras_grid(tmp_path, labels, suffix):
    found, meta = read(write_itk(tmp_path / f"mask{suffix}", labels.astype(np.int16)))
    assert np.array_equal(found, labels)
    assert meta["affine"] == pytest.approx(AFFINE)


def test_labels_above_255_keep_their_numbers(tmp_path, labels):
    big = labels.astype(np.int32)
    big[0, 0, 7] = 4000
    found, _ = read(write_nifti(tmp_path / "mask.nii.gz", big))
    assert np.array_equal(found, big)
    assert found.dtype == np.uint16


def test_a_trailing_axis_of_one_is_dropped(tmp_path, labels):
    found, _ = read(write_nifti(tmp_path / "mask.nii.gz", labels[..., None]))
    assert np.array_equal(found, labels)


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf])
def test_a_probability_map_is_refused(tmp_path, labels, value):
    floats = labels.astype(np.float32)
    floats[8, 8, 7] = value
    with pytest.raises(InputRefused, match=r"MASK_LABELS_UNKNOWN: mask\.nii\.gz holds values"):
        read(write_nifti(tmp_path / "mask.nii.gz", floats))


def test_several_volumes_in_one_file_are_refused(tmp_path, labels):
    with pytest.raises(InputRefused, match=r"GEOMETRY_NOT_A_VOLUME: .*16×12×8×2"):
        read(write_nifti(tmp_path / "mask.nii.gz", np.stack([labels, labels], axis=-1)))


def test_a_nifti_without_a_position_is_refused(tmp_path, labels):
    image = nib.Nifti1Image(labels, AFFINE)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "mask.nii.gz")
    with pytest.raises(InputRefused, match="GEOMETRY_NO_POSITION"):
        read(tmp_path / "mask.nii.gz")


def test_a_file_cut_short_is_refused(tmp_path, labels):
    path = write_nifti(tmp_path / "mask.nii", labels)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputRefused, match="INPUT_UNREADABLE"):
        read(path)


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nrrd", "mask.dcm", "mask"])
def test_a_file_of_another_kind_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is no mask")
    with pytest.raises(InputRefused, match="INPUT_UNREADABLE"):
        read(tmp_path / name)


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputRefused, match=r"INPUT_NOT_FOUND: There is no mask\.nii"):
        read(tmp_path / "mask.nii")


def test_load_image_passes_refusals_on(tmp_path):
    (tmp_path / "mask.nii.gz").write_bytes(b"this is no mask")
    with pytest.raises(InputRefused, match="INPUT_UNREADABLE"):
        LoadImaged("mask", reader=MaskReader())({"mask": tmp_path / "mask.nii.gz"})


def test_load_image_gives_labels_with_their_affine(write_seg, labels):
    path = write_seg(
        np.stack([labels == 2, labels == 3], axis=-1).astype(np.uint8), [RIGHT_KIDNEY, LEFT_KIDNEY]
    )
    mask = LoadImaged("mask", reader=MaskReader(), ensure_channel_first=True)({"mask": path})["mask"]
    assert mask.shape == (1, 16, 12, 4)
    assert mask.meta["segment_labels"] == {1: "9846003", 2: "18639004"}


def test_dicom_seg_gives_codes_and_leaves_out_empty_slices(write_seg, labels):
    segments = np.stack([labels == 3, labels == 2], axis=-1).astype(np.uint8)
    found, meta = read(write_seg(segments, [LEFT_KIDNEY, RIGHT_KIDNEY]))
    assert np.array_equal(found, np.array([0, 0, 2, 1])[labels[:, :, 2:6]])  # slices 2 to 5 show kidney
    assert meta["segment_labels"] == {1: "18639004", 2: "9846003"}
    assert meta["has_empty_slices_omitted"]
    shifted = AFFINE.copy()
    shifted[2, 3] += 2 * 5.0
    assert meta["affine"] == pytest.approx(shifted)
    assert meta["repairs"] == []


def test_a_dicom_seg_without_empty_slices_lands_on_its_ct(write_seg, labels):
    segments = np.stack([labels == 2, labels == 3], axis=-1).astype(np.uint8)
    found, meta = read(write_seg(segments, [RIGHT_KIDNEY, LEFT_KIDNEY]))
    kidneys = canonical_labels(
        found, meta["affine"], label_set="dicom_seg", segment_codes=meta["segment_labels"]
    )
    matched, findings = match_mask_to_image(
        kidneys,
        image_shape=labels.shape,
        image_affine=AFFINE,
        has_empty_slices_omitted=meta["has_empty_slices_omitted"],
    )
    box = tuple(slice(o, o + n) for o, n in zip(matched.offset, matched.labels.shape, strict=True))
    assert np.array_equal(matched.labels, labels[box] > 0)
    assert matched.labels.sum() == (labels > 0).sum()
    assert findings == kidneys.findings == ()


def test_a_gap_between_the_kidneys_of_a_dicom_seg_stays_empty(write_seg, labels):
    labels[:, :, 4] = 0
    segments = (labels > 0).astype(np.uint8)[..., None]
    found, _ = read(write_seg(segments, [codes.SCT.Kidney]))
    assert np.array_equal(found, labels[:, :, 2:6] > 0)


def test_overlapping_segments_keep_kidneys_on_top_and_say_so(write_seg, labels):
    everything = np.ones_like(labels)
    segments = np.stack([labels == 2, everything, labels == 3], axis=-1).astype(np.uint8)
    found, meta = read(write_seg(segments, [RIGHT_KIDNEY, LIVER, LEFT_KIDNEY]))
    assert np.array_equal(found == 1, labels == 2)
    assert np.array_equal(found == 3, labels == 3)
    assert (found == 2).sum() == (labels == 0).sum()
    assert [repair["code"] for repair in meta["repairs"]] == ["MASK_OVERLAP_RESOLVED"]


def test_a_tumour_lies_on_its_kidney(write_seg, labels):
    tumour = np.zeros_like(labels)
    tumour[3:5, 4:6, 3] = 1
    segments = np.stack([tumour, labels > 0], axis=-1).astype(np.uint8)
    found, _ = read(write_seg(segments, [codes.SCT.Neoplasm, codes.SCT.Kidney]))
    assert (found == 1).sum() == tumour.sum()


def test_a_fractional_dicom_seg_is_refused(write_seg, labels):
    segments = (labels > 0).astype(np.float32)[..., None] * 0.6
    with pytest.raises(InputRefused, match=r"(INPUT_UNREADABLE|MASK_LABELS_UNKNOWN): seg\.dcm"):
        read(write_seg(segments, [codes.SCT.Kidney], kind="FRACTIONAL"))


def test_a_folder_may_hold_one_dicom_seg_among_other_files(write_seg, labels, tmp_path):
    segments = (labels > 0).astype(np.uint8)[..., None]
    write_seg(segments, [codes.SCT.Kidney])  # the CT lies in the same folder
    assert read(tmp_path)[0].any()
    write_seg(segments, [codes.SCT.Kidney], name="second.dcm")
    with pytest.raises(InputRefused, match=r"SERIES_AMBIGUOUS: .*holds 2 DICOM SEG files"):
        read(tmp_path)


def test_a_ct_series_is_no_mask(tmp_path):
    write_dicom_series(np.zeros((8, 8, 3), dtype=np.int16), AFFINE, tmp_path / "ct")
    with pytest.raises(InputRefused, match="INPUT_UNREADABLE: ct holds CT Image Storage, not a label map"):
        read(tmp_path / "ct")


def test_one_path_is_wanted():
    with pytest.raises(ValueError, match="data must be one path, got 2"):
        MaskReader().read(["a.nii", "b.nii"])
