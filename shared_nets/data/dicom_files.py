"""Files and folders → the headers of one series: junk, scouts and other series are left out, and said so."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from shared_nets.data.dicom_frames import ENHANCED_CLASSES
from shared_nets.data.dicom_header import DicomHeader, read_header
from shared_nets.data.dicom_wording import counted, names
from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

_SINGLE_FRAME_CT = "1.2.840.10008.5.1.4.1.1.2"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
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


def choose_series(
    headers: Sequence[DicomHeader], *, modality: str | None, series_uid: str | None
) -> tuple[list[DicomHeader], tuple[Finding, ...]]:
    """Choose the one series that is meant; never guess between two.

    Args:
        headers: of images.
        modality: DICOM's word for what is wanted, or ``None`` for anything.
        series_uid: the wanted series, where the caller knows it.

    Returns:
        The images of one series, and what was left out.

    Raises:
        InputRefused: ``SERIES_NOT_FOUND``, ``SERIES_AMBIGUOUS``, ``WRONG_MODALITY``,
            ``GEOMETRY_NOT_A_VOLUME``, ``PIXEL_FORMAT_UNSUPPORTED``.
    """
    groups: dict[str, list[DicomHeader]] = {}
    for header in headers:
        groups.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    if series_uid is not None:
        if series_uid not in groups:
            raise InputRefused(
                "SERIES_NOT_FOUND",
                f"No image belongs to series {series_uid}.",
                f"There are: {'; '.join(f'{_describe(group)}, UID {uid}' for uid, group in groups.items())}.",
            )
        chosen = groups.pop(series_uid)
        dropped = [f"{_describe(group)}: not the wanted series" for group in groups.values()]
    else:
        reasons = {uid: _reason_to_drop(group, modality) for uid, group in groups.items()}
        left = [uid for uid, reason in reasons.items() if reason is None]
        if len(left) > 1 and any(not _is_derived(groups[uid]) for uid in left):
            reasons.update({uid: "derived images" for uid in left if _is_derived(groups[uid])})
            left = [uid for uid, reason in reasons.items() if reason is None]
        if not left:
            raise _nothing_left(list(groups.values()), modality)
        if len(left) > 1:
            candidates = "; ".join(f"{_describe(groups[uid])}, UID {uid or 'missing'}" for uid in left)
            raise InputRefused(
                "SERIES_AMBIGUOUS",
                f"{len(left)} series could be meant: {candidates}.",
                "Give a folder with one series, or name it with series_uid.",
            )
        chosen = groups.pop(left[0])
        dropped = [f"{_describe(group)}: {reasons[uid]}" for uid, group in groups.items()]
    findings = [Finding(code="SERIES_DROPPED", message=f"Left out: {'; '.join(dropped)}.")] if dropped else []
    if modality is not None and any(header.text("Modality") != modality for header in chosen):
        raise _wrong_modality(chosen, modality)
    slices = [header for header in chosen if not is_localizer(header)]
    scouts = [header.name for header in chosen if is_localizer(header)]
    if not slices:
        raise _nothing_left([chosen], modality)
    if scouts:
        message = f"Dropped from the series: {counted(len(scouts), 'localizer image')}, {names(scouts)}."
        findings.append(Finding(code="LOCALIZER_DROPPED", message=message))
    return slices, tuple(findings)


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


def _describe(group: Sequence[DicomHeader]) -> str:
    number = group[0].text("SeriesNumber") or "without number"
    return f"series {number} ({counted(len(group), 'image')})"


def _reason_to_drop(group: Sequence[DicomHeader], modality: str | None) -> str | None:
    modalities = sorted({header.text("Modality") or "unknown" for header in group})
    if modality is not None and modality not in modalities:
        return f"modality {', '.join(modalities)}"
    if all(is_localizer(header) for header in group):
        return "localizer"
    if all(_is_screenshot(header) for header in group):
        return "screen captures"
    return None


def _is_screenshot(header: DicomHeader) -> bool:
    return header.integer("SamplesPerPixel") == 3 or header.text("SOPClassUID").startswith(_SECONDARY_CAPTURE)


def _is_derived(group: Sequence[DicomHeader]) -> bool:
    return all(header.text_upper("ImageType").startswith("DERIVED") for header in group)


def _nothing_left(groups: Sequence[Sequence[DicomHeader]], modality: str | None) -> InputRefused:
    headers = [header for group in groups for header in group]
    if modality is not None and all(header.text("Modality") != modality for header in headers):
        return _wrong_modality(headers, modality)
    if any(is_localizer(header) for header in headers):
        message = "There are only localizer images, no slices."
        return InputRefused("GEOMETRY_NOT_A_VOLUME", message, "Give the folder that holds the axial slices.")
    message = "There are only screen captures, no slices."
    return InputRefused("PIXEL_FORMAT_UNSUPPORTED", message, "Give the original CT slices.")


def _wrong_modality(headers: Sequence[DicomHeader], modality: str) -> InputRefused:
    others = [header for header in headers if header.text("Modality") != modality]
    words = sorted({header.text("Modality") or "no modality" for header in others})
    return InputRefused(
        "WRONG_MODALITY",
        f"{others[0].name} is tagged {', '.join(words)}, and this model was made for {modality}.",
        f"Give a {modality} series.",
    )
