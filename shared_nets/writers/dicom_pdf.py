"""A PDF as DICOM Encapsulated PDF, in the study of the source."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from shared_nets.writers.dicom_object import DicomObjects, long_string


def encapsulated_pdf(pdf: bytes, title: str, objects: DicomObjects) -> bytes:
    """Write a PDF as Encapsulated PDF.

    Args:
        pdf: the file; it shows numbers and the study's name, so BurnedInAnnotation says yes.
        title: of the document, and description of its series.
        objects: the objects of the result.

    Returns:
        The file.
    """
    try:
        from highdicom.base import SOPClass
    except ImportError as error:
        raise ImportError("DICOM objects need highdicom: pip install highdicom.") from error
    document = SOPClass(
        study_instance_uid=objects.source.images[0].StudyInstanceUID,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **objects.identity("PDF", title),
    )
    document.ConversionType = "WSD"  # made on a workstation
    document.AcquisitionDateTime = ""
    document.BurnedInAnnotation = "YES"
    document.DocumentTitle = long_string(title)
    document.ConceptNameCodeSequence = []
    document.VerificationFlag = "UNVERIFIED"
    document.SourceInstanceSequence = [_reference(image) for image in objects.source.images]
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocumentLength = len(pdf)
    document.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return objects.finish(document)


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item
