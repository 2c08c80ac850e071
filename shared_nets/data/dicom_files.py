"""Files and folders → the headers of all images among them; junk is left out, and said so."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from shared_nets.data.dicom_frames import ENHANCED_CLASSES
from shared_nets.data.dicom_header import DicomHeader, read_header
from shared_nets.data.dicom_wording import counted, names
from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

_SINGLE_FRAME_CT = "1.2.840.10008.5.1.4.1.1.2"
_LOCALIZER_WORDS = ("LOCALIZER", "SCOUT", "TOPOGRAM")


def files_below(folder: str) -> list[str]:
    """List every file in a folder and its subfolders.

    Args:
        folder: a directory.

    Returns:
        Paths in a fixed order.

    Raises:
        InputRefused: ``INPUT_NO_PERMISSION``.
    """

    def refuse(error: OSError) -> None:
        raise _no_permission(str(error.filename), error)

    found: list[str] = []
    for root, folders, files in os.walk(folder, onerror=refuse):
        folders.sort()
        found.extend(f"{root}{os.sep}{file}" for file in sorted(files))
    return found


def read_headers(paths: Iterable[str]) -> tuple[list[DicomHeader], tuple[Finding, ...]]:
    """Read the headers of all images among some files.

    Args:
        paths: files of any kind.

    Returns:
        The headers of DICOM images, and what was left out.

    Raises:
        InputRefused: ``INPUT_EMPTY``, ``INPUT_NO_PERMISSION``, ``INPUT_UNREADABLE``, ``INPUT_NOT_FOUND``;
            ``PIXEL_MISSING`` for a CT file that was cut off between two tags.
    """
    images: list[DicomHeader] = []
    junk: list[str] = []
    no_images: list[str] = []
    for path in paths:
        header = _header_or_refusal(path)
        if header is None:
            junk.append(Path(path).name)
        elif is_image(header):
            if _is_ct(header) and header.pixel_offset is None and not header.is_deflated:
                raise InputRefused(
                    "PIXEL_MISSING", f"{header.name} has no pixel data.", "Copy or export the file again."
                )
            images.append(header)
        else:
            no_images.append(header.name)
    if not images:
        there = (
            f"There is only {names(junk + no_images)}." if junk or no_images else "There is no file at all."
        )
        raise InputRefused(
            "INPUT_EMPTY", f"No DICOM image was found. {there}", "Give the folder that holds the CT slices."
        )
    findings = []
    if junk:
        message = f"Skipped: {counted(len(junk), 'file')} not in DICOM format, {names(junk)}."
        findings.append(Finding(code="FILE_NOT_DICOM", message=message))
    if no_images:
        message = f"Skipped: {counted(len(no_images), 'DICOM file')} without an image, {names(no_images)}."
        findings.append(Finding(code="FILE_NOT_AN_IMAGE", message=message))
    return images, tuple(findings)


def is_image(header: DicomHeader) -> bool:
    """Tell an image from reports, directories and other DICOM objects.

    Args:
        header: of a DICOM file.

    Returns:
        Whether it is, or claims to be, an image.
    """
    return header.integer("Rows") is not None or _is_ct(header)


def is_localizer(header: DicomHeader) -> bool:
    """Tell a scout from an image of the volume.

    Args:
        header: of an image.

    Returns:
        Whether the image calls itself a localizer.
    """
    return any(word in header.text_upper("ImageType") for word in _LOCALIZER_WORDS)


def _is_ct(header: DicomHeader) -> bool:
    kind = header.text("SOPClassUID")
    return kind == _SINGLE_FRAME_CT or kind in ENHANCED_CLASSES


def _header_or_refusal(path: str) -> DicomHeader | None:
    try:
        return read_header(path)
    except FileNotFoundError as error:
        raise InputRefused("INPUT_NOT_FOUND", f"There is no {Path(path).name}.", "Check the path.") from error
    except OSError as error:
        raise _no_permission(path, error) from error
    except ValueError as error:
        raise InputRefused("INPUT_UNREADABLE", f"{error}.", "Copy or export the file again.") from error


def _no_permission(path: str, error: OSError) -> InputRefused:
    return InputRefused(
        "INPUT_NO_PERMISSION",
        f"{Path(path).name} cannot be read: {error.strerror}.",
        "Give this user the right to read the files.",
    )
