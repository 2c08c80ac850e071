"""Where images and submitted masks lie: a folder or a DICOMweb server; and names that lead nowhere else.

MONAI Label builds paths from what clients send. These classes accept only names that are a name, so that
nothing is written, read or removed outside of the server's own folders.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import math
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import pydicom
import requests
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.utils.sessions import SessionInfo, Sessions

from shared_nets.refusals import InputRefused
from shared_nets.types import EMPTY_PROVENANCE
from shared_nets.writers.dicom_object import DicomObjects
from shared_nets.writers.dicom_seg import kidney_segmentation
from shared_nets.writers.dicom_source import NotReferable, read_dicom_source
from tools.monailabel_app.submitted_mask import read_submitted_mask

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,127}")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_STUDY_UID, _SERIES_UID, _NUMBER_OF_IMAGES = "0020000D", "0020000E", "00201209"
#: No server decodes images for us: ours are read as they are, and Orthanc itself cannot read every kind.
_AS_STORED = (("application/dicom", "*"),)
_DIGEST = "server_says_sha256"  # of a series, kept with it


class FolderStore(LocalDatastore):
    """Images and masks in a folder."""

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an image; what is no name, or no file of an image, is refused."""
        _check_name(image_id or self._to_id(Path(image_filename).name)[0])
        self._check_kind(image_filename)
        added: str = super().add_image(image_id, image_filename, image_info)
        return added

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Keep a mask; what is no name, or no file of a mask, is refused."""
        _check_name(label_tag)
        self._check_kind(label_filename)
        saved: str = super().save_label(image_id, label_filename, label_tag, label_info)
        return saved

    def _check_kind(self, filename: str) -> None:
        kinds = [pattern.removeprefix("*") for pattern in self._extensions]
        if not filename.endswith(tuple(kinds)):
            raise InputRefused(
                "INPUT_UNREADABLE",
                "The file is of a kind that is not kept here.",
                f"Send a file that ends in one of {', '.join(kinds)}.",
            )


class DicomWebStore(DICOMWebDatastore):
    """Series of a DICOMweb server, by their Series Instance UID; masks go back to it as DICOM SEG.

    A series is kept as DICOM once it was fetched, so that results can refer to it, and is fetched anew when
    the server says something else of it: more images, another patient. The masks that a person submitted
    through this server count as labels; segmentations of other origin do not.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._client.set_http_retry_params(retry=False)  # whoever asks may ask again
        Path(self._datastore_path).chmod(0o700)  # it holds what patients are called
        self._fetching = Lock()
        self._listed: tuple[float, list[str]] = (-math.inf, [])  # until when, what

    def list_images(self) -> list[str]:
        """List the series of the server that its search filter lets through.

        A value of the filter may be a list; a series must then have one of its values.

        Raises:
            InputRefused: ``SERVER_…``.
        """
        until, listed = self._listed
        if time.monotonic() >= until:
            with server_errors():
                found = [
                    series
                    for filters in _one_by_one(self._search_filter)
                    for series in self._client.search_for_series(search_filters=filters)
                ]
            listed = list(dict.fromkeys(series[_SERIES_UID]["Value"][0] for series in found))
            self._listed = (time.monotonic() + settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY, listed)
        return listed

    def json(self) -> dict[str, Any]:
        """Describe the series of the server, and the masks that were submitted for them."""
        described: dict[str, Any] = super().json()
        unknown = {uid: ImageLabelModel(image=DataModel()).model_dump() for uid in self.list_images()}
        described["objects"] = unknown | described["objects"]
        return described

    def get_image_uri(self, image_id: str) -> str:
        """Give the folder of a series, fetched whole or not at all.

        Raises:
            InputRefused: ``SERIES_NOT_FOUND``, ``SERIES_INCONSISTENT``, ``SERVER_…``.
        """
        if not _UID.fullmatch(image_id):
            raise InputRefused(
                "SERIES_NOT_FOUND", "The image is not named by a UID.", "Give its Series Instance UID."
            )
        folder = Path(self._datastore.image_path()).resolve() / image_id
        with self._fetching, server_errors():
            said = self._ask_for(image_id)
            digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
            known = self._datastore.objects.get(image_id)
            if not folder.is_dir() or known is None or known.image.info.get(_DIGEST) != digest:
                self._fetch(said, folder)
                known = known or ImageLabelModel(image=DataModel())
                known.image.info[_DIGEST] = digest
                self._datastore.objects[image_id] = known
                self._update_datastore_file()
        return str(folder)

    def _ask_for(self, series_uid: str) -> dict[str, Any]:
        """Ask the server for what it says of a series; nothing of it is decoded but UIDs and a number."""
        found = self._client.search_for_series(search_filters={"SeriesInstanceUID": series_uid})
        for series in found:
            if series.get(_SERIES_UID, {}).get("Value") == [series_uid]:
                return series
        raise InputRefused(
            "SERIES_NOT_FOUND",
            "The DICOMweb server has no series with this UID.",
            "Check the Series Instance UID.",
        )

    def _fetch(self, said: Mapping[str, Any], folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder.parent) as unfinished:
            fetched = Path(unfinished) / folder.name
            fetched.mkdir()
            study_uid = said[_STUDY_UID]["Value"][0]
            images = self._client.iter_series(study_uid, folder.name, media_types=_AS_STORED)
            number = 0
            for number, image in enumerate(images, start=1):
                image.save_as(fetched / f"{number:06}.dcm")
            (wanted,) = said.get(_NUMBER_OF_IMAGES, {}).get("Value") or [0]
            if number < int(wanted):
                raise InputRefused(
                    "SERIES_INCONSISTENT",
                    f"The DICOMweb server says that the series has {wanted} images, and sent {number}.",
                    "Ask again; if that does not help, look at the series on the server.",
                )
            if folder.is_dir():
                shutil.rmtree(folder)
            fetched.rename(folder)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refuse: images belong on the DICOMweb server."""
        raise InputRefused(
            "INPUT_NO_PERMISSION",
            "Images are not added here, but to the DICOMweb server.",
            "Store them there, or send them with the request or as a session.",
        )

    def save_label(
        self,
        image_id: str,
        label_filename: str,
        label_tag: str,
        label_info: dict[str, Any],
        label_id: str = "",
    ) -> str:
        """Keep a mask; one with the tag ``final`` also goes to the server, as DICOM SEG.

        Raises:
            InputRefused: what is wrong with the mask or its image.
        """
        _check_name(label_tag)
        folder = self.get_image_uri(image_id)
        if label_tag == DefaultLabelTag.FINAL:
            self.store({"kidneys.seg.dcm": _segmentation(folder, label_filename)})
        saved: str = LocalDatastore.save_label(self, image_id, label_filename, label_tag, label_info)
        return saved

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """Give the file of a submitted mask."""
        return LocalDatastore.get_label_uri(self, label_id, label_tag)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """List the series that a mask was submitted for."""
        return LocalDatastore.get_labeled_images(self, label_tag, labels)

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """List series and submitted masks, for training."""
        return LocalDatastore.datalist(self, full_path)

    def store(self, files: Mapping[str, bytes]) -> list[dict[str, str]]:
        """Send DICOM files to the server.

        Args:
            files: content by name.

        Returns:
            ``modality, series_instance_uid, sop_instance_uid`` of each.

        Raises:
            InputRefused: ``SERVER_…``: the server did not take them, or not all.
        """
        objects = [pydicom.dcmread(io.BytesIO(content)) for content in files.values()]
        with server_errors():
            answer = self._client.store_instances(objects)
        # what some servers did not store they name nowhere, neither as stored nor as failed
        stored = {item.ReferencedSOPInstanceUID for item in answer.get("ReferencedSOPSequence") or ()}
        lacking = [found for found in objects if found.SOPInstanceUID not in stored]
        if lacking:
            raise InputRefused(
                "SERVER_REFUSED",
                f"The DICOMweb server did not store {len(lacking)} of {len(objects)} DICOM objects.",
                "Look into its log; the others are stored.",
            )
        return [
            {
                "modality": str(found.Modality),
                "series_instance_uid": str(found.SeriesInstanceUID),
                "sop_instance_uid": str(found.SOPInstanceUID),
            }
            for found in objects
        ]


class SessionStore(Sessions):
    """Uploaded images by the name that the server gave them; other names find nothing and remove nothing."""

    def get_session(
        self, session_id: str, update_ts: bool = True, fetch_cache: bool = True
    ) -> SessionInfo | None:
        """Give a session, or nothing."""
        return (
            super().get_session(session_id, update_ts, fetch_cache)
            if _SESSION.fullmatch(session_id)
            else None
        )

    def remove_session(self, session_id: str) -> None:
        """Remove a session."""
        if _SESSION.fullmatch(session_id):
            super().remove_session(session_id)


@contextmanager
def server_errors() -> Iterator[None]:
    """Turn what goes wrong with another server into a refusal, which names no address and no password."""
    try:
        yield
    except requests.RequestException as error:
        raise server_refusal(error) from error


def server_refusal(error: requests.RequestException) -> InputRefused:
    """Say what is wrong with another server: that of the images, or the one that signs tokens.

    Args:
        error: of the request to it.

    Returns:
        ``SERVER_UNREACHABLE``, ``SERVER_NO_PERMISSION`` or ``SERVER_REFUSED``.
    """
    status = error.response.status_code if error.response is not None else None
    if status is None:
        return InputRefused(
            "SERVER_UNREACHABLE",
            f"Another server did not answer as it should: {type(error).__name__}.",
            "See to it that the DICOMweb server runs and can be reached from here, and ask again.",
        )
    if status in (401, 403):
        return InputRefused(
            "SERVER_NO_PERMISSION",
            f"Another server denied access: status {status}.",
            "Start with the right MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD.",
        )
    return InputRefused(
        "SERVER_REFUSED",
        f"Another server answered with status {status}.",
        "Check the address of the DICOMweb server, and look into its log.",
    )


def _one_by_one(search_filter: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give a filter for each combination of the values that are lists; DICOMweb knows no "or"."""
    values = [value if isinstance(value, list) else [value] for value in search_filter.values()]
    return [dict(zip(search_filter, chosen, strict=True)) for chosen in itertools.product(*values)]


def _segmentation(image: str, label: str) -> bytes:
    """Write a submitted mask as DICOM SEG."""
    submitted = read_submitted_mask(image, label)
    source = submitted.image.origin
    made_by = dataclasses.replace(
        EMPTY_PROVENANCE, bundle="MONAI Label", bundle_version=version("monailabel")
    )
    try:
        if source is None:
            raise NotReferable("the source is not DICOM")
        objects = DicomObjects(
            source=read_dicom_source(source), provenance=made_by, created=datetime.now(UTC)
        )
        written = kidney_segmentation(submitted.kidneys, source, objects)
    except NotReferable as reason:
        raise InputRefused(
            "SERIES_INCONSISTENT",
            f"A segmentation cannot refer to the series: {reason}.",
            "Repair the series on the DICOMweb server.",
        ) from reason
    if written is None:
        raise InputRefused("MASK_EMPTY", "The mask shows no kidney.", "Submit a mask that does.")
    return written[1]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputRefused(
            "INPUT_NO_PERMISSION",
            "The name of an image or of a tag consists of letters, digits, spaces and . _ - only.",
            "Choose another name.",
        )
