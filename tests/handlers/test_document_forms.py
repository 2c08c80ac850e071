"""Page and FHIR report of a finished study: their files, and whose names are carried over, unheard."""

import json
import logging
from datetime import UTC, datetime

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from shared_nets.handlers.document_forms import Fhir, Page, read_source_header
from shared_nets.handlers.finished_study import FORM_FILES, FinishedStudy
from shared_nets.transforms.ckd_epi import STAGES
from shared_nets.types import RESEARCH_USE_ONLY, CKDResult, Estimate, KidneySlices, Provenance, SourceImage

PERSON = {
    "PatientID": "P-17", "IssuerOfPatientID": "Ward 3", "PatientName": "Müller^Jane",
    "PatientBirthDate": "19601231", "PatientSex": "F", "StudyDate": "20250203", "AccessionNumber": "A-99",
}  # fmt: skip


@pytest.fixture
def write_slice(tmp_path):
    """Give ``write_slice(**attributes) -> SourceImage`` of one DICOM file with these attributes."""

    def write(**attributes) -> SourceImage:
        slice_ = Dataset()
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.SpecificCharacterSet = "ISO_IR 192"
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, "1.2.3.4.5"
        for keyword, value in attributes.items():
            setattr(slice_, keyword, value)
        path = tmp_path / "slice.dcm"
        slice_.save_as(path, enforce_file_format=True)
        return SourceImage(files=(str(path),), frame_numbers=(1,), shape=(4, 4, 1), affine=np.eye(4))

    return write


@pytest.fixture
def finished():
    """Give ``finished(source) -> FinishedStudy``."""

    def finish(source: SourceImage | None) -> FinishedStudy:
        result = CKDResult(
            study_id="case_1",
            creatinine=Estimate(value=1.35, low=0.95, high=1.9, level=0.9, unit="mg/dL"),
            egfr=Estimate(value=54.2, low=36.1, high=81.9, level=0.9, unit="mL/min/{1.73_m2}"),
            stage="G3a",
            stage_probabilities={stage: float(stage == "G3a") for stage in STAGES},
            slices=KidneySlices(
                indices=(3,), positions_mm=(-1.5,), is_valid=(True,), areas_mm2=(800.0,), num_kidney_slices=1,
                sop_instance_uids=(),
            ),
            clinical_used={}, clinical_missing=(), kidney_measurements={}, warnings=(),
            statements=("a", "b", "c"),
            provenance=Provenance(
                bundle="b", bundle_version="1", config_sha256="a" * 64, weights_sha256={"model": "b" * 64},
                packages={}, image={}, mask={}, repairs=(), thresholds={},
            ),
        )  # fmt: skip
        created = datetime(2026, 1, 2, tzinfo=UTC)
        return FinishedStudy(result=result, picture_slices=(), source=source, mask=None, created=created)

    return finish


def patient(study: FinishedStudy) -> dict:
    (content,) = Fhir()(study).values()
    (found,) = [
        entry["resource"]
        for entry in json.loads(content)["entry"]
        if entry["resource"]["resourceType"] == "Patient"
    ]
    return found


def test_both_forms_write_files_that_a_later_run_takes_away(finished):
    study = finished(None)
    page, report = Page()(study), Fhir()(study)
    assert [*page, *report] == ["page.html", "report.fhir.json"]
    assert {*page, *report} <= set(FORM_FILES)
    assert RESEARCH_USE_ONLY in page["page.html"].decode()
    assert b"data:image/png;base64," in page["page.html"]
    assert json.loads(report["report.fhir.json"])["timestamp"] == "2026-01-02T00:00:00+00:00"


def test_the_person_of_a_dicom_source_is_read_from_its_header(finished, write_slice):
    source = write_slice(**PERSON)
    assert read_source_header(source) == {
        "patient_id": "P-17", "issuer_of_patient_id": "Ward 3", "patient_name": "Müller^Jane",
        "birth_date": "19601231", "sex": "F", "study_date": "20250203", "accession_number": "A-99",
    }  # fmt: skip
    found = patient(finished(source))
    assert found["identifier"][0]["value"] == "P-17"
    assert found["name"][0]["family"] == "Müller"


@pytest.mark.parametrize(
    "source", [None, SourceImage(files=(), frame_numbers=(), shape=(1, 1, 1), affine=np.eye(4))]
)
def test_without_dicom_there_is_nobody_but_the_study(finished, source):
    assert read_source_header(source) is None
    assert patient(finished(source))["identifier"][0]["value"] == "case_1"


def test_a_header_without_a_person_is_about_the_study(finished, write_slice):
    source = write_slice(PatientName=None)
    assert set(read_source_header(source).values()) == {""}
    assert patient(finished(source))["identifier"][0]["value"] == "case_1"


def test_odd_names_dates_and_letters_are_carried_over_unheard(finished, write_slice, caplog, recwarn):
    with pytest.warns(UserWarning, match="Invalid value"):
        source = write_slice(
            PatientID="P-17", PatientName="Doe^" + "J" * 80, PatientBirthDate="31.12.1960", PatientSex="woman"
        )
    recwarn.clear()
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        found = patient(finished(source))
    told = caplog.text + "".join(str(warning.message) for warning in recwarn)
    assert found["name"][0]["family"] == "Doe"
    assert "birthDate" not in found
    assert told == ""


def test_nothing_of_the_person_stands_on_the_page(finished, write_slice):
    page = Page()(finished(write_slice(**PERSON)))["page.html"].decode()
    assert "Müller" not in page
    assert "P-17" not in page
