"""What all DICOM objects that we write have in common: who made them, UIDs, dates, and whose study it is."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from shared_nets.types import Provenance
from shared_nets.writers.dicom_source import DicomSource

MANUFACTURER = "shared_nets"
Kind = Literal["SEG", "SR", "SC", "PDF"]
#: Numbers of the new series, above those that scanners give.
SERIES_NUMBERS: dict[Kind, int] = {"SEG": 9001, "SR": 9002, "SC": 9003, "PDF": 9004}
_UTF_8 = "ISO_IR 192"
_DATES = (
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("SeriesDate", "SeriesTime"),
    ("ContentDate", "ContentTime"),
    ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)
_LONG_STRING = 64  # letters in a DICOM LO


@dataclass(frozen=True, kw_only=True)
class DicomObjects:
    """The objects of one result: gives them UIDs, and finishes them so that equal input gives equal bytes.

    Args:
        source: the series that the result was computed from.
        provenance: what computed it.
        created: when, with a time zone.
    """

    source: DicomSource
    provenance: Provenance
    created: datetime

    def uid(self, *parts: str) -> str:
        """Derive a UID from source, software, moment and ``parts``."""
        moment = self.created.isoformat()
        return _uid(self.source.series_uid, *_software(self.provenance), moment, *parts)

    @property
    def device_uid(self) -> str:
        """UID of the software with its configuration and weights."""
        return _uid("device", *_software(self.provenance))

    @property
    def serial_number(self) -> str:
        """Short hash of the software with its configuration and weights."""
        return hashlib.sha256("\n".join(_software(self.provenance)).encode()).hexdigest()[:16]

    def identity(self, kind: Kind, description: str) -> dict[str, Any]:
        """Give what the constructors of highdicom want of every object.

        Args:
            kind: of object; each has a series of its own.
            description: of the series.

        Returns:
            Keyword arguments.
        """
        return {
            "series_instance_uid": self.uid(kind, "series"),
            "series_number": SERIES_NUMBERS[kind],
            "series_description": long_string(description),
            "sop_instance_uid": self.uid(kind, "instance"),
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": long_string(self.provenance.bundle),
            "software_versions": long_string(self.provenance.bundle_version),
            "device_serial_number": self.serial_number,
            "specific_character_set": _UTF_8,
        }

    def finish(self, dataset: Any) -> bytes:
        """Put an object of highdicom into the patient's study, date it, and encode it.

        Args:
            dataset: made by highdicom; changed.

        Returns:
            The file.
        """
        with disable_value_validation():  # values of the source are carried over as they are
            dataset.copy_patient_and_study_information(self.source.header)
            dataset.SpecificCharacterSet = _UTF_8
            self._set_dates(dataset)
            buffer = io.BytesIO()
            pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
        return buffer.getvalue()

    def _set_dates(self, dataset: Dataset) -> None:
        """Replace the clock's time, which highdicom sets, by the moment of creation.

        All dates of an object are in one time zone, those of the study too. So they are converted where the
        source names its zone; elsewhere they are as in ``created``, whose zone the contribution's date tells.
        """
        offset = str(self.source.header.get("TimezoneOffsetFromUTC") or "")
        zone = _zone(offset)
        moment = self.created
        if zone is not None:
            dataset.TimezoneOffsetFromUTC = offset
            moment = moment.astimezone(zone)
        dataset.SeriesDate, dataset.SeriesTime = "", ""
        for date, time in _DATES:
            if date in dataset:
                setattr(dataset, date, moment.strftime("%Y%m%d"))
                setattr(dataset, time, moment.strftime("%H%M%S"))
        for equipment in dataset.get("ContributingEquipmentSequence", ()):
            if "ContributionDateTime" in equipment:
                equipment.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S%z")


def long_string(text: str) -> str:
    """Shorten a text to what a DICOM LO holds, and take out the backslash, which separates values there."""
    text = " ".join(text.replace("\\", "/").split())
    return text if len(text) <= _LONG_STRING else f"{text[: _LONG_STRING - 1]}…"


def _software(provenance: Provenance) -> list[str]:
    weights = [f"{name}={sha256}" for name, sha256 in sorted(provenance.weights_sha256.items())]
    return [provenance.bundle, provenance.bundle_version, provenance.config_sha256, *weights]


def _uid(*parts: str) -> str:
    return str(generate_uid(entropy_srcs=["\n".join(parts)]))


def _zone(offset: str) -> timezone | None:
    """Read ``+HHMM``; ``None`` where there is none."""
    if len(offset) != 5 or offset[0] not in "+-" or not offset[1:].isdigit():
        return None
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    if minutes >= 24 * 60:
        return None
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
