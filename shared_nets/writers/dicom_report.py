"""A result as DICOM Structured Report: TID 1500 with all its numbers, and what a reader must know of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from shared_nets.types import CKDResult, KidneyResult, LesionResult, StudyResult
from shared_nets.writers import dicom_codes
from shared_nets.writers.dicom_kidney import ckd_content, kidney_content
from shared_nets.writers.dicom_lesion import lesion_content
from shared_nets.writers.dicom_measurements import ReportContent
from shared_nets.writers.dicom_object import MANUFACTURER, DicomObjects
from shared_nets.writers.dicom_source import DicomSource

if TYPE_CHECKING:
    from highdicom import sr
    from highdicom.seg import Segmentation

#: What is particular to each kind of result, from the result, the segmentation and the objects.
_CONTENTS: dict[type, Callable[[Any, Any, DicomObjects], ReportContent]] = {
    CKDResult: ckd_content,
    KidneyResult: kidney_content,
    LesionResult: lesion_content,
}
#: Modalities of sources that are not CT.
_MODALITIES = {"XC": codes.DCM.ExternalCameraPhotography, "DMS": codes.DCM.Dermoscopy}
_OTHER_MODALITY = Code("OT", "DCM", "Other")
_QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")


def structured_report(result: StudyResult, segmentation: Segmentation | None, objects: DicomObjects) -> bytes:
    """Write a result as Enhanced SR, TID 1500 "Measurement Report".

    The document is complete, preliminary and unverified: software has said all it has to say, and nobody has
    looked at it.

    Args:
        result: what to report.
        segmentation: the kidneys that sizes refer to; ``None`` where there are none.
        objects: the objects of the result.

    Returns:
        The file.
    """
    try:
        from highdicom import sr
        from highdicom.coding_schemes import CodingSchemeIdentificationItem
    except ImportError as error:
        raise ImportError("DICOM objects need highdicom: pip install highdicom.") from error
    source = objects.source
    said = _CONTENTS[type(result)](result, segmentation, objects)
    report = sr.MeasurementReport(
        observation_context=_observer(objects),
        procedure_reported=said.procedure,
        imaging_measurements=said.groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    content = report[0].ContentSequence
    content.insert(len(content) - 1, _image_library(source))
    content.append(_remarks(result, said.remarks))
    evidence: list[Dataset] = [*source.images, *([] if segmentation is None else [segmentation])]
    document = sr.EnhancedSR(
        evidence=evidence,
        content=report,
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[
            CodingSchemeIdentificationItem(dicom_codes.OWN_SCHEME, name=dicom_codes.OWN_SCHEME_NAME)
        ],
        **objects.identity("SR", f"{said.what}, AI report (research only)"),
    )
    return objects.finish(document)


def _observer(objects: DicomObjects) -> sr.ObservationContext:
    from highdicom import sr

    provenance = objects.provenance
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=objects.device_uid,
        name=f"{provenance.bundle} {provenance.bundle_version}",
        manufacturer_name=MANUFACTURER,
        model_name=provenance.bundle,
        serial_number=objects.serial_number,
    )
    return sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))


def _image_library(source: DicomSource) -> sr.ContainerContentItem:
    """List the source images (TID 1600); what they share is said once, which keeps large series readable."""
    from highdicom import sr

    contains, context = sr.RelationshipTypeValues.CONTAINS, sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
    first = source.images[0]
    place = []
    if not source.is_photograph:
        uid = first.FrameOfReferenceUID
        place.append(sr.UIDRefContentItem(codes.DCM.FrameOfReferenceUID, uid, context))
    group = sr.ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=contains)
    group.ContentSequence = sr.ContentSequence(
        [
            sr.CodeContentItem(codes.DCM.Modality, _modality(source), context),
            *place,
            *(
                sr.ImageContentItem(
                    Code("260753009", "SCT", "Source"),
                    image.SOPClassUID,
                    image.SOPInstanceUID,
                    relationship_type=contains,
                )
                for image in source.images
            ),
        ]
    )
    library = sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=contains)
    library.ContentSequence = sr.ContentSequence([group])
    return library


def _modality(source: DicomSource) -> Code:
    if not source.is_photograph:
        return codes.DCM.ComputedTomography
    return _MODALITIES.get(str(source.images[0].get("Modality")), _OTHER_MODALITY)


def _remarks(result: StudyResult, more: Sequence[tuple[Code, str]]) -> sr.ContainerContentItem:
    """Say what a reader must know: what the result is for, its warnings, and what it cannot show."""
    from highdicom import sr

    contains = sr.RelationshipTypeValues.CONTAINS
    texts = [
        (dicom_codes.NOTICE, result.notice),
        *more,
        *((dicom_codes.WARNING, f"{warning.message} ({warning.code})") for warning in result.warnings),
        *((dicom_codes.LIMITATION, statement) for statement in result.statements),
    ]
    remarks = sr.ContainerContentItem(_QUALITATIVE_EVALUATIONS, relationship_type=contains)
    remarks.ContentSequence = sr.ContentSequence(
        [sr.TextContentItem(name, text, contains) for name, text in texts]
    )
    return remarks
