"""The front door for photographs of skin: a MONAI reader that says what it did, or refuses with a code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils.enums import MetaKeys

from shared_nets.data.dicom_files import files_below, is_image
from shared_nets.data.dicom_header import DicomHeader, read_header
from shared_nets.data.dicom_wording import counted, names
from shared_nets.data.photograph import ByteArray, Photograph, PhotographOptions
from shared_nets.data.photograph_dicom import read_dicom_photograph
from shared_nets.data.photograph_file import is_photograph_file, read_photograph_file
from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

PathLike = str | os.PathLike[str]
_HEAD_BYTES = 16


class PhotographReader(ImageReader):
    """Read a photograph for ``LoadImaged(keys="image", reader=PhotographReader(), dtype=None)``.

    JPEG, PNG, TIFF, BMP, WebP and DICOM become ``(H, W, 3)`` uint8 in sRGB, rows from top to bottom, upright
    as the camera's orientation tag says. With ``ensure_channel_first=True`` that is ``(3, H, W)``. What is
    wrong beyond repair raises :class:`InputRefused`; what was repaired is listed in ``meta["repairs"]``.

    Meta data have the names that :class:`shared_nets.data.ct_reader.CTReader` uses, so that writers find the
    source: ``source``, ``study_uid``, ``series_uid``, ``sop_uids``, ``modality``, ``files``,
    ``frame_numbers``, ``is_resampled``, ``header``, ``repairs`` and ``warnings``. Nothing names a person.

    Args:
        burned_in: ``warn`` or ``refuse`` when a DICOM header says that text is burned into the pixels.
        max_megapixels: larger images are refused before they are decoded.
        reduce_above_megapixels: larger JPEG files are decoded at a smaller size, which is listed.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        burned_in: str = "warn",
        max_megapixels: float = 170.0,
        reduce_above_megapixels: float = 50.0,
    ) -> None:
        self.options = PhotographOptions(
            burned_in=burned_in,
            max_megapixels=max_megapixels,
            reduce_above_megapixels=reduce_above_megapixels,
        )

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Accept any name: contents decide."""
        return True

    def open(self, data: PathLike | Sequence[PathLike]) -> Photograph:
        """Read and decode one photograph.

        Args:
            data: a file, or a folder that holds one photograph.

        Returns:
            The photograph.

        Raises:
            InputRefused: the input cannot be used.
        """
        return open_photograph(data, self.options)

    def read(self, data: PathLike | Sequence[PathLike], **kwargs: Any) -> Photograph | Exception:
        """Do as :meth:`open` does, but hand a refusal, or any other error, on to :meth:`get_data`.

        ``LoadImage`` catches whatever ``read`` raises and goes on to MONAI's own readers, which would let in
        silently what was refused here.

        Args:
            data: a file, or a folder that holds one photograph.
            kwargs: ignored; part of MONAI's interface.

        Returns:
            The photograph, or why there is none.
        """
        try:
            return self.open(data)
        except Exception as error:
            return error

    def get_data(self, img: Photograph | Exception) -> tuple[ByteArray, dict[str, Any]]:
        """Give pixels and meta data.

        Args:
            img: what :meth:`read` or :meth:`open` returned.

        Returns:
            ``(H, W, 3)`` uint8 and MONAI's meta data, plain values only.

        Raises:
            InputRefused: the photograph was refused.
        """
        if isinstance(img, Exception):
            raise img
        meta: dict[str, Any] = {
            str(MetaKeys.ORIGINAL_CHANNEL_DIM): -1,
            str(MetaKeys.SPATIAL_SHAPE): np.array(img.pixels.shape[:2]),
            "source": img.source,
            "study_uid": img.study_uid,
            "series_uid": img.series_uid,
            "sop_uids": [img.sop_uid] if img.sop_uid else [],
            "modality": img.modality,
            "files": list(img.files),
            "frame_numbers": [1] * len(img.files),
            "is_resampled": img.is_resampled,
            "header": dict(img.header),
            "repairs": [_plain(finding) for finding in img.repairs],
            "warnings": [_plain(finding) for finding in img.warnings],
        }
        return img.pixels, meta


def open_photograph(
    data: PathLike | Sequence[PathLike], options: PhotographOptions | None = None
) -> Photograph:
    """Read one photograph, whatever kind of file it is.

    Args:
        data: a file, or a folder that holds one photograph.
        options: what is accepted.

    Returns:
        The photograph.

    Raises:
        InputRefused: see :data:`shared_nets.refusals.CODES`.
    """
    options = options or PhotographOptions()
    paths = [os.fspath(data)] if isinstance(data, str | os.PathLike) else [os.fspath(path) for path in data]
    if not paths:
        raise InputRefused("INPUT_EMPTY", "No file was given.", "Give a photograph.")
    if len(paths) > 1:
        raise _ambiguous([Path(path).name for path in paths])
    path = paths[0]
    skipped: tuple[Finding, ...] = ()
    try:
        if not Path(path).exists():
            raise InputRefused("INPUT_NOT_FOUND", f"There is no {Path(path).name}.", "Check the path.")
        if Path(path).is_dir():
            path, skipped = _only_photograph(path)
        if Path(path).stat().st_size == 0:
            raise InputRefused(
                "INPUT_UNREADABLE", f"{Path(path).name} is empty (0 bytes).", "Copy or export the file again."
            )
        header = _dicom_header(path)
        photograph = (
            read_photograph_file(path, options) if header is None else read_dicom_photograph(header, options)
        )
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputRefused(
            "INPUT_NO_PERMISSION",
            f"{Path(path).name} cannot be read: {error.strerror or type(error).__name__}.",
            "Give this user the right to read the file.",
        ) from error
    return replace(
        photograph,
        header={**photograph.header, "sha256": digest},
        repairs=(*skipped, *photograph.repairs),
    )


def _dicom_header(path: str) -> DicomHeader | None:
    try:
        return read_header(path)
    except ValueError as error:
        raise InputRefused("INPUT_UNREADABLE", f"{error}.", "Copy or export the file again.") from error


def _only_photograph(folder: str) -> tuple[str, tuple[Finding, ...]]:
    """Find the one photograph of a folder, and say what else lies there."""
    files = files_below(folder)
    found = [path for path in files if _is_photograph(path)]
    if not found:
        there = f"There is only {names([Path(path).name for path in files])}." if files else "It is empty."
        raise InputRefused(
            "INPUT_EMPTY", f"The folder holds no photograph. {there}", "Give the file of the photograph."
        )
    if len(found) > 1:
        raise _ambiguous([Path(path).name for path in found])
    others = [Path(path).name for path in files if path != found[0]]
    if not others:
        return found[0], ()
    message = f"Skipped: {counted(len(others), 'file')} that are no photographs, {names(others)}."
    return found[0], (Finding(code="FILE_NOT_AN_IMAGE", message=message),)


def _is_photograph(path: str) -> bool:
    with Path(path).open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if is_photograph_file(head):
        return True
    header = _dicom_header(path)
    return header is not None and is_image(header)


def _ambiguous(files: Sequence[str]) -> InputRefused:
    return InputRefused(
        "SERIES_AMBIGUOUS",
        f"There are {counted(len(files), 'photograph')}, and each could be meant: {names(files)}.",
        "Give one file.",
    )


def _plain(finding: Finding) -> dict[str, str]:
    return {"code": finding.code, "message": finding.message}
