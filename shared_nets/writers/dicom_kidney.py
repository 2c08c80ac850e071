"""The numbers of kidneys as measurement groups of a DICOM Structured Report (TID 1411 and TID 1501)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydicom.sr.coding import Code

from shared_nets.types import KIDNEY_SIDES, CKDResult, Estimate, KidneyResult
from shared_nets.writers import dicom_codes
from shared_nets.writers.dicom_measurements import DIGITS, ReportContent, algorithm, measurement
from shared_nets.writers.dicom_object import DicomObjects
from shared_nets.writers.dicom_seg import tracking_uid

if TYPE_CHECKING:
    from highdicom import sr
    from highdicom.seg import Segmentation

    from shared_nets.writers.dicom_measurements import Group

_LABELS = {"right": 1, "left": 2}


def ckd_content(result: CKDResult, segmentation: Segmentation | None, objects: DicomObjects) -> ReportContent:
    """Write a group for the stage, one for each kidney, and one each for kidneys, tumours and cysts.

    Args:
        result: what to report.
        segmentation: the kidneys; a kidney's sizes refer to its segment.
        objects: the objects of the result.

    Returns:
        The content; what the result does not have is left out.
    """
    sizes = result.kidney_measurements
    totals = [
        _volume_group(name, code, sizes[key], method, objects=objects)
        for name, code, key, method in (
            ("Kidneys", dicom_codes.KIDNEYS[3], "kidney_volume_ml", dicom_codes.WITHOUT_LESIONS),
            ("Tumours", dicom_codes.TUMOUR, "tumour_volume_ml", None),
            ("Cysts", dicom_codes.CYST, "cyst_volume_ml", None),
        )
        if sizes.get(key, 0.0) > 0.0
    ]
    kidneys = _kidney_groups(result, segmentation, objects)
    return ReportContent(
        what="CKD stage",
        procedure=dicom_codes.COMPUTED_TOMOGRAPHY,
        groups=[_stage_group(result, objects), *kidneys, *totals],
    )


def kidney_content(
    result: KidneyResult, segmentation: Segmentation | None, objects: DicomObjects
) -> ReportContent:
    """Write a group for each kidney and one for both together; see :func:`ckd_content`."""
    code = dicom_codes.KIDNEYS[3]
    total = _volume_group("Kidneys", code, result.total_volume_ml, None, objects=objects)
    return ReportContent(
        what="Kidney sizes",
        procedure=dicom_codes.COMPUTED_TOMOGRAPHY,
        groups=[*_kidney_groups(result, segmentation, objects), total],
    )


def _kidney_groups(
    result: CKDResult | KidneyResult, segmentation: Segmentation | None, objects: DicomObjects
) -> list[Group]:
    found = ((side, _sizes_of(result, side)) for side in _LABELS)
    return [_kidney_group(result, side, sizes, segmentation, objects) for side, sizes in found if sizes]


def _stage_group(result: CKDResult, objects: DicomObjects) -> Group:
    from highdicom import sr

    measurements = [
        _estimate(code, unit, estimate)
        for code, unit, estimate in (
            (dicom_codes.CREATININE, dicom_codes.MG_PER_DL, result.creatinine),
            (dicom_codes.EGFR, dicom_codes.ML_PER_MIN_173, result.egfr),
        )
        if estimate is not None
    ]
    measurements += [
        measurement(dicom_codes.probability_of(stage), probability, dicom_codes.NO_UNITS)
        for stage, probability in result.stage_probabilities.items()
    ]
    seen = [k for k, is_valid in zip(result.slices.indices, result.slices.is_valid, strict=True) if is_valid]
    images = [objects.source.image_of(k) for k in seen]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(objects.uid("tracking", "stage"), "Kidney function"),
        finding_type=dicom_codes.KIDNEYS[3],
        algorithm_id=algorithm(objects),
        measurements=measurements,
        qualitative_evaluations=[
            sr.QualitativeEvaluation(dicom_codes.GFR_CATEGORY, dicom_codes.gfr_category(result.stage))
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(
                image.SOPClassUID, image.SOPInstanceUID, None if frame is None else [frame]
            )
            for image, frame in images
        ],
    )


def _estimate(name: Code, unit: Code, estimate: Estimate) -> sr.Measurement:
    """Write a number with its interval as properties of it."""
    from highdicom import sr

    if unit.value != estimate.unit:
        raise ValueError(f"unit of {name.meaning} must be {unit.value}, got {estimate.unit}.")
    properties = sr.MeasurementProperties()
    properties.extend(
        sr.NumContentItem(
            code,
            round(value, DIGITS),
            unit_of_end,
            relationship_type=sr.RelationshipTypeValues.HAS_PROPERTIES,
        )
        for code, value, unit_of_end in (
            (dicom_codes.INTERVAL_LOW, estimate.low, unit),
            (dicom_codes.INTERVAL_HIGH, estimate.high, unit),
            (dicom_codes.INTERVAL_LEVEL, 100.0 * estimate.level, dicom_codes.PERCENT),
        )
    )
    return measurement(
        name,
        estimate.value,
        unit,
        derivation=dicom_codes.ESTIMATED,
        method=dicom_codes.NOT_MEASURED,
        properties=properties,
    )


def _kidney_group(
    result: CKDResult | KidneyResult,
    side: str,
    measurements: list[sr.Measurement],
    segmentation: Segmentation | None,
    objects: DicomObjects,
) -> Group:
    from highdicom import sr

    label = _LABELS[side]
    code = dicom_codes.KIDNEYS[label]
    evaluations = None
    if isinstance(result, KidneyResult):
        is_cut_off = dicom_codes.YES if result.kidneys[side].is_cut_off else dicom_codes.NO
        evaluations = [sr.QualitativeEvaluation(dicom_codes.IS_CUT_OFF, is_cut_off)]
    common: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(
            tracking_uid(label, objects), KIDNEY_SIDES[label].capitalize()
        ),
        "finding_type": code,
        "finding_category": dicom_codes.ANATOMICAL_STRUCTURE,
        "finding_sites": [sr.FindingSite(code)],
        "algorithm_id": algorithm(objects),
        "measurements": measurements,
        "qualitative_evaluations": evaluations,
    }
    number = _segment_number(segmentation, code)
    if segmentation is None or number is None:
        return sr.MeasurementsAndQualitativeEvaluations(**common)
    segment = sr.ReferencedSegment(
        segmentation.SOPClassUID,
        segmentation.SOPInstanceUID,
        number,
        source_series=sr.SourceSeriesForSegmentation(objects.source.series_uid),
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **common)


def _segment_number(segmentation: Segmentation | None, code: Code) -> int | None:
    for segment in () if segmentation is None else segmentation.SegmentSequence:
        if segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == code.value:
            return int(segment.SegmentNumber)
    return None


def _sizes_of(result: CKDResult | KidneyResult, side: str) -> list[sr.Measurement]:
    """Give volume, length and density of one kidney, as far as the result has them."""
    if isinstance(result, KidneyResult):
        kidney = result.kidneys.get(side)
        if kidney is None:
            return []
        method, volume_ml, length_mm, mean_hu = None, kidney.volume_ml, kidney.length_mm, kidney.mean_hu
    else:
        method, mean_hu = dicom_codes.WITHOUT_LESIONS, None
        volume_ml = result.kidney_measurements.get(f"{side}_kidney_volume_ml", 0.0)
        length_mm = result.kidney_measurements.get(f"{side}_kidney_length_mm", math.nan)
        if not volume_ml > 0.0:
            return []
    measurements = [measurement(dicom_codes.VOLUME, volume_ml, dicom_codes.MILLILITRE, method=method)]
    if math.isfinite(length_mm):
        measurements.append(measurement(dicom_codes.LENGTH, length_mm, dicom_codes.MILLIMETRE, method=method))
    if mean_hu is not None:
        measurements.append(measurement(dicom_codes.MEAN_ATTENUATION, mean_hu, dicom_codes.HOUNSFIELD))
    return measurements


def _volume_group(
    name: str, finding: Code, volume_ml: float, method: Code | None, *, objects: DicomObjects
) -> Group:
    from highdicom import sr

    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(objects.uid("tracking", name), name),
        finding_type=finding,
        finding_sites=[sr.FindingSite(dicom_codes.KIDNEYS[3])],
        algorithm_id=algorithm(objects),
        measurements=[measurement(dicom_codes.VOLUME, volume_ml, dicom_codes.MILLILITRE, method=method)],
    )
