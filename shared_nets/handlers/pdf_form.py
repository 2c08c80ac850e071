"""A finished study as a PDF: a document of its DICOM study, or a file where the source is not DICOM."""

from __future__ import annotations

from collections.abc import Mapping

from shared_nets.handlers.dicom_form import dicom_objects
from shared_nets.handlers.finished_study import FinishedStudy
from shared_nets.writers.dicom_pdf import encapsulated_pdf
from shared_nets.writers.result_page import page_content
from shared_nets.writers.result_pdf import result_pdf


class Pdf:
    """``report.pdf.dcm`` in the study of a DICOM source; ``report.pdf`` where there is no such study."""

    def __call__(self, study: FinishedStudy) -> Mapping[str, bytes]:
        """Write it."""
        pdf = result_pdf(study.result, picture_png=study.picture_png, created=study.created)
        objects = dicom_objects(study)
        if objects is None:
            return {"report.pdf": pdf}
        title = f"{page_content(study.result).kind}, AI report (research only)"
        return {"report.pdf.dcm": encapsulated_pdf(pdf, title, objects)}
