import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.transforms import LoadImaged
from PIL import ExifTags, Image, ImageCms
from pydicom.config import disable_value_validation

from shared_nets.data.photograph_defects import PHOTOGRAPH_DEFECTS, write_photograph_defect
from shared_nets.data.photograph_reader import PhotographReader
from shared_nets.data.photograph_synthetic import (
    dicom_photograph,
    synthetic_photograph,
    write_dicom_photograph,
)
from shared_nets.refusals import InputRefused

LOAD = LoadImaged(keys="image", reader=PhotographReader(), ensure_channel_first=True, dtype=None)


def load(path):
    return LOAD({"image": path})["image"]


def codes(findings):
    return [finding["code"] for finding in findings]


@pytest.mark.parametrize("name", [name for name, defect in PHOTOGRAPH_DEFECTS.items() if defect.refusal])
def test_what_cannot_be_read_is_refused_through_load_image(name, tmp_path):
    defect, path = write_photograph_defect(name, tmp_path / "x")
    with pytest.raises(InputRefused) as caught:
        load(path)
    assert caught.value.code == defect.refusal
    assert caught.value.remedy
    assert "Synthetic^Person" not in str(caught.value)
    assert "SYNTHETIC-1" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, defect in PHOTOGRAPH_DEFECTS.items() if not defect.refusal])
def test_what_can_be_read_is_read_and_what_was_done_is_listed(name, tmp_path):
    defect, path = write_photograph_defect(name, tmp_path / "x")
    image = load(path)
    assert codes(image.meta["repairs"]) == ([defect.repair] if defect.repair else [])
    assert codes(image.meta["warnings"]) == ([defect.warning] if defect.warning else [])
    assert image.dtype == torch.uint8
    if defect.tolerance is not None:
        assert image.shape == (3, 48, 64)
        difference = np.asarray(image).astype(int) - synthetic_photograph().transpose(2, 0, 1)
        assert np.abs(difference).max() <= defect.tolerance


def test_a_pixel_stays_at_its_row_and_column(tmp_path):
    pixels = np.zeros((30, 50, 3), dtype=np.uint8)
    pixels[7, 41] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = load(tmp_path / "a.png")
    assert image.shape == (3, 30, 50)
    assert image[:, 7, 41].tolist() == [10, 20, 30]
    assert int(image.sum()) == 60


def test_meta_data_name_the_source_and_no_person(tmp_path):
    write_dicom_photograph(tmp_path / "photo.dcm")
    meta = load(tmp_path / "photo.dcm").meta
    assert (meta["source"], meta["modality"]) == ("dicom", "DMS")
    assert meta["files"] == [str(tmp_path / "photo.dcm")]
    assert meta["frame_numbers"] == [1]
    assert meta["study_uid"].endswith(".9.1")
    assert meta["series_uid"].endswith(".9.2")
    assert [uid[-4:] for uid in meta["sop_uids"]] == [".4.1"]
    assert meta["header"]["format"] == "DICOM"
    assert meta["header"]["sop_class_uid"] == "1.2.840.10008.5.1.4.1.1.77.1.7"
    assert meta["header"]["PatientAge"] == "061Y"
    assert len(meta["header"]["sha256"]) == 64
    assert "Synthetic^Person" not in str(meta)
    assert "SYNTHETIC-1" not in str(meta)


def test_notes_of_the_camera_do_not_reach_the_meta_data(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Jane Doe"
    Image.fromarray(synthetic_photograph()).save(tmp_path / "a.jpg", exif=exif)
    meta = load(tmp_path / "a.jpg").meta
    assert "Jane Doe" not in str(meta)
    assert (meta["source"], meta["files"], meta["study_uid"]) == ("photograph", [], "")
    json.dumps({name: meta[name] for name in ("header", "repairs", "warnings")})  # plain values only


def test_half_transparent_pixels_are_laid_over_white(tmp_path):
    _, path = write_photograph_defect("alpha, half", tmp_path / "x")
    image = load(path)
    expected = synthetic_photograph()[10, 20] * (128 / 255) + 255 * (127 / 255)
    np.testing.assert_allclose(np.asarray(image[:, 10, 20]), expected, atol=1)
    assert "100.0%" in image.meta["repairs"][0]["message"]


@pytest.mark.parametrize(
    ("values", "brightest"),
    [
        pytest.param((4095, 2048, 0), (255, 128, 0), id="12 bits in use"),
        pytest.param((65535, 32768, 0), (255, 128, 0), id="16 bits in use"),
        pytest.param((16383, 4096, 0), (255, 64, 0), id="14 bits in use"),
    ],
)
def test_coloured_tiff_of_16_bits_is_scaled_by_the_bits_in_use(values, brightest, tmp_path):
    pixels = np.empty((20, 30, 3), dtype=np.uint16)
    pixels[:] = values
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / "a.tif"))
    image = load(tmp_path / "a.tif")
    assert image[:, 3, 4].tolist() == list(brightest)
    assert codes(image.meta["repairs"]) == ["IMAGE_16_BIT"]


def test_coloured_png_of_16_bits_keeps_its_colours(tmp_path):
    pixels = np.empty((20, 30, 3), dtype=np.uint16)
    pixels[:] = (0x8000, 0x4000, 0xFFFF)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / "a.png"))
    image = load(tmp_path / "a.png")
    assert image[:, 3, 4].tolist() == [0x80, 0x40, 0xFF]
    assert codes(image.meta["repairs"]) == ["IMAGE_16_BIT"]


@pytest.mark.registry
def test_display_p3_of_a_telephone_is_converted_as_the_matrices_of_the_standards_say(naevus_photo):
    image = np.asarray(load(naevus_photo)).astype(float).transpose(1, 2, 0) / 255.0
    with Image.open(naevus_photo) as picture:
        p3 = np.asarray(picture.convert("RGB")).astype(float) / 255.0
    linear = np.where(p3 <= 0.04045, p3 / 12.92, ((p3 + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
    linear = (linear @ matrix.T).clip(0.0, 1.0)  # Display P3 → sRGB, both D65
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(image - expected).max() < 2.5 / 255.0
    assert np.abs(p3 - expected).max() > 10 / 255.0  # so it was not left as it is


def test_a_profile_of_srgb_itself_changes_nothing_and_is_not_listed(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(synthetic_photograph()).save(tmp_path / "a.png", icc_profile=profile)
    image = load(tmp_path / "a.png")
    assert np.array_equal(np.asarray(image).transpose(1, 2, 0), synthetic_photograph())
    assert image.meta["repairs"] == []


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path):
    Image.new("L", (15000, 12000)).save(tmp_path / "a.png")
    with pytest.raises(InputRefused, match=r"IMAGE_TOO_LARGE.*170 million pixels"):
        load(tmp_path / "a.png")


def test_a_decompression_bomb_is_refused_as_too_large(tmp_path):
    head = io.BytesIO()
    Image.new("L", (8, 8)).save(head, format="BMP")
    data = bytearray(head.getvalue())
    data[18:26] = (60000).to_bytes(4, "little") * 2
    (tmp_path / "a.bmp").write_bytes(bytes(data))
    with pytest.raises(InputRefused, match="IMAGE_TOO_LARGE"):
        load(tmp_path / "a.bmp")


def test_a_very_large_jpeg_is_decoded_at_half_its_size_and_that_is_listed(tmp_path):
    Image.new("RGB", (9000, 8400), (200, 150, 130)).save(tmp_path / "a.jpg", quality=50)
    image = load(tmp_path / "a.jpg")
    assert image.shape == (3, 4200, 4500)
    assert codes(image.meta["repairs"]) == ["IMAGE_REDUCED"]
    assert image.meta["is_resampled"]
    assert image.meta["header"]["stored_shape"] == [8400, 9000]


def test_inverted_grey_is_the_complement_of_grey(tmp_path):
    _, one = write_photograph_defect("dicom grey", tmp_path / "x")
    _, other = write_photograph_defect("dicom grey, inverted", tmp_path / "y")
    assert int((load(one).int() + load(other).int() - 255).abs().max()) == 0


def test_a_dicom_palette_is_looked_up(tmp_path):
    _, path = write_photograph_defect("dicom palette", tmp_path / "x")
    stored = int(synthetic_photograph()[9, 0, 0])
    assert load(path)[:, 9, 5].tolist() == [stored, 255 - stored, 90]


def test_burned_in_text_is_refused_where_asked(tmp_path):
    _, path = write_photograph_defect("dicom burned-in", tmp_path / "x")
    with pytest.raises(InputRefused, match="PIXEL_BURNED_IN_ANNOTATION"):
        PhotographReader(burned_in="refuse").open(path)


def test_a_value_that_pydicom_dislikes_is_not_quoted_in_a_warning(tmp_path, recwarn, caplog):
    with disable_value_validation():
        dataset = dicom_photograph()
        dataset.PatientID = "SECRET" * 20
        dataset.StudyDate = "SECRET"
        write_dicom_photograph(tmp_path / "photo.dcm", dataset)
    load(tmp_path / "photo.dcm")
    assert "SECRET" not in caplog.text + "".join(str(warning.message) for warning in recwarn)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param([], "INPUT_EMPTY", id="no file"),
        pytest.param(["a.png", "b.png"], "SERIES_AMBIGUOUS", id="two files"),
        pytest.param("nowhere.png", "INPUT_NOT_FOUND", id="not there"),
    ],
)
def test_a_path_that_names_no_single_photograph_is_refused(data, code):
    with pytest.raises(InputRefused) as caught:
        PhotographReader().open(data)
    assert caught.value.code == code


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    path: Path = tmp_path / "a.png"
    Image.fromarray(synthetic_photograph()).save(path)
    path.chmod(0)
    with pytest.raises(InputRefused, match="INPUT_NO_PERMISSION"):
        PhotographReader().open(path)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="burned_in must be warn or refuse, got 'yes'"):
        PhotographReader(burned_in="yes")
    with pytest.raises(ValueError, match="must be positive"):
        PhotographReader(max_megapixels=0)
