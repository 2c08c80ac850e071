"""What measurement groups of DICOM Structured Reports share, and what a kind of result puts into a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom.sr.coding import Code

from shared_nets.writers.dicom_object import DicomObjects

if TYPE_CHECKING:
    from highdicom import sr

    Group = sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations

DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What is particular to the report of one kind of result.

    Args:
        what: the report says, for the description of its series.
        procedure: that made the source.
        groups: of measurements, at least one.
        remarks: sentences that a reader must know before the warnings, each with what it is.
    """

    what: str
    procedure: Code
    groups: Sequence[Group]
    remarks: Sequence[tuple[Code, str]] = ()


def measurement(name: Code, value: float, unit: Code, **more: Any) -> sr.Measurement:
    """Write a number with its unit, rounded; ``more`` goes to highdicom."""
    from highdicom import sr

    return sr.Measurement(name, round(value, DIGITS), unit, **more)


def algorithm(objects: DicomObjects) -> sr.AlgorithmIdentification:
    """Name the bundle that measured."""
    from highdicom import sr

    provenance = objects.provenance
    return sr.AlgorithmIdentification(name=provenance.bundle, version=provenance.bundle_version)
