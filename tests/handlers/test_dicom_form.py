"""A finished study leaves DICOM objects where it came as DICOM, and a NIfTI mask where it did not."""

from __future__ import annotations

import dataclasses
import datetime
import io
import logging

import nibabel as nib
import numpy as np
import pydicom
import pytest
from matplotlib.image import imread

from shared_nets.data.dicom_synthetic import synthetic_series, write_series
from shared_nets.handlers.dicom_form import Dicom, Nifti
from shared_nets.handlers.finished_study import FORM_FILES, FinishedStudy
from tests.writers.dicom_studies import (
    CREATED,
    ckd_result,
    errors_of,
    kidney_result,
    mask_on,
    read_back,
    source_of,
    text_of,
)

ALL = {"kidneys.seg.dcm": "SEG", "report.sr.dcm": "SR", "picture.sc.dcm": "OT"}


@pytest.fixture
def source(tmp_path):
    write_series(tmp_path / "ct", synthetic_series())
    return source_of(tmp_path / "ct")


@pytest.fixture
def make_study(source):
    """Give ``make_study(**changes) -> FinishedStudy`` of a DICOM series, both kidneys drawn."""

    def make(**changes) -> FinishedStudy:
        study = FinishedStudy(
            result=ckd_result(), picture_slices=(), source=source, mask=mask_on(source), created=CREATED
        )
        return dataclasses.replace(study, **changes)

    return make


@pytest.fixture
def write(tmp_path):
    """Give ``write(files) -> {name: path}``."""

    def _write(files):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        return {name: tmp_path / name for name in files}

    return _write


@pytest.mark.parametrize("result", [ckd_result(), kidney_result()], ids=["stage", "sizes"])
def test_a_dicom_study_gets_three_objects_in_series_of_their_own(make_study, write, source, result):
    paths = write(Dicom()(make_study(result=result)))
    objects = {name: pydicom.dcmread(path) for name, path in paths.items()}
    assert {name: dataset.Modality for name, dataset in objects.items()} == ALL
    assert set(objects) < set(FORM_FILES)
    ct = pydicom.dcmread(source.files[0])
    for dataset in objects.values():
        assert dataset.StudyInstanceUID == ct.StudyInstanceUID
        assert (dataset.PatientName, dataset.PatientID) == ("Synthetic^Person", "SYNTHETIC-1")
    assert [dataset.SeriesNumber for dataset in objects.values()] == [9001, 9002, 9003]
    assert len({dataset.SeriesInstanceUID for dataset in (*objects.values(), ct)}) == 4
    assert len({dataset.SOPInstanceUID for dataset in objects.values()}) == 3
    assert all("research only" in dataset.SeriesDescription for dataset in objects.values())


@pytest.mark.filterwarnings("ignore:A value of type .DT.:UserWarning")  # of the other clock
def test_equal_studies_leave_equal_bytes_whenever_they_are_written(make_study, monkeypatch):
    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(days=500)

    first = Dicom()(make_study())
    monkeypatch.setattr(datetime, "datetime", Later)
    assert Dicom()(make_study()) == first


def test_the_validator_finds_no_error(make_study, write):
    for path in write(Dicom()(make_study())).values():
        assert errors_of(path) == []


@pytest.mark.registry
def test_the_validator_finds_no_error_beside_a_real_series(make_study, write, lidc_dicom):
    source = source_of(lidc_dicom)
    study = make_study(source=source, mask=mask_on(source))
    paths = write(Dicom()(study))
    for path in paths.values():
        assert errors_of(path) == []
    found = read_back(paths["kidneys.seg.dcm"], source)
    assert np.array_equal(found, np.array([0, 9846003, 18639004])[study.mask.whole()])


def test_report_segmentation_and_picture_tell_the_same_story(make_study, write, source):
    study = make_study()
    paths = write(Dicom()(study))
    assert '"Creatinine [Mass/volume] in Serum or Plasma")="1.35"' in text_of(paths["report.sr.dcm"])
    found = read_back(paths["kidneys.seg.dcm"], source)
    assert np.array_equal(found, np.array([0, 9846003, 18639004])[study.mask.whole()])
    picture = pydicom.dcmread(paths["picture.sc.dcm"])
    assert (picture.BurnedInAnnotation, picture.ConversionType) == ("YES", "WSD")
    assert (picture.DateOfSecondaryCapture, picture.TimeOfSecondaryCapture) == ("20260102", "030405")
    assert picture.pixel_array.shape == (792, 1364, 3)
    drawn = imread(io.BytesIO(study.picture_png), format="png")[..., :3]  # 0 to 1
    assert np.array_equal(picture.pixel_array, np.round(drawn * 255))


def test_nothing_of_the_patient_reaches_the_log(make_study, caplog):
    with caplog.at_level(logging.DEBUG):
        Dicom()(make_study())
    assert caplog.records  # highdicom does say something
    for secret in ("Synthetic^Person", "SYNTHETIC-1", "061Y"):
        assert secret not in caplog.text


@pytest.mark.parametrize("labels", [None, ()], ids=["no mask", "empty mask"])
def test_without_kidneys_there_are_report_and_picture(make_study, source, labels):
    mask = None if labels is None else mask_on(source, labels=labels)
    assert set(Dicom()(make_study(mask=mask))) == {"report.sr.dcm", "picture.sc.dcm"}


def test_a_source_without_uids_leaves_dicom_out_and_says_so(make_study, source, caplog):
    for file in source.files:
        dataset = pydicom.dcmread(file)
        del dataset.StudyInstanceUID
        dataset.save_as(file)
    assert Dicom()(make_study()) == {}
    (message,) = [r.getMessage() for r in caplog.records if r.name == "shared_nets.handlers.dicom_form"]
    assert message.startswith("case_00001: no DICOM is written, the source must have valid StudyInstanceUID,")


@pytest.mark.parametrize("has_source", [True, False])
def test_a_study_that_is_not_dicom_gets_nifti_instead(make_study, source, has_source, caplog):
    other = dataclasses.replace(source, files=(), frame_numbers=()) if has_source else None
    study = make_study(source=other)
    assert Dicom()(study) == {}
    assert caplog.records == []
    assert set(Nifti()(study)) == {"kidneys.nii.gz"}


def test_a_dicom_study_gets_no_nifti(make_study):
    assert Nifti()(make_study()) == {}


def test_no_mask_gives_no_nifti(make_study):
    assert Nifti()(make_study(source=None, mask=None)) == {}


def test_the_nifti_holds_the_mask_on_the_grid_of_the_source(make_study, source, write):
    study = make_study(source=None)
    files = Nifti()(study)
    assert files == Nifti()(study)
    assert files["kidneys.nii.gz"][4:8] == bytes(4)  # the time in the header of gzip
    image = nib.load(write(files)["kidneys.nii.gz"])
    assert image.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(image.dataobj), study.mask.whole())
    assert image.affine == pytest.approx(source.affine)
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
