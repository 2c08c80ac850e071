"""The PDF of a study holds its words as text, fits its pages, and lies in the study of a DICOM source."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess

import pydicom
import pytest

from shared_nets.handlers.finished_study import FORM_FILES, FinishedStudy
from shared_nets.handlers.pdf_form import Pdf
from shared_nets.types import Finding
from tests.writers.dicom_studies import (
    CREATED,
    ckd_result,
    errors_of,
    kidney_result,
    source_of,
    write_phantom,
)
from tests.writers.lesion_results import lesion_result


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return source_of(write_phantom(tmp_path_factory.mktemp("pdf") / "ct"))


def finished(result, source=None) -> FinishedStudy:
    return FinishedStudy(result=result, picture_slices=(), source=source, mask=None, created=CREATED)


def text_of_pdf(content: bytes, *options: str) -> str:
    """Let poppler read a PDF aloud."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed: apt-get install poppler-utils")
    command = ["pdftotext", *options, "-layout", "-", "-"]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout.decode()


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        pytest.param(ckd_result(), "eGFR 54 mL/min/1.73 m²", id="stage"),
        pytest.param(kidney_result(), "Right kidney volume: 151.2 mL", id="sizes"),
        pytest.param(lesion_result(), "Skin lesion", id="lesion"),
    ],
)
def test_the_words_of_the_result_can_be_read_out_of_the_pdf(result, answer):
    text = text_of_pdf(Pdf()(finished(result))["report.pdf"])
    assert text.count("Research use only. Not a medical device.") >= 2
    for wanted in (answer, result.study_id, result.provenance.bundle, result.provenance.config_sha256):
        assert wanted in text
    assert "nan" not in text.split()


def test_many_warnings_go_on_on_further_pages_and_none_is_lost():
    warnings = tuple(Finding(code="X", message=f"Warning number {n}: {'words ' * 30}") for n in range(60))
    text = text_of_pdf(Pdf()(finished(ckd_result(warnings=warnings)))["report.pdf"])
    assert all(f"Warning number {n}:" in text for n in range(60))
    assert text.count("\f") == 4  # ends of pages
    assert all(f"page {number} of 4" in text for number in (1, 2, 3, 4))


def test_a_dollar_sign_and_a_backslash_are_letters():
    warning = Finding(code="X", message=r"It costs $5 and \frac{1}{2}$.")
    assert r"$5 and \frac{1}{2}$." in text_of_pdf(
        Pdf()(finished(ckd_result(warnings=(warning,))))["report.pdf"]
    )


def test_a_dicom_study_gets_the_pdf_as_a_document_of_its_own(source, tmp_path):
    files = Pdf()(finished(ckd_result(), source))
    assert set(files) == {"report.pdf.dcm"} <= set(FORM_FILES)
    path = tmp_path / "report.pdf.dcm"
    path.write_bytes(files["report.pdf.dcm"])
    assert errors_of(path) == []
    document, ct = pydicom.dcmread(path), pydicom.dcmread(source.files[0])
    assert document.StudyInstanceUID == ct.StudyInstanceUID
    assert document.SeriesInstanceUID != ct.SeriesInstanceUID
    assert (document.Modality, document.PatientID) == ("DOC", ct.PatientID)
    assert document.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert document.DocumentTitle == "CKD staging, AI report (research only)"
    assert len(document.SourceInstanceSequence) == len(source.files)
    pdf = document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]
    assert pdf == Pdf()(finished(ckd_result()))["report.pdf"]


def test_equal_studies_leave_equal_bytes_and_another_moment_other_ones(source):
    first = Pdf()(finished(ckd_result(), source))
    assert Pdf()(finished(ckd_result(), source)) == first
    later = dataclasses.replace(finished(ckd_result(), source), created=CREATED.replace(year=2027))
    assert Pdf()(later) != first
