"""Which source series new DICOM objects can refer to, and what is taken from their headers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pydicom
import pytest

from shared_nets.data.dicom_synthetic import enhanced_ct, synthetic_series, write_file, write_series
from shared_nets.writers.dicom_source import NotReferable, read_dicom_source
from tests.writers.dicom_studies import source_of


@pytest.fixture
def changed(tmp_path):
    """Give ``changed(change) -> SourceImage``: a sound series, changed on disk after it was read."""

    def write(change):
        write_series(tmp_path / "ct", synthetic_series())
        source = source_of(tmp_path / "ct")
        for k, file in enumerate(source.files):
            dataset = pydicom.dcmread(file)
            with pydicom.config.disable_value_validation():
                change(k, dataset)
                dataset.save_as(file)
        return source

    return write


def without(keyword, only=None):
    def change(k, dataset):
        if only is None or k == only:
            delattr(dataset, keyword)

    return change


def with_value(keyword, value, only=None):
    def change(k, dataset):
        if only is None or k == only:
            setattr(dataset, keyword, value)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(without("SOPInstanceUID", only=4), "must have valid", id="no instance UID"),
        pytest.param(without("StudyInstanceUID"), "must have valid", id="no study UID"),
        pytest.param(without("FrameOfReferenceUID"), "must have valid", id="no frame of reference"),
        pytest.param(with_value("SeriesInstanceUID", "1.02.x"), "must have valid", id="bad UID"),
        pytest.param(with_value("SOPInstanceUID", "1.2.3"), "the same SOPInstanceUID", id="UIDs twice"),
        pytest.param(
            with_value("SeriesInstanceUID", "1.2.3", only=2), "not belong to one series", id="mixed"
        ),
        pytest.param(
            with_value("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"), "one kind of CT", id="a capture"
        ),
    ],
)
def test_a_series_without_usable_uids_cannot_be_referred_to(changed, change, reason):
    with pytest.raises(NotReferable, match=reason):
        read_dicom_source(changed(change))


def test_an_image_that_is_not_dicom_cannot_be_referred_to(changed):
    source = dataclasses.replace(changed(lambda k, dataset: None), files=(), frame_numbers=())
    with pytest.raises(NotReferable, match="is not DICOM"):
        read_dicom_source(source)


def test_several_multi_frame_files_cannot_be_referred_to(tmp_path):
    (tmp_path / "ct").mkdir()
    write_file(tmp_path / "ct" / "a.dcm", enhanced_ct())
    source = source_of(tmp_path / "ct")
    other = pydicom.dcmread(source.files[0])
    other.SOPInstanceUID = "1.2.3"
    other.save_as(tmp_path / "ct" / "b.dcm")
    files = (*source.files[:6], *[str(tmp_path / "ct" / "b.dcm")] * 6)
    with pytest.raises(NotReferable, match="several multi-frame"):
        read_dicom_source(dataclasses.replace(source, files=files))


def test_images_hold_nothing_personal_and_the_source_does_not_show_it(changed):
    source = read_dicom_source(changed(with_value("AccessionNumber", "ACC-1")))
    assert source.header.PatientName == "Synthetic^Person"
    for image in source.images:
        assert "Synthetic" not in str(image).replace(
            "Manufacturer                        LO: 'Synthetic'", ""
        )
        assert "SYNTHETIC-1" not in str(image)
    assert "SYNTHETIC-1" not in repr(source)
    assert "ACC-1" not in repr(source)


def test_a_missing_slice_thickness_is_the_distance_of_the_slices(changed):
    source = read_dicom_source(changed(without("SliceThickness")))
    assert source.images[0].SliceThickness == 2.0


def test_slices_are_found_by_their_number(changed, tmp_path):
    source = read_dicom_source(changed(lambda k, dataset: None))
    assert [source.image_of(k)[0].SOPInstanceUID[-2:] for k in (0, 8)] == [".1", ".9"]
    assert source.image_of(8)[1] is None


def test_files_without_preamble_are_read(changed):
    source = changed(lambda k, dataset: None)
    for file in source.files:
        dataset = pydicom.dcmread(file)
        del dataset.file_meta, dataset.preamble
        with Path(file).open("wb") as out:
            pydicom.dcmwrite(out, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert len(read_dicom_source(source).images) == 12
