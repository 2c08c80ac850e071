"""A DICOM series → what is known of its volume, or a refusal; headers only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shared_nets.data.ct_series import CTOptions, CTSeries, axial_warning
from shared_nets.data.dicom_body_part import check_body_part
from shared_nets.data.dicom_files import read_headers
from shared_nets.data.dicom_frames import Frame, frames_of
from shared_nets.data.dicom_grid import arrange
from shared_nets.data.dicom_header import DicomHeader
from shared_nets.data.dicom_image_kind import check_image_kind
from shared_nets.data.dicom_person import person_facts
from shared_nets.data.dicom_pixels import DicomPixels, is_padding_doubtful, same_stored_pixels
from shared_nets.data.dicom_stored import check_pixel_length, stored_format
from shared_nets.data.dicom_wording import counted, names
from shared_nets.data.series_choice import choose_series
from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

#: Facts that travel with the volume beside those of the person's body; none names a person.
HEADER_FACTS = (
    *("BodyPartExamined", "SliceThickness", "KVP", "ConvolutionKernel", "ContrastBolusAgent"),
    "Manufacturer",
)


def open_dicom(paths: Sequence[str], options: CTOptions) -> CTSeries:
    """Read the headers of one series, check them, and lay out its grid.

    Args:
        paths: files, of which some may be junk or belong to other series.
        options: what is accepted.

    Returns:
        The volume by its headers.

    Raises:
        InputRefused: see :data:`shared_nets.refusals.CODES`.
    """
    headers, left_out = read_headers(paths)
    chosen = choose_series(headers, options)
    headers = chosen.headers
    _check_one_study(headers)
    warnings = [
        *chosen.warnings,
        *_burned_in(headers, options.burned_in),
        *check_body_part(headers, options.body_parts),
    ]
    for header in headers:
        stored_format(header)
        if not header.integer("Rows") or not header.integer("Columns"):
            raise InputRefused(
                "INPUT_UNREADABLE", f"{header.name} does not say how large it is.", "Export the file again."
            )
        check_pixel_length(header)
    frames = [frame for header in headers for frame in frames_of(header)]
    scouts = [frame.name for frame in frames if frame.is_localizer]
    frames = [frame for frame in frames if not frame.is_localizer]
    repairs = [*left_out, *chosen.repairs]
    if scouts:
        message = f"Dropped: {counted(len(scouts), 'localizer frame')}, {names(scouts)}."
        repairs.append(Finding(code="LOCALIZER_DROPPED", message=message))
    for frame in frames:
        _check_rescale(frame)
    if frames:
        warnings += check_image_kind(frames)
    grid = arrange(frames, gantry_tilt=options.gantry_tilt, same_pixels=same_stored_pixels)
    first = grid.frames[0].header
    warnings += [*_pixel_warnings(grid.frames), *grid.warnings, *axial_warning(grid.affine)]
    if any(frame.header.text("PhotometricInterpretation") == "MONOCHROME1" for frame in grid.frames):
        message = "The stored values were inverted (MONOCHROME1)."
        repairs.append(Finding(code="PIXEL_MONOCHROME1", message=message))
    title = f"series {first.text('SeriesNumber')}" if first.text("SeriesNumber") else "the series"
    return CTSeries(
        shape=grid.shape,
        affine=grid.affine,
        spacing_mm=grid.spacing_mm,
        slice_positions_mm=grid.positions_mm,
        series_uid=first.text("SeriesInstanceUID") or None,
        study_uid=first.text("StudyInstanceUID") or None,
        sop_uids=tuple(frame.sop_uid for frame in grid.frames),
        frame_numbers=tuple(frame.number + 1 for frame in grid.frames),
        files=tuple(frame.header.path for frame in grid.frames),
        is_resampled=grid.shift_px is not None,
        modality=first.text("Modality"),
        source="dicom",
        header={
            **person_facts(first),
            **{fact: "\\".join(first.texts(fact)) for fact in HEADER_FACTS if first.text(fact)},
        },
        repairs=(*repairs, *grid.repairs),
        warnings=tuple(warnings),
        pixels=DicomPixels(grid=grid, values=options.values, name=title),
    )


def _check_one_study(headers: Sequence[DicomHeader]) -> None:
    for keyword, what in (
        ("PatientID", "person"),
        ("StudyInstanceUID", "study"),
        ("FrameOfReferenceUID", "frame of reference"),
    ):
        if len({header.text(keyword) for header in headers}) > 1:
            odd = next(header for header in headers if header.text(keyword) != headers[0].text(keyword))
            raise InputRefused(
                "SERIES_INCONSISTENT",
                f"{headers[0].name} and {odd.name} share a series, but not their {what} ({keyword}).",
                "Separate them, and give one.",
            )


def _burned_in(headers: Sequence[DicomHeader], policy: str) -> list[Finding]:
    marked = [header.name for header in headers if header.text("BurnedInAnnotation").upper() == "YES"]
    if not marked:
        return []
    message = f"Text is burned into the pixels, says BurnedInAnnotation of {names(marked)}."
    if policy == "refuse":
        raise InputRefused("PIXEL_BURNED_IN_ANNOTATION", message, "Give the original slices.")
    return [Finding(code="PIXEL_BURNED_IN_ANNOTATION", message=message)]


def _check_rescale(frame: Frame) -> None:
    if not (math.isfinite(frame.slope) and math.isfinite(frame.intercept)) or frame.slope == 0:
        state = "zero" if frame.slope == 0 else "missing or not a number"
        raise InputRefused(
            "PIXEL_RESCALE_INVALID",
            f"RescaleSlope or RescaleIntercept of {frame.name} is {state}.",
            "Export the original slices; without both, values cannot become Hounsfield units.",
        )
    if frame.rescale_type not in ("", "HU", "US") and frame.header.text("Modality") == "CT":
        raise InputRefused(
            "PIXEL_NOT_HU",
            f"RescaleType of {frame.name} is {frame.rescale_type}: these are not Hounsfield units.",
            "Give the plain CT reconstruction, not a map computed from it.",
        )


def _pixel_warnings(frames: Sequence[Frame]) -> list[Finding]:
    found = []
    doubtful = [frame.name for frame in frames if is_padding_doubtful(frame)]
    if doubtful:
        message = f"PixelPaddingValue would stand for tissue and was not used: {names(doubtful)}."
        found.append(Finding(code="PIXEL_PADDING_DOUBTFUL", message=message))
    lossy = [frame.name for frame in frames if frame.header.text("LossyImageCompression") == "01"]
    if lossy:
        message = f"Compressed with loss: {names(lossy)}."
        found.append(Finding(code="PIXEL_LOSSY", message=message))
    if any(not frame.sop_uid for frame in frames) or not frames[0].header.text("SeriesInstanceUID"):
        message = "SOP or series instance UIDs are missing; results cannot refer to these images."
        found.append(Finding(code="SERIES_NO_UID", message=message))
    return found
