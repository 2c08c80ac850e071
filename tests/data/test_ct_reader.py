import os
import pickle
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirstd, LoadImaged
from pydicom.config import disable_value_validation

from shared_nets.data import dicom_pixels
from shared_nets.data.ct_reader import CTReader
from shared_nets.data.dicom_defects import DEFECTS, write_defect
from shared_nets.data.dicom_synthetic import (
    INTERCEPT,
    get_pixels,
    set_pixels,
    synthetic_hounsfield,
    synthetic_series,
    write_series,
)
from shared_nets.refusals import InputRefused

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom.valuerep")

LOAD = LoadImaged(keys="image", reader=CTReader(), dtype=None)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    write_defect("sound", tmp_path / "ct")
    return tmp_path / "ct"


def codes(findings):
    return [finding["code"] for finding in findings]


@pytest.mark.parametrize("name", [name for name, defect in DEFECTS.items() if defect.refusal])
def test_a_defect_beyond_repair_is_refused_through_load_image(name, tmp_path):
    defect = write_defect(name, tmp_path / "ct")
    with pytest.raises(InputRefused) as caught:
        LOAD({"image": tmp_path / "ct"})
    assert caught.value.code == defect.refusal
    assert "Synthetic^Person" not in str(caught.value)
    assert "SYNTHETIC-1" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, defect in DEFECTS.items() if not defect.refusal])
def test_what_can_be_read_is_read_and_its_repair_is_listed(name, tmp_path):
    defect = write_defect(name, tmp_path / "ct")
    image = LOAD({"image": tmp_path / "ct"})["image"]
    assert codes(image.meta["repairs"]) == ([defect.repair] if defect.repair else [])
    assert codes(image.meta["warnings"]) == ([defect.warning] if defect.warning else [])
    if defect.same_values:
        assert np.array_equal(np.asarray(image), synthetic_hounsfield())


def test_affine_and_voxels_equal_those_of_simpleitk(sound):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(sound)))
    other = reader.Execute()
    to_ras = np.diag([-1.0, -1.0, 1.0])
    image, meta = CTReader().get_data(CTReader().open(sound))
    assert np.array_equal(image, sitk.GetArrayFromImage(other).transpose(2, 1, 0))
    axes = np.array(other.GetDirection()).reshape(3, 3) * other.GetSpacing()
    np.testing.assert_allclose(meta["affine"][:3, :3], to_ras @ axes, atol=1e-12)
    np.testing.assert_allclose(meta["affine"][:3, 3], to_ras @ other.GetOrigin(), atol=1e-12)


def test_monochrome1_is_inverted_as_simpleitk_inverts_it(tmp_path):
    write_defect("monochrome1", tmp_path / "ct")
    one = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "ct" / "IM0001.dcm")))[0]
    assert np.array_equal(CTReader().get_data(CTReader().open(tmp_path / "ct"), [0])[0][..., 0], one.T)


def test_signed_monochrome1_is_inverted_within_the_signed_range(tmp_path):
    series = synthetic_series()
    for dataset in series:
        dataset.PhotometricInterpretation, dataset.RescaleIntercept = "MONOCHROME1", 0
        set_pixels(dataset, (-1 - (get_pixels(dataset).astype("<i2") + np.int16(INTERCEPT))).astype("<i2"))
    write_series(tmp_path / "ct", series)
    image, _ = CTReader().get_data(CTReader().open(tmp_path / "ct"))
    assert np.array_equal(image, synthetic_hounsfield())


def test_anisotropic_pixels_keep_their_axes(tmp_path):
    write_defect("anisotropic pixels", tmp_path / "ct")  # 1.6 mm between rows, 0.8 mm between columns
    series = CTReader().open(tmp_path / "ct")
    assert series.spacing_mm == (0.8, 1.6, 2.0)
    np.testing.assert_allclose(series.affine[:3, :3], np.diag([-0.8, -1.6, 2.0]))


def test_the_grid_is_right_handed_when_slices_are_acquired_from_head_to_feet(tmp_path):
    series = synthetic_series()
    for dataset in series:  # lying prone and feet first: rows run to the left, columns to the front
        dataset.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
    write_series(tmp_path / "ct", series)
    opened = CTReader().open(tmp_path / "ct")
    assert np.linalg.det(opened.affine[:3, :3]) > 0
    image, _ = CTReader().get_data(opened)
    assert image[0, 0].tolist() == synthetic_hounsfield()[0, 0, ::-1].tolist()
    assert opened.slice_positions_mm[0] == pytest.approx(-122.0)  # along the normal, which points to the feet
    assert opened.sop_uids[0] == series[-1].SOPInstanceUID


@pytest.mark.parametrize("header_first", [True, False])
def test_headers_are_read_without_decoding_and_only_asked_slices_are_decoded(
    header_first, sound, monkeypatch
):
    decoded = []
    plain = dicom_pixels.read_stored_values

    def count(frame, out):
        decoded.append(frame.sop_uid)
        plain(frame, out)

    monkeypatch.setattr(dicom_pixels, "read_stored_values", count)
    reader = CTReader()
    series = reader.open(sound) if header_first else reader.read(sound)
    assert decoded == []
    image, meta = reader.get_data(series, [7, 2])
    assert sorted(decoded) == sorted([series.sop_uids[7], series.sop_uids[2]])
    assert np.array_equal(image, synthetic_hounsfield()[..., [7, 2]])
    assert meta["slice_indices"] == [7, 2]
    assert meta["spatial_shape"].tolist() == [40, 32, 12]


def test_a_damaged_slice_does_not_matter_until_it_is_asked_for(tmp_path):
    write_defect("jpeg 2000 damaged", tmp_path / "ct")
    series = CTReader().open(tmp_path / "ct")
    assert np.array_equal(CTReader().get_data(series, [0, 11])[0], synthetic_hounsfield()[..., [0, 11]])
    with pytest.raises(InputRefused, match=r"PIXEL_UNDECODABLE: .*IM0006\.dcm"):
        CTReader().get_data(series, [5])


def test_a_slice_that_does_not_exist_is_an_error(sound):
    with pytest.raises(IndexError, match="slices must lie within 0 … 11, got"):
        CTReader().get_data(CTReader().open(sound), [12])


def test_meta_data_serve_monai_and_survive_a_pickle(sound):
    image = EnsureChannelFirstd(keys="image")(LOAD({"image": sound}))["image"]
    assert isinstance(image, MetaTensor)
    assert image.shape == (1, 40, 32, 12)
    np.testing.assert_allclose(np.diag(image.affine.numpy()), [-0.8, -0.8, 2.0, 1.0])
    meta = pickle.loads(pickle.dumps(image.meta))
    assert meta["header"]["PatientAge"] == "061Y"
    assert meta["header"]["BodyPartExamined"] == "ABDOMEN"
    assert len(meta["sop_uids"]) == 12
    assert "Synthetic^Person" not in str(meta)


def test_reading_needs_little_more_memory_than_the_volume(tmp_path):
    series = synthetic_series(40)
    for dataset in series:
        set_pixels(dataset, np.full((256, 256), 24, dtype="<u2"))
        dataset.RescaleType = "HU"
    set_pixels(series[0], np.full((256, 256), 1024, dtype="<u2"))
    write_series(tmp_path / "ct", series)
    opened = CTReader().open(tmp_path / "ct")
    tracemalloc.start()
    image, _ = CTReader().get_data(opened)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert image.dtype == np.int16
    assert peak <= 1.2 * image.nbytes


def test_whole_numbers_stay_int16_and_fractions_become_float32(tmp_path):
    write_defect("sound", tmp_path / "whole")
    write_defect("slope per slice", tmp_path / "fraction")
    reader = CTReader()
    assert reader.get_data(reader.open(tmp_path / "whole"))[0].dtype == np.int16
    assert reader.get_data(reader.open(tmp_path / "fraction"))[0].dtype == np.float32


def test_padding_becomes_air_and_nothing_else_changes(tmp_path):
    write_defect("padding", tmp_path / "ct")
    image, _ = CTReader().get_data(CTReader().open(tmp_path / "ct"))
    expected = synthetic_hounsfield()
    expected[:2, :2] = -1024
    assert np.array_equal(image, expected)


def test_gantry_tilt_is_undone_voxel_by_voxel(tmp_path):
    """The synthetic values grow linearly in space, so linear interpolation must reproduce them exactly."""
    write_defect("gantry tilt", tmp_path / "ct")
    series = CTReader().open(tmp_path / "ct")
    image, _ = CTReader().get_data(series)
    axes = series.affine[:3, :3] / series.spacing_mm
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    cos, sin = np.cos(np.deg2rad(15)), np.sin(np.deg2rad(15))
    assert series.spacing_mm == pytest.approx((0.8, 0.8, 2.0 * cos))
    sheared = np.array(  # the sheared grid of the files: RAS from (i, j, k), by hand
        [[-0.8, 0, 0, 12], [0, -0.8 * cos, 0, 9], [0, 0.8 * sin, 2.0, 100], [0, 0, 0, 1]]
    )
    where = np.stack([*np.indices(series.shape), np.ones(series.shape)], axis=-1)
    i, j, k = np.moveaxis((where @ (np.linalg.inv(sheared) @ series.affine).T)[..., :3], -1, 0)
    inside = (j > 1e-6) & (j < 31 - 1e-6)
    assert inside.mean() > 0.7
    np.testing.assert_allclose(image[inside], (-1000 + 100 * k + 3 * j + i)[inside], atol=0.501)
    assert (image[(j < -1) | (j > 32)] == -1024).all()


def test_gantry_tilt_is_refused_on_request(tmp_path):
    write_defect("gantry tilt", tmp_path / "ct")
    with pytest.raises(InputRefused, match=r"GEOMETRY_GANTRY_TILT: .* 15\.0°"):
        CTReader(gantry_tilt="refuse").open(tmp_path / "ct")


def test_the_wanted_series_is_found_by_its_uid(tmp_path):
    write_defect("two series", tmp_path / "ct")
    with pytest.raises(InputRefused, match="SERIES_AMBIGUOUS") as caught:
        CTReader().open(tmp_path / "ct")
    uid = caught.value.message.split("UID ")[-1].rstrip(".")
    series = CTReader(series_uid=uid).open(tmp_path / "ct")
    assert series.series_uid == uid
    assert series.shape == (40, 32, 12)
    with pytest.raises(InputRefused, match="SERIES_NOT_FOUND"):
        CTReader(series_uid="1.2.3").open(tmp_path / "ct")


def test_a_list_of_files_is_one_series(sound):
    files = sorted(sound.iterdir(), reverse=True)
    image, _ = CTReader().get_data(CTReader().open(files))
    assert np.array_equal(image, synthetic_hounsfield())


def test_burned_in_annotation_is_refused_on_request(tmp_path):
    write_defect("burned-in annotation", tmp_path / "ct")
    with pytest.raises(InputRefused, match="PIXEL_BURNED_IN_ANNOTATION"):
        CTReader(burned_in="refuse").open(tmp_path / "ct")


@pytest.mark.parametrize(
    ("part", "refused", "warned"),
    [
        pytest.param("HEAD", True, False, id="clearly elsewhere"),
        pytest.param("CHESTABDPELVIS", False, False, id="part of a longer word"),
        pytest.param("HEART", False, True, id="another part of the trunk"),
        pytest.param("", False, False, id="not stated"),
    ],
)
def test_the_body_part_is_checked_on_request(part, refused, warned, tmp_path):
    series = synthetic_series()
    for dataset in series:
        dataset.BodyPartExamined = part
    write_series(tmp_path / "ct", series)
    reader = CTReader(body_parts=("ABD", "KIDNEY"))
    assert CTReader().open(tmp_path / "ct").warnings == ()
    if refused:
        with pytest.raises(InputRefused, match="WRONG_BODY_PART"):
            reader.open(tmp_path / "ct")
    else:
        assert [finding.code for finding in reader.open(tmp_path / "ct").warnings] == (
            ["WRONG_BODY_PART"] if warned else []
        )


def test_positions_rounded_to_a_tenth_are_one_spacing(tmp_path):
    series = synthetic_series()
    for k, dataset in enumerate(series):
        dataset.ImagePositionPatient = [-12, -9, round(0.625 * k, 1)]
    write_series(tmp_path / "ct", series)
    assert CTReader().open(tmp_path / "ct").spacing_mm[2] == pytest.approx(0.625, abs=0.01)


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputRefused, match="INPUT_NOT_FOUND"):
        LOAD({"image": tmp_path / "nowhere"})


def test_a_file_without_permission_is_refused_rather_than_skipped(sound, monkeypatch):
    locked = sound / "IM0003.dcm"
    locked.chmod(0)
    if os.access(locked, os.R_OK):  # root reads everything
        plain = Path.open

        def refuse(self, *arguments, **keywords):
            if self.name == locked.name:
                raise PermissionError(13, "Permission denied", str(self))
            return plain(self, *arguments, **keywords)

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputRefused, match=r"INPUT_NO_PERMISSION: IM0003\.dcm"):
        LOAD({"image": sound})


def test_jpeg_lossless_written_by_gdcm_is_read(sound, tmp_path):
    reader, writer = sitk.ImageFileReader(), sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")  # lossless, process 14
    (tmp_path / "jpeg").mkdir()
    for file in sound.iterdir():
        reader.SetFileName(str(file))
        writer.SetFileName(str(tmp_path / "jpeg" / file.name))
        writer.Execute(reader.Execute())
    image, _ = CTReader().get_data(CTReader().open(tmp_path / "jpeg"))
    assert np.array_equal(image, synthetic_hounsfield())


def test_a_refused_series_refuses_every_use(tmp_path):
    write_defect("tagged MR", tmp_path / "ct")
    refused = CTReader().read(tmp_path / "ct")
    with pytest.raises(InputRefused, match="WRONG_MODALITY"):
        _ = refused.shape
    with pytest.raises(InputRefused, match="WRONG_MODALITY"):
        CTReader().get_data(refused)
    assert CTReader(modality=None).open(tmp_path / "ct").modality == "MR"


def test_an_enhanced_file_names_its_frames(tmp_path):
    write_defect("enhanced", tmp_path / "ct")  # stored order 3, 1, 0, 2, 11, 10, …
    series = CTReader().open(tmp_path / "ct" / "enhanced.dcm")
    assert series.frame_numbers[:4] == (3, 2, 4, 1)
    assert len(set(series.sop_uids)) == 1


def test_a_nifti_copy_gives_the_same_world(sound, tmp_path):
    series = CTReader().open(sound)
    image, _ = CTReader().get_data(series)
    nib.save(nib.Nifti1Image(image, series.affine), tmp_path / "ct.nii.gz")
    again = CTReader().open(tmp_path / "ct.nii.gz")
    np.testing.assert_allclose(again.affine, series.affine, atol=1e-5)  # NIfTI stores float32
    assert np.array_equal(CTReader().get_data(again)[0], image)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="gantry_tilt must be one of"):
        CTReader(gantry_tilt="ignore")


def test_two_vendors_scouts_are_recognised_by_image_type(tmp_path):
    series = synthetic_series()
    with disable_value_validation():
        series[0].ImageType = ["DERIVED", "PRIMARY", "SCOUT"]
    write_series(tmp_path / "ct", series)
    opened = CTReader().open(tmp_path / "ct")
    assert opened.shape[2] == 11
    assert [finding.code for finding in opened.repairs] == ["LOCALIZER_DROPPED"]
