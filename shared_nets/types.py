"""Shapes of the data that travels between the parts: items, and the frozen results that writers read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

RESEARCH_USE_ONLY = "Research use only. Not a medical device. Not for diagnosis or treatment."


class CKDStudy(TypedDict, total=False):
    """One study as a datalist names it, before anything is read.

    Keys: ``image`` path of a CT series or volume; ``mask`` path of a kidney mask; ``clinical`` path of a
    JSON or CSV file, or the values themselves; ``study_id`` names the output folder; for training
    ``egfr_ml_min`` (mL/min/1.73 m²) and ``egfr_is_lower_bound``.
    """

    image: Any
    mask: Any
    clinical: Any
    study_id: str
    egfr_ml_min: float
    egfr_is_lower_bound: bool


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A warning or a repair: a stable code and a sentence for people."""

    code: str
    message: str
