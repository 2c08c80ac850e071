"""Forms that people and hospital systems read without an image viewer: the page, and the FHIR report."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import pydicom
from pydicom.config import disable_value_validation

from shared_nets.handlers.finished_study import FinishedStudy
from shared_nets.types import SourceImage
from shared_nets.writers.fhir_report import SourceHeader, fhir_report
from shared_nets.writers.result_page import result_page

#: DICOM attributes of person and study, by what the report calls them.
_KEYWORDS = {
    "patient_id": "PatientID",
    "issuer_of_patient_id": "IssuerOfPatientID",
    "patient_name": "PatientName",
    "birth_date": "PatientBirthDate",
    "sex": "PatientSex",
    "study_date": "StudyDate",
    "accession_number": "AccessionNumber",
}


class Page:
    """``page.html``."""

    def __call__(self, study: FinishedStudy) -> Mapping[str, bytes]:
        """Write it, with the picture in it."""
        return {"page.html": result_page(study.result, picture_png=study.picture_png)}


class Fhir:
    """``report.fhir.json``, about the person whom the header of a DICOM source names."""

    def __call__(self, study: FinishedStudy) -> Mapping[str, bytes]:
        """Write it; without a DICOM source it is about the study alone."""
        header = read_source_header(study.source)
        return {"report.fhir.json": fhir_report(study.result, created=study.created, patient=header)}


def read_source_header(source: SourceImage | None) -> SourceHeader | None:
    """Read person and study from the first file of a DICOM source.

    What pydicom has to say about odd values is silenced, because it may repeat the values.

    Args:
        source: the image of the result.

    Returns:
        The values as the header has them; ``None`` where the source is not DICOM.
    """
    if source is None or not source.is_dicom:
        return None
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(
            source.files[0], force=True, stop_before_pixels=True, specific_tags=list(_KEYWORDS.values())
        )
        values = {name: str(header.get(keyword) or "") for name, keyword in _KEYWORDS.items()}
    return SourceHeader(**values)  # type: ignore[typeddict-item]
