"""One study whose result is known: what its forms (picture, page, DICOM …) are written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol

from shared_nets.types import CKDResult, KidneyMask, SourceImage, StudyResult
from shared_nets.writers.ckd_picture import ckd_picture
from shared_nets.writers.kidney_picture import kidney_picture


@dataclass(frozen=True, kw_only=True)
class FinishedStudy:
    """What the forms of one result are written from.

    Args:
        result: the result, provenance complete.
        picture_slices: slices for people, as :func:`shared_nets.writers.ckd_picture.ckd_picture` draws them.
        source: the image; ``None`` without one.
        mask: the kidneys; ``None`` where there are none.
        created: when the results of this run are said to have been made; with a time zone.
    """

    result: StudyResult
    picture_slices: Sequence[Mapping[str, Any]]
    source: SourceImage | None
    mask: KidneyMask | None
    created: datetime

    @cached_property
    def picture_png(self) -> bytes:
        """The picture of the result, drawn once."""
        if isinstance(self.result, CKDResult):
            return ckd_picture(self.result, self.picture_slices)
        return kidney_picture(self.result, self.picture_slices)


class ResultForm(Protocol):
    """One way to write a result down."""

    def __call__(self, study: FinishedStudy) -> Mapping[str, bytes]:
        """Give the content of files by name, one of :data:`FORM_FILES` each; nothing where it cannot."""
        ...


#: Every file that a form may write beside ``result.json``; those of an earlier run are taken away.
FORM_FILES = (
    "picture.png",
    "page.html",
    "kidneys.nii.gz",
    "kidneys.seg.dcm",
    "report.sr.dcm",
    "picture.sc.dcm",
    "report.fhir.json",
)


class Picture:
    """``picture.png``."""

    def __call__(self, study: FinishedStudy) -> Mapping[str, bytes]:
        """Draw it."""
        return {"picture.png": study.picture_png}
