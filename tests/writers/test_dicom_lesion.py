"""A lesion beside a DICOM photograph: report and picture in its study, valid, and every number readable."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pydicom
import pytest
from highdicom.sr import srread
from pydicom.uid import SecondaryCaptureImageStorage

from shared_nets.data.photograph_reader import PhotographReader
from shared_nets.data.photograph_synthetic import (
    DERMOSCOPY,
    VL_PHOTOGRAPH,
    dicom_photograph,
    write_dicom_photograph,
)
from shared_nets.handlers.dicom_form import Dicom, Nifti
from shared_nets.handlers.finished_study import FinishedStudy
from shared_nets.types import SourceImage
from shared_nets.writers.dicom_source import NotReferable, read_dicom_source
from tests.writers.dicom_studies import CREATED, errors_of, text_of
from tests.writers.lesion_results import abstaining_result, lesion_result, uncalibrated_result


def source_of(path) -> SourceImage:
    """Read a photograph as a run does."""
    reader = PhotographReader()
    pixels, meta = reader.get_data(reader.read(path))
    return SourceImage(
        files=tuple(meta["files"]),
        frame_numbers=tuple(meta["frame_numbers"]),
        shape=(pixels.shape[1], pixels.shape[0], 1),
        affine=np.eye(4),
    )


@pytest.fixture
def make_study(tmp_path):
    """Give ``make_study(result, sop_class, change=None) -> FinishedStudy`` of a DICOM photograph."""

    def make(result=None, sop_class=DERMOSCOPY, change=None) -> FinishedStudy:
        dataset = dicom_photograph(sop_class=sop_class)
        path = tmp_path / "mole.dcm"
        write_dicom_photograph(path, dataset)
        source = source_of(path)
        if change is not None:
            changed = pydicom.dcmread(path)
            change(changed)
            changed.save_as(path)
        return FinishedStudy(
            result=result or lesion_result(), picture_slices=(), source=source, mask=None, created=CREATED
        )

    return make


@pytest.fixture
def written(tmp_path, make_study):
    """Give ``written(...) -> {name: path}`` of the DICOM files of a study."""

    def write(*arguments, **more):
        files = Dicom()(make_study(*arguments, **more))
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        return {name: tmp_path / name for name in files}

    return write


@pytest.mark.parametrize("sop_class", [DERMOSCOPY, VL_PHOTOGRAPH, SecondaryCaptureImageStorage])
@pytest.mark.parametrize("make", [lesion_result, abstaining_result, uncalibrated_result])
def test_the_validator_finds_no_error_beside_any_photograph(written, make, sop_class):
    paths = written(make(), sop_class)
    assert set(paths) == {"report.sr.dcm", "picture.sc.dcm"}
    for path in paths.values():
        assert errors_of(path) == []


def test_the_objects_belong_to_the_study_and_the_person_of_the_photograph(written, tmp_path):
    paths = written()
    photograph = pydicom.dcmread(tmp_path / "mole.dcm")
    for path in paths.values():
        dataset = pydicom.dcmread(path)
        assert dataset.StudyInstanceUID == photograph.StudyInstanceUID
        assert (dataset.PatientName, dataset.PatientID) == ("Synthetic^Person", "SYNTHETIC-1")
        assert dataset.SeriesInstanceUID != photograph.SeriesInstanceUID
        assert dataset.SeriesDescription.startswith("Skin lesion, AI ")
    assert pydicom.dcmread(paths["picture.sc.dcm"]).ImageLaterality == "U"


def test_dcmtk_reads_every_number_aloud(written):
    text = text_of(written()["report.sr.dcm"])
    for line in (
        '"Procedure reported")=(446078004,SCT,"Dermoscopic photography")',
        '"Modality")=(DMS,DCM,"Dermoscopy")',
        '"Finding")=(95324001,SCT,"Skin lesion")',
        '"Probability of melanoma")="0.201" (1,UCUM,"no units")',
        '"Probability of actinic keratosis / Bowen\'s disease")="0.021"',
        '"Probability of a malignant class")="0.256"',
        '"Coverage of the prediction set")="0.9"',
        '"Distance from the training images")="14.25"',
        '"Most probable class of the lesion, by a model")=(class_nv,99SHARED_NETS,"melanocytic naevus")',
        '"Class in the prediction set")=(2092003,SCT,"Malignant melanoma")',
        '"Warning")="The photograph has few pixels. (IMAGE_SMALL)"',
        '"Notice")="Research use only.',
        "Verification Flag   : UNVERIFIED",
    ):
        assert line in text, line
    assert "Why no label is given" not in text


def test_an_abstention_is_reported_with_its_reason(written):
    text = text_of(written(abstaining_result())["report.sr.dcm"])
    assert 'by a model")=(no_label,99SHARED_NETS,"No label given")' in text
    assert '"Why no label is given")="The image is unlike those' in text
    assert "(ABSTAIN_OUT_OF_DISTRIBUTION)" in text


def test_the_measurements_name_the_photograph(written, tmp_path):
    document = srread(written()["report.sr.dcm"])
    (group,) = document.content.get_image_measurement_groups()
    uid = pydicom.dcmread(tmp_path / "mole.dcm").SOPInstanceUID
    assert [image.referenced_sop_instance_uid for image in group.source_images] == [uid]
    assert {found for _, _, found, _ in document.get_evidence()} == {uid}


def test_a_photograph_of_another_camera_is_called_photography(written):
    text = text_of(written(sop_class=VL_PHOTOGRAPH)["report.sr.dcm"])
    assert '(197157006,SCT,"Photography of patient")' in text
    assert '(XC,DCM,"External-camera Photography")' in text


def test_equal_studies_leave_equal_bytes(make_study):
    assert Dicom()(make_study()) == Dicom()(make_study())


def test_a_photograph_needs_no_frame_of_reference_but_its_own_uids(make_study, caplog):
    def without_series(dataset):
        del dataset.SeriesInstanceUID

    study = make_study(change=without_series)
    with caplog.at_level(logging.WARNING):
        assert Dicom()(study) == {}
    assert "must have valid StudyInstanceUID, SeriesInstanceUID, SOPClassUID" in caplog.text


def test_several_photographs_are_no_source(make_study, tmp_path):
    source = make_study().source
    other = dicom_photograph()
    other.SOPInstanceUID = "1.2.3"
    write_dicom_photograph(tmp_path / "other.dcm", other)
    both = dataclasses.replace(source, files=(*source.files, str(tmp_path / "other.dcm")))
    with pytest.raises(NotReferable, match="neither one kind of CT image nor one photograph"):
        read_dicom_source(both)


def test_a_photograph_that_is_no_dicom_gets_neither_dicom_nor_nifti(make_study):
    study = make_study()
    source = dataclasses.replace(study.source, files=(), frame_numbers=())
    study = dataclasses.replace(study, source=source)
    assert Dicom()(study) == Nifti()(study) == {}
