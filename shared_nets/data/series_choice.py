"""Headers of a folder → the images of the one series that is meant: by UID, as the only one, or by rule."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared_nets.data.ct_series import CTOptions
from shared_nets.data.dicom_files import is_localizer
from shared_nets.data.dicom_frames import Frame, frames_of
from shared_nets.data.dicom_header import DicomHeader
from shared_nets.data.dicom_image_kind import is_derived, unusable_kind
from shared_nets.data.dicom_wording import counted, names
from shared_nets.data.series_rule import Choice, SeriesFacts, choose_by_rule, kernel_kind
from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

Group = Sequence[DicomHeader]


@dataclass(frozen=True, kw_only=True)
class ChosenSeries:
    """The images of one series.

    Args:
        headers: of its images; no scouts.
        repairs: what was left out, and how the series was chosen.
        warnings: that the choice was arbitrary.
    """

    headers: list[DicomHeader]
    repairs: tuple[Finding, ...]
    warnings: tuple[Finding, ...] = ()


def choose_series(headers: Group, options: CTOptions) -> ChosenSeries:
    """Choose the one series that is meant.

    Args:
        headers: of images.
        options: the wanted modality; the wanted series, where the caller knows it; else, when several could
            be meant, whether to refuse or to choose by :mod:`shared_nets.data.series_rule`.

    Returns:
        The images of one series.

    Raises:
        InputRefused: ``SERIES_NOT_FOUND``, ``SERIES_AMBIGUOUS``, ``WRONG_MODALITY``,
            ``GEOMETRY_NOT_A_VOLUME``, ``PIXEL_FORMAT_UNSUPPORTED``.
    """
    groups: dict[str, list[DicomHeader]] = {}
    for header in headers:
        groups.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    warnings: list[Finding] = []
    repairs: list[Finding] = []
    if options.series_uid is not None:
        if options.series_uid not in groups:
            there = "; ".join(f"{_describe(group)}, UID {uid}" for uid, group in groups.items())
            raise InputRefused(
                "SERIES_NOT_FOUND",
                f"No image belongs to series {options.series_uid}.",
                f"There are: {there}.",
            )
        chosen = groups.pop(options.series_uid)
        dropped = [f"{_describe(group)}: not the wanted series" for group in groups.values()]
    else:
        reasons = _reasons_to_drop(groups, options.modality)
        left = {uid: group for uid, group in groups.items() if uid not in reasons}
        if not left:
            raise _nothing_left(list(groups.values()), options.modality)
        dropped = [f"{_describe(groups[uid])}: {reason}" for uid, reason in reasons.items()]
        uid = next(iter(left))
        if len(left) > 1:
            uid, repairs, warnings = _choose(left, options.series_choice)
        chosen = left[uid]
    if dropped:
        repairs.append(Finding(code="SERIES_DROPPED", message=f"Left out: {'; '.join(dropped)}."))
    if options.modality is not None and any(h.text("Modality") != options.modality for h in chosen):
        raise _wrong_modality(chosen, options.modality)
    slices = [header for header in chosen if not is_localizer(header)]
    scouts = [header.name for header in chosen if is_localizer(header)]
    if not slices:
        raise _nothing_left([chosen], options.modality)
    if scouts:
        message = f"Dropped from the series: {counted(len(scouts), 'localizer image')}, {names(scouts)}."
        repairs.append(Finding(code="LOCALIZER_DROPPED", message=message))
    return ChosenSeries(headers=slices, repairs=tuple(repairs), warnings=tuple(warnings))


def series_facts(group: Group) -> SeriesFacts:
    """Gather what the rule looks at.

    Args:
        group: headers of one series.

    Returns:
        The facts; a series whose frames cannot be understood has no length and is not axial.
    """
    first = group[0]
    frames: list[Frame] = []
    with contextlib.suppress(InputRefused):  # chosen for want of others, it is refused then
        frames = [frame for header in group for frame in frames_of(header) if not frame.is_localizer]
    placed = [frame for frame in frames if len(frame.position) == 3 and len(frame.orientation) == 6]
    is_axial, length_mm, distance_mm = False, 0.0, 0.0
    if placed:
        row, column = np.reshape(placed[0].orientation, (2, 3))
        normal = np.cross(row, column)
        is_axial = int(np.abs(normal).argmax()) == 2
        at = np.unique(np.round([np.dot(normal, frame.position) for frame in placed], 2))
        distance_mm = float(np.median(np.diff(at))) if at.size > 1 else 0.0
        length_mm = float(at[-1] - at[0]) + distance_mm
    numbers = first.numbers("SeriesNumber")
    return SeriesFacts(
        uid=first.text("SeriesInstanceUID"),
        number=int(numbers[0]) if numbers and np.isfinite(numbers[0]) else None,
        num_images=len(frames) or len(group),
        is_axial=is_axial,
        is_original=not any(is_derived(header) for header in group),
        kernel=kernel_kind(first.text("ConvolutionKernel")),
        length_mm=length_mm,
        slice_distance_mm=distance_mm,
    )


def _reasons_to_drop(groups: dict[str, list[DicomHeader]], modality: str | None) -> dict[str, str]:
    """Say which series cannot be meant; projections, maps and derived images only lose against others."""
    found = {uid: _reason_to_drop(group, modality) for uid, group in groups.items()}
    reasons = {uid: reason for uid, reason in found.items() if reason is not None}
    for is_worse, reason in ((_is_unusable, "projections or maps"), (_is_derived, "derived images")):
        left = [uid for uid in groups if uid not in reasons]
        worse = [uid for uid in left if is_worse(groups[uid])]
        if len(worse) < len(left):
            reasons.update(dict.fromkeys(worse, reason))
    return reasons


def _choose(left: dict[str, list[DicomHeader]], how: str) -> tuple[str, list[Finding], list[Finding]]:
    studies = {(group[0].text("PatientID"), group[0].text("StudyInstanceUID")) for group in left.values()}
    if how == "refuse" or len(studies) > 1:
        candidates = "; ".join(f"{_describe(group)}, UID {uid or 'missing'}" for uid, group in left.items())
        of = f" of {len(studies)} studies" if len(studies) > 1 else ""
        raise InputRefused(
            "SERIES_AMBIGUOUS",
            f"{len(left)} series{of} could be meant: {candidates}.",
            "Give a folder with one series, or name it with series_uid.",
        )
    choice = choose_by_rule([series_facts(group) for group in left.values()])
    return choice.best.uid, [_chosen(choice, left)], _arbitrary(choice, left)


def _chosen(choice: Choice, groups: dict[str, list[DicomHeader]]) -> Finding:
    lost: dict[str, list[str]] = {}
    for uid, criterion in choice.lost_by.items():
        lost.setdefault(criterion, []).append(_describe(groups[uid]))
    others = "; ".join(f"by {criterion} over {', '.join(series)}" for criterion, series in lost.items())
    best = choice.best
    about = (
        f"{best.length_mm:.0f} mm long, a slice every {best.slice_distance_mm:.1f} mm, "
        f"kernel for {'soft tissue' if best.kernel == 'soft' else f'{best.kernel} use'}"
    )
    message = f"Chosen by rule out of {len(groups)}: {_describe(groups[best.uid])}, {about}; {others}."
    return Finding(code="SERIES_CHOSEN", message=message)


def _arbitrary(choice: Choice, groups: dict[str, list[DicomHeader]]) -> list[Finding]:
    if not choice.as_good:
        return []
    others = ", ".join(_describe(groups[facts.uid]) for facts in choice.as_good)
    message = (
        f"Nothing that matters tells {_describe(groups[choice.best.uid])} from {others}; they may be "
        "phases of one contrast injection. Name the series to be sure."
    )
    return [Finding(code="SERIES_CHOICE_ARBITRARY", message=message)]


def _describe(group: Group) -> str:
    number = group[0].text("SeriesNumber") or "without number"
    return f"series {number} ({counted(len(group), 'image')})"


def _reason_to_drop(group: Group, modality: str | None) -> str | None:
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


def _is_unusable(group: Group) -> bool:
    return any(unusable_kind(header.texts("ImageType")) for header in group)


def _is_derived(group: Group) -> bool:
    return all(is_derived(header) for header in group)


def _nothing_left(groups: Sequence[Group], modality: str | None) -> InputRefused:
    headers = [header for group in groups for header in group]
    if modality is not None and all(header.text("Modality") != modality for header in headers):
        return _wrong_modality(headers, modality)
    if any(is_localizer(header) for header in headers):
        message = "There are only localizer images, no slices."
        return InputRefused("GEOMETRY_NOT_A_VOLUME", message, "Give the folder that holds the axial slices.")
    message = "There are only screen captures, no slices."
    return InputRefused("PIXEL_FORMAT_UNSUPPORTED", message, "Give the original CT slices.")


def _wrong_modality(headers: Group, modality: str) -> InputRefused:
    others = [header for header in headers if header.text("Modality") != modality]
    words = sorted({header.text("Modality") or "no modality" for header in others})
    return InputRefused(
        "WRONG_MODALITY",
        f"{others[0].name} is tagged {', '.join(words)}, and this model was made for {modality}.",
        f"Give a {modality} series.",
    )
