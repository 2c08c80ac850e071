"""The stated rule that chooses one CT series of a study; it sees facts from headers, no pixels and no names.

A series is better than another when it wins the first of these in which they differ:

1. *length*: at least 60 mm along the slices' normal, so that slices for timing the contrast lose;
2. *plane*: axial slices before coronal, sagittal and oblique ones;
3. *origin*: original images before derived ones (reformatted, averaged, filtered);
4. *kernel*: a kernel for soft tissue before an unknown one, and that before a sharp one (lung, bone);
5. *coverage*: at least 90 % of the longest series that is left;
6. *slice distance*: 3 mm or less before more, then the one nearest to 3 mm, to a tenth of a millimetre;
7. *number of images*: more before fewer;
8. *series number*: the lower;
9. *UID*: the first in alphabetical order, so that there is always exactly one answer.

The first six matter to a reader. Where they do not tell two series apart (two contrast phases, say), the
choice is arbitrary, and is said to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

KernelKind = Literal["soft", "unknown", "sharp"]

MIN_LENGTH_MM = 60.0
WANTED_SLICE_DISTANCE_MM = 3.0
COVERAGE_SHARE = 0.9
_KERNEL_ORDER: dict[str, int] = {"soft": 0, "unknown": 1, "sharp": 2}
_SIEMENS = re.compile(r"[A-Z]{1,2}(\d{2})[A-Z]?(?![A-Z\d])")  # B30f, I31s, Br40d, Bl57f
_CANON = re.compile(r"FC(\d{2})")
_SOFT_NAMES = {"STANDARD", "STND", "SOFT", "SMOOTH", "A", "B", "C"}  # GE, then Philips
_SHARP_NAMES = {"LUNG", "BONE", "BONEPLUS", "EDGE", "ULTRA", "D", "E", "L", "YA", "YB", "YC", "YD", "YE"}


@dataclass(frozen=True, kw_only=True)
class SeriesFacts:
    """What the rule looks at.

    Args:
        uid: series instance UID, empty where it is missing.
        number: series number; ``None`` where it is missing, which counts as the highest.
        num_images: slices.
        is_axial: whether the slices are roughly axial.
        is_original: whether they are not derived.
        kernel: what the reconstruction kernel is for.
        length_mm: what the slices cover along their normal, mm.
        slice_distance_mm: between neighbours, mm; 0 where it is unknown.
    """

    uid: str
    number: int | None
    num_images: int
    is_axial: bool
    is_original: bool
    kernel: KernelKind
    length_mm: float
    slice_distance_mm: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the rule says.

    Args:
        best: the chosen series.
        lost_by: why each other series lost, by its UID.
        as_good: series that only the number of images, the series number or the UID told from the best.
    """

    best: SeriesFacts
    lost_by: dict[str, str]
    as_good: tuple[SeriesFacts, ...]


_Criterion = tuple[str, Callable[[SeriesFacts, float], Any]]

_CLINICAL: tuple[_Criterion, ...] = (
    ("length", lambda facts, needed_mm: facts.length_mm < MIN_LENGTH_MM),
    ("plane", lambda facts, needed_mm: not facts.is_axial),
    ("origin", lambda facts, needed_mm: not facts.is_original),
    ("kernel", lambda facts, needed_mm: _KERNEL_ORDER[facts.kernel]),
    ("coverage", lambda facts, needed_mm: facts.length_mm < needed_mm),
    ("slice distance", lambda facts, needed_mm: _distance_rank(facts.slice_distance_mm)),
)
_LAST: tuple[_Criterion, ...] = (
    ("number of images", lambda facts, needed_mm: -facts.num_images),
    ("series number", lambda facts, needed_mm: _number_and_uid(facts)[:2]),
    ("UID", lambda facts, needed_mm: facts.uid),
)


def choose_by_rule(series: Sequence[SeriesFacts]) -> Choice:
    """Choose one series.

    Args:
        series: candidates, each with a UID of its own, at least one; their order does not matter.

    Returns:
        The best of them, and why.

    Raises:
        ValueError: there is none, or two share a UID.
    """
    if not series or len({facts.uid for facts in series}) < len(series):
        raise ValueError(f"series must be at least one, with different UIDs, got {len(series)}.")
    lost_by: dict[str, str] = {}
    as_good = _the_best(series, _CLINICAL, lost_by)
    best = _the_best(as_good, _LAST, lost_by)[0]
    others = sorted((facts for facts in as_good if facts is not best), key=_number_and_uid)
    return Choice(best=best, lost_by=lost_by, as_good=tuple(others))


def _the_best(
    series: Sequence[SeriesFacts], criteria: Sequence[_Criterion], lost_by: dict[str, str]
) -> list[SeriesFacts]:
    """Keep what wins every criterion in turn, and write down by which the others lose."""
    left = list(series)
    for name, rank in criteria:
        needed_mm = COVERAGE_SHARE * max(facts.length_mm for facts in left)
        ranks = {facts.uid: rank(facts, needed_mm) for facts in left}
        best_rank = min(ranks.values())
        lost_by.update({uid: name for uid, its_rank in ranks.items() if its_rank != best_rank})
        left = [facts for facts in left if ranks[facts.uid] == best_rank]
    return left


def _number_and_uid(facts: SeriesFacts) -> tuple[bool, int, str]:
    return facts.number is None, facts.number or 0, facts.uid


def kernel_kind(name: str) -> KernelKind:
    """Tell what a reconstruction kernel is for by its name.

    Siemens numbers its kernels by sharpness: B20 to B45 and Br32 to Br44 are for soft tissue, from 50 on for
    lung and bone. Canon (Toshiba) has FC01 to FC29 for soft tissue of body and head, FC30 to FC39 and from
    FC50 on for bone and lung. GE writes words, Philips letters.

    Args:
        name: first value of Convolution Kernel.

    Returns:
        ``soft``, ``sharp``, or ``unknown`` for what is in between or not known here.
    """
    word = name.strip().upper()
    if canon := _CANON.match(word):
        number = int(canon.group(1))
        return "soft" if number < 30 else "unknown" if 40 <= number < 50 else "sharp"
    if siemens := _SIEMENS.match(word):
        number = int(siemens.group(1))
        return "soft" if number <= 45 else "sharp" if number >= 50 else "unknown"
    if word in _SOFT_NAMES:
        return "soft"
    return "sharp" if word in _SHARP_NAMES else "unknown"


def _distance_rank(distance_mm: float) -> tuple[bool, float]:
    rounded = round(distance_mm, 1)
    is_odd = rounded <= 0 or rounded > WANTED_SLICE_DISTANCE_MM
    return is_odd, abs(rounded - WANTED_SLICE_DISTANCE_MM)
