"""Where images and submitted masks lie: a folder or a DICOMweb server; and names that lead nowhere else.

MONAI Label builds paths from what clients send. These classes accept only names that are a name, so that
nothing is written, read or removed outside of the server's own folders.
"""

from __future__ import annotations

import dataclasses
import io
import re
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pydicom
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore
from monailabel.datastore.utils.dicom import dicom_web_download_series
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

    A series is kept as DICOM once it was fetched, so that results can refer to it. The masks that a person
    submitted through this server count as labels; segmentations of other origin do not.
    """

    def get_image_uri(self, image_id: str) -> str:
        """Give the folder of a series, fetched whole or not at all.

        Raises:
            InputRefused: ``SERIES_NOT_FOUND``.
        """
        if not _UID.fullmatch(image_id):
            raise InputRefused(
                "SERIES_NOT_FOUND", "The image is not named by a UID.", "Give its Series Instance UID."
            )
        cache = Path(self._datastore.image_path()).resolve()
        folder = cache / image_id
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=cache) as unfinished:
                fetched = Path(unfinished) / image_id
                try:
                    dicom_web_download_series(
                        None, image_id, str(fetched), self._client, self._fetch_by_frame
                    )
                except IndexError as error:  # the server knows no such series
                    raise InputRefused(
                        "SERIES_NOT_FOUND",
                        "The DICOMweb server has no series with this UID.",
                        "Check the Series Instance UID.",
                    ) from error
                fetched.rename(folder)
        if image_id not in self._datastore.objects:
            self._datastore.objects[image_id] = ImageLabelModel(image=DataModel())
            self._update_datastore_file()
        return str(folder)

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
            requests.HTTPError: the server did not take them.
        """
        objects = [pydicom.dcmread(io.BytesIO(content)) for content in files.values()]
        self._client.store_instances(objects)
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
