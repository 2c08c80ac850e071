"""One study whose result is known: what its forms (picture, page, DICOM …) are written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, singledispatch
from typing import Any, Protocol

import numpy.typing as npt

from shared_nets.types import CKDResult, KidneyMask, KidneyResult, LesionResult, SourceImage, StudyResult
from shared_nets.writers.ckd_picture import ckd_picture
from shared_nets.writers.kidney_picture import kidney_picture
from shared_nets.writers.lesion_picture import lesion_picture


@dataclass(frozen=True, kw_only=True)
class FinishedStudy:
    """What the forms of one result are written from.

    Args:
        result: the result, provenance complete.
        picture_slices: slices for people, as :func:`shared_nets.writers.ckd_picture.ckd_picture` draws them.
        source: the image; ``None`` without one.
        mask: the kidneys; ``None`` where there are none.
        created: when the results of this run are said to have been made; with a time zone.
        photo: the photograph, ``(3, H, W)`` uint8 sRGB; ``None`` where the study is not one.
        saliency: where in it the network looked, ``(H, W)``, 0 to 1; ``None`` where that was not asked.
    """

    result: StudyResult
    picture_slices: Sequence[Mapping[str, Any]]
    source: SourceImage | None
    mask: KidneyMask | None
    created: datetime
    photo: npt.NDArray[Any] | None = None
    saliency: npt.NDArray[Any] | None = None

    @cached_property
    def picture_png(self) -> bytes:
        """The picture of the result, drawn once."""
        return _draw(self.result, self)


@singledispatch
def _draw(result: StudyResult, study: FinishedStudy) -> bytes:
    raise TypeError(f"result must be of a kind that has a picture, got {type(result).__name__}.")


@_draw.register
def _(result: CKDResult, study: FinishedStudy) -> bytes:
    return ckd_picture(result, study.picture_slices)


@_draw.register
def _(result: KidneyResult, study: FinishedStudy) -> bytes:
    return kidney_picture(result, study.picture_slices)


@_draw.register
def _(result: LesionResult, study: FinishedStudy) -> bytes:
    return lesion_picture(result, study.photo, study.saliency)


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
    "report.pdf.dcm",
    "report.pdf",
    "report.fhir.json",
)


class Picture:
    """``picture.png``."""

    def __call__(self, study: FinishedStudy) -> Mapping[str, bytes]:
        """Draw it."""
        return {"picture.png": study.picture_png}
