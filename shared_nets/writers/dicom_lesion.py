"""The class that a model gives a skin lesion, as a measurement group of a DICOM report (TID 1501)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.sr.coding import Code

from shared_nets.types import LesionResult
from shared_nets.writers import dicom_codes
from shared_nets.writers.dicom_measurements import ReportContent, algorithm, measurement
from shared_nets.writers.dicom_object import DicomObjects
from shared_nets.writers.lesion_words import CLASS_CONCEPTS, NO_LABEL, class_in_words

if TYPE_CHECKING:
    from highdicom.seg import Segmentation


def lesion_content(
    result: LesionResult, segmentation: Segmentation | None, objects: DicomObjects
) -> ReportContent:
    """Write one group: the class or that there is none, the prediction set, and every number.

    Args:
        result: what to report.
        segmentation: not used; a photograph has none.
        objects: the objects of the result.

    Returns:
        The content.
    """
    from highdicom import sr

    probabilities = [
        (dicom_codes.own(f"p_{name}", f"Probability of {class_in_words(name)}"), probability)
        for name, probability in result.class_probabilities.items()
    ]
    numbers = [*probabilities, (dicom_codes.MALIGNANT_CLASS, result.malignancy)]
    if result.coverage is not None:
        numbers.append((dicom_codes.SET_COVERAGE, result.coverage))
    if result.ood_score is not None and result.ood_limit is not None:
        numbers += [(dicom_codes.OOD_DISTANCE, result.ood_score), (dicom_codes.OOD_LIMIT, result.ood_limit)]
    label = dicom_codes.own("no_label", NO_LABEL) if result.label is None else class_code(result.label)
    evaluations = [(dicom_codes.LESION_CLASS, label)]
    evaluations += [(dicom_codes.IN_PREDICTION_SET, class_code(name)) for name in result.prediction_set]
    image, _ = objects.source.image_of(0)
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(objects.uid("tracking", "lesion"), "Skin lesion"),
        finding_type=dicom_codes.SKIN_LESION,
        finding_sites=[sr.FindingSite(dicom_codes.SKIN)],
        algorithm_id=algorithm(objects),
        measurements=[measurement(name, value, dicom_codes.NO_UNITS) for name, value in numbers],
        qualitative_evaluations=[sr.QualitativeEvaluation(name, value) for name, value in evaluations],
        source_images=[sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)],
    )
    is_dermoscopy = image.get("Modality") == "DMS"
    return ReportContent(
        what="Skin lesion",
        procedure=dicom_codes.DERMOSCOPY if is_dermoscopy else dicom_codes.PHOTOGRAPHY,
        groups=[group],
        remarks=[(dicom_codes.ABSTENTION, f"{one.message} ({one.code})") for one in result.abstentions],
    )


def class_code(name: str) -> Code:
    """Give the code of a class: of SNOMED CT where one of its concepts is all of the class, else our own."""
    if name in CLASS_CONCEPTS:
        value, meaning = CLASS_CONCEPTS[name]
        return Code(value, "SCT", meaning)
    return dicom_codes.own(f"class_{name}", class_in_words(name))
