import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from shared_nets.data.ct_reader import CTReader
from shared_nets.data.dicom_synthetic import synthetic_hounsfield
from shared_nets.data.mask_reader import MaskReader
from shared_nets.refusals import InputRefused

AFFINE = np.array([[-0.8, 0, 0, 12], [0, 0.8, 0, -9], [0, 0, 2.0, 100], [0, 0, 0, 1]])


def nifti(path: Path, values=None, *, units="mm") -> Path:
    image = nib.Nifti1Image(synthetic_hounsfield() if values is None else values, AFFINE)
    image.header.set_xyzt_units(units)
    nib.save(image, path)
    return path


def read(path: Path, slices=None):
    reader = CTReader()
    return reader.get_data(reader.open(path), slices)


def refusal(path: Path, **options) -> str:
    reader = CTReader(**options)
    with pytest.raises(InputRefused) as caught:
        reader.get_data(reader.read(path))
    assert path.name in caught.value.message
    return caught.value.code


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_values_and_affine_equal_those_of_nibabel(suffix, tmp_path):
    path = nifti(tmp_path / f"ct{suffix}")
    image, meta = read(path)
    other = nib.load(path)
    assert image.dtype == np.int16
    assert np.array_equal(image, np.asarray(other.dataobj))
    np.testing.assert_array_equal(meta["affine"], other.affine)
    assert np.array_equal(read(path, [9, 3])[0], np.asarray(other.dataobj)[..., [9, 3]])


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1.0, -1024.0, np.int16), (0.5, -1000.0, np.float32)]
)
def test_the_scale_of_a_nifti_is_applied(slope, intercept, dtype, tmp_path):
    stored = (synthetic_hounsfield() + 1024).astype(np.int16)
    image = nib.Nifti1Image(stored, AFFINE)
    nib.save(image, tmp_path / "ct.nii")
    data = bytearray((tmp_path / "ct.nii").read_bytes())
    data[112:120] = np.array([slope, intercept], dtype="<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "ct.nii").write_bytes(data)
    values, _ = read(tmp_path / "ct.nii")
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, stored * slope + intercept)


def test_a_big_endian_nifti_is_read(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(synthetic_hounsfield().astype(">i2"), AFFINE, header), tmp_path / "ct.nii.gz")
    assert nib.load(tmp_path / "ct.nii.gz").header.endianness == ">"
    assert np.array_equal(read(tmp_path / "ct.nii.gz")[0], synthetic_hounsfield())


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
def test_nrrd_and_metaimage_lie_where_simpleitk_puts_them(suffix, tmp_path):
    image = sitk.GetImageFromArray(synthetic_hounsfield().transpose(2, 1, 0))
    image.SetSpacing((0.8, 0.9, 2.0))
    image.SetOrigin((-12.0, -9.0, 100.0))
    sitk.WriteImage(image, str(tmp_path / f"ct{suffix}"))
    values, meta = read(tmp_path / f"ct{suffix}", [2, 1])
    assert np.array_equal(values, synthetic_hounsfield()[..., [2, 1]])
    expected = [[-0.8, 0, 0, 12], [0, -0.9, 0, 9], [0, 0, 2, 100], [0, 0, 0, 1]]
    np.testing.assert_allclose(meta["affine"], expected, atol=1e-12)


def test_a_nifti_without_sform_and_qform_is_refused(tmp_path):
    path = nifti(tmp_path / "ct.nii")
    data = bytearray(path.read_bytes())
    data[252:256] = bytes(4)  # qform_code, sform_code
    path.write_bytes(data)
    assert refusal(path) == "GEOMETRY_NO_POSITION"


def test_a_nifti_whose_sform_and_qform_differ_is_refused(tmp_path):
    image = nib.Nifti1Image(synthetic_hounsfield(), AFFINE)
    image.set_sform(AFFINE, code=1)
    image.set_qform(AFFINE + np.eye(4) * [[0], [0], [0.2], [0]], code=1)
    nib.save(image, tmp_path / "ct.nii")
    assert refusal(tmp_path / "ct.nii") == "GEOMETRY_CONFLICT"


@pytest.mark.parametrize(
    ("column", "code"),
    [
        pytest.param([0, 0, 0, 0], "GEOMETRY_BAD_SPACING", id="singular"),
        pytest.param([0, 0.4, 2, 0], "GEOMETRY_BAD_ORIENTATION", id="sheared"),
        pytest.param([0, 0, np.nan, 0], "GEOMETRY_BAD_SPACING", id="not a number"),
    ],
)
def test_an_impossible_affine_is_refused(column, code, tmp_path):
    path = nifti(tmp_path / "ct.nii")
    data = bytearray(path.read_bytes())
    data[252:254] = b"\0\0"  # qform_code
    data[254:256] = b"\1\0"  # sform_code
    affine = AFFINE.copy()
    affine[:, 2] = column
    data[280:328] = affine[:3].astype("<f4").tobytes()  # srow_x, srow_y, srow_z
    path.write_bytes(data)
    assert refusal(path) == code


def test_metres_are_refused(tmp_path):
    assert refusal(nifti(tmp_path / "ct.nii", units="meter")) == "GEOMETRY_BAD_SPACING"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        pytest.param(np.zeros((4, 4, 4, 2), np.int16), "GEOMETRY_NOT_A_VOLUME", id="4-D"),
        pytest.param(np.zeros((4, 4), np.int16), "GEOMETRY_NOT_A_VOLUME", id="2-D"),
        pytest.param(np.zeros((4, 4, 1), np.int16), "GEOMETRY_TOO_FEW_SLICES", id="one slice"),
        pytest.param(np.full((4, 4, 4), np.nan, np.float32), "PIXEL_NOT_FINITE", id="NaN"),
        pytest.param(np.linspace(0, 1, 64, dtype=np.float32).reshape(4, 4, 4), "PIXEL_NOT_HU", id="0 to 1"),
        pytest.param(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), "PIXEL_NOT_HU", id="8 bit"),
        pytest.param(np.full((4, 4, 4), 40000, np.uint16), "PIXEL_NOT_HU", id="beyond any scanner"),
        pytest.param(np.zeros((4, 4, 4), np.complex64), "PIXEL_FORMAT_UNSUPPORTED", id="complex"),
    ],
)
def test_values_that_are_no_ct_volume_are_refused(values, code, tmp_path):
    assert refusal(nifti(tmp_path / "ct.nii.gz", values)) == code


def test_a_trailing_dimension_of_one_is_no_fourth_dimension(tmp_path):
    path = nifti(tmp_path / "ct.nii.gz", synthetic_hounsfield()[..., None])
    assert np.array_equal(read(path)[0], synthetic_hounsfield())


def test_a_short_nifti_is_refused_by_its_header_and_a_short_archive_when_decoded(tmp_path):
    path = nifti(tmp_path / "ct.nii")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(InputRefused, match="PIXEL_TRUNCATED"):
        CTReader().open(path)
    packed = gzip.compress(whole)
    (tmp_path / "ct.nii.gz").write_bytes(packed[: len(packed) // 2])
    assert refusal(tmp_path / "ct.nii.gz") == "PIXEL_TRUNCATED"


def test_files_of_another_kind_under_a_volume_suffix_are_refused(tmp_path):
    for name in ("ct.nii", "ct.nii.gz", "ct.nrrd", "ct.mha"):
        (tmp_path / name).write_bytes(b"no image at all" * 100)
        assert refusal(tmp_path / name) == "INPUT_UNREADABLE"


def test_an_nrrd_that_names_no_space_is_refused(tmp_path):
    data = synthetic_hounsfield().transpose(2, 1, 0).tobytes()
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 40 32 12\nendian: little\nencoding: raw\n\n"
    (tmp_path / "ct.nrrd").write_bytes(head.encode() + data)
    assert refusal(tmp_path / "ct.nrrd") == "GEOMETRY_NO_POSITION"


def test_values_without_air_are_used_with_a_warning(tmp_path):
    _, meta = read(nifti(tmp_path / "ct.nii", np.maximum(synthetic_hounsfield(), -150)))
    assert [finding["code"] for finding in meta["warnings"]] == ["PIXEL_NOT_HU"]


def test_a_folder_with_one_volume_is_that_volume_and_two_volumes_are_ambiguous(tmp_path):
    nifti(tmp_path / "a.nii.gz")
    assert CTReader().open(tmp_path).source == "nifti"
    with pytest.raises(InputRefused, match="SERIES_AMBIGUOUS"):
        CTReader().open([nifti(tmp_path / "b.nii.gz"), tmp_path / "a.nii.gz"])


HUGE = (2000, 1000, 1000)  # 2 · 10⁹ voxels


def packed_nifti_of_huge_size(path: Path) -> Path:
    header = nib.Nifti1Header()
    header.set_data_shape(HUGE)
    header.set_data_dtype(np.int16)
    header.set_sform(AFFINE, code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(1000)))
    return path


def nrrd_of_huge_size(path: Path) -> Path:
    lines = ["NRRD0004", "type: short", "dimension: 3", "space: left-posterior-superior"]
    lines += [f"sizes: {' '.join(map(str, HUGE))}", "space directions: (1,0,0) (0,1,0) (0,0,1)"]
    lines += ["space origin: (0,0,0)", "encoding: gzip", "endian: little", "", ""]
    path.write_bytes("\n".join(lines).encode() + gzip.compress(bytes(1000)))
    return path


@pytest.mark.parametrize(
    ("write", "name"), [(packed_nifti_of_huge_size, "ct.nii.gz"), (nrrd_of_huge_size, "ct.nrrd")]
)
def test_a_small_file_that_unpacks_to_more_than_is_read_is_refused_by_its_header(write, name, tmp_path):
    path = write(tmp_path / name)
    assert refusal(path) == "IMAGE_TOO_LARGE"
    mask = MaskReader()
    with pytest.raises(InputRefused, match=r"IMAGE_TOO_LARGE.*2000×1000×1000 voxels, more than"):
        mask.get_data(mask.read(path))
