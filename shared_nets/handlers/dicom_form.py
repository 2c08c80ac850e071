"""A finished study for other programs: DICOM objects where the source is DICOM, NIfTI where it is not."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from shared_nets.handlers.finished_study import FinishedStudy
from shared_nets.types import CKDResult, KidneyResult, LesionResult
from shared_nets.writers.dicom_object import DicomObjects
from shared_nets.writers.dicom_picture import secondary_capture
from shared_nets.writers.dicom_report import structured_report
from shared_nets.writers.dicom_seg import kidney_segmentation
from shared_nets.writers.dicom_source import NotReferable, read_dicom_source
from shared_nets.writers.kidney_nifti import kidney_nifti

logger = logging.getLogger(__name__)

#: What the picture of each kind of result shows, and DICOM's letter for its side: both kidneys; unpaired.
_PICTURES: dict[type, tuple[str, str]] = {
    CKDResult: ("CKD stage", "B"),
    KidneyResult: ("Kidneys", "B"),
    LesionResult: ("Skin lesion", "U"),
}


class Dicom:
    """``kidneys.seg.dcm``, ``report.sr.dcm`` and ``picture.sc.dcm``, in the study of the source.

    Nothing is written where the source is not DICOM, or where nothing can refer to it, as it has no usable
    UIDs; that is logged. Without a mask the segmentation is left out.
    """

    def __call__(self, study: FinishedStudy) -> Mapping[str, bytes]:
        """Write them."""
        objects = dicom_objects(study)
        if objects is None or study.source is None:
            return {}
        files: dict[str, bytes] = {}
        segmentation = None
        if study.mask is not None:
            written = kidney_segmentation(study.mask, study.source, objects)
            if written is not None:
                segmentation, files["kidneys.seg.dcm"] = written
        files["report.sr.dcm"] = structured_report(study.result, segmentation, objects)
        what, laterality = _PICTURES[type(study.result)]
        description = f"{what}, AI picture (research only)"
        files["picture.sc.dcm"] = secondary_capture(
            study.picture_png, description, objects, laterality=laterality
        )
        return files


def dicom_objects(study: FinishedStudy) -> DicomObjects | None:
    """Start the DICOM objects of a study.

    Args:
        study: the study.

    Returns:
        What they share; ``None`` where the source is not DICOM, or where nothing can refer to it, which is
        logged.
    """
    if study.source is None or not study.source.is_dicom:
        return None
    try:
        source = read_dicom_source(study.source)
    except NotReferable as reason:
        logger.warning("%s: no DICOM is written, %s.", study.result.study_id, reason)
        return None
    return DicomObjects(source=source, provenance=study.result.provenance, created=study.created)


class Nifti:
    """``kidneys.nii.gz``, where the source is not DICOM."""

    def __call__(self, study: FinishedStudy) -> Mapping[str, bytes]:
        """Write it."""
        if study.mask is None or (study.source is not None and study.source.is_dicom):
            return {}
        return {"kidneys.nii.gz": kidney_nifti(study.mask)}
