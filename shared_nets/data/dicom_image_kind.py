"""What kind of CT images these are, as far as headers truly tell: projections, material maps, cone beams.

Only coded values decide (Image Type, Rescale Type, the model of the scanner). Free text can warn, never
refuse, and is never repeated in a message: people write names into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from shared_nets.data.dicom_frames import Frame
from shared_nets.data.dicom_header import DicomHeader
from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

# Words of Image Type: DICOM PS3.3 C.8.2.1.1.1 and C.8.16.1 (with underscores), and what vendors write.
#: Each pixel shows the extreme of a slab or a rendered surface, so organs grow, shrink or vanish.
PROJECTIONS = frozenset(
    (
        *("MIP", "MINIP", "MAXIP", "PROJECTION", "MAXIMUM", "MINIMUM"),
        *("VRT", "SSD", "VOLREN", "SURFREN", "CPR", "CURVED"),
    )
)
#: Values that are no Hounsfield units, or those of one material only.
MAPS = frozenset(
    (
        *("EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "MAT_SPECIFIC", "MAT_FRACTIONAL", "MAT_VALUE_BASED"),
        *("IODINE", "ZEFF", "CBF", "CBV", "MTT", "TTP", "TMAX", "SUBTRACTION", "DIVISION", "STD_DEVIATION"),
    )
)
#: Hounsfield units, but not those of one tube voltage: contrast looks stronger, weaker or is gone.
DUAL_ENERGY = frozenset(("VMI", "MAT_REMOVED", "MAT_MODIFIED", "MONOENERGETIC", "MONOE", "VNC", "VUE"))
#: Models of cone beam scanners, in capitals.
CONE_BEAMS = (
    *("ON-BOARD IMAGER", "XVI", "ARTIS", "ALLURA"),  # beside a treatment table, in angiography
    *("NEWTOM", "I-CAT", "PROMAX", "ACCUITOMO", "GALILEOS"),  # for teeth
)
_ATTENUATION = re.compile(r"\b(CTAC|AC[ -]?CT|CT[ -]?AC|ATTENUATION)\b")


def unusable_kind(image_type: Iterable[str]) -> str | None:
    """Tell images that cannot be measured, by their Image Type.

    Args:
        image_type: values of Image Type or Frame Type.

    Returns:
        ``projection`` or ``map``; ``None`` for all others.
    """
    words = _words(image_type)
    if words & MAPS:
        return "map"
    return "projection" if words & PROJECTIONS else None


def check_image_kind(frames: Sequence[Frame]) -> list[Finding]:
    """Check the kind of all images of a series.

    Args:
        frames: of the series, at least one.

    Returns:
        Warnings: ``SERIES_DERIVED``, ``SERIES_DUAL_ENERGY``, ``PIXEL_NOT_HU``, ``CONE_BEAM``,
        ``CT_FOR_ATTENUATION``.

    Raises:
        InputRefused: ``SERIES_DERIVED`` for projections, ``PIXEL_NOT_HU`` for maps.
    """
    for frame in frames:
        _refuse_unusable(frame)
    header = frames[0].header
    found = []
    words = set().union(*(_words(frame.image_type) for frame in frames))
    if dual := sorted(words & DUAL_ENERGY):
        message = f"ImageType says {', '.join(dual)}: densities are not those of a plain CT."
        found.append(Finding(code="SERIES_DUAL_ENERGY", message=message))
    elif "DERIVED" in words:
        message = "ImageType says DERIVED: the images were computed from others, such as reformatted slices."
        found.append(Finding(code="SERIES_DERIVED", message=message))
    if header.text("Modality") == "CT" and any(frame.rescale_type == "US" for frame in frames):
        message = "RescaleType says US (unspecified): the values may not be Hounsfield units."
        found.append(Finding(code="PIXEL_NOT_HU", message=message))
    model = header.text_upper("ManufacturerModelName")
    if any(re.search(rf"\b{re.escape(name)}\b", model) for name in CONE_BEAMS):
        message = "The scanner is a cone beam CT, whose values are only roughly Hounsfield units."
        found.append(Finding(code="CONE_BEAM", message=message))
    texts = [
        header.text_upper(keyword).replace("_", " ") for keyword in ("SeriesDescription", "ProtocolName")
    ]
    if any(_ATTENUATION.search(text) for text in texts):
        message = "The series calls itself an attenuation correction for PET: low dose, breathing freely."
        found.append(Finding(code="CT_FOR_ATTENUATION", message=message))
    return found


def is_derived(header: DicomHeader) -> bool:
    """Tell images computed from others.

    Args:
        header: of an image.

    Returns:
        Whether Image Type says so.
    """
    return "DERIVED" in _words(header.texts("ImageType"))


def _refuse_unusable(frame: Frame) -> None:
    kind = unusable_kind(frame.image_type)
    if kind == "projection":
        raise InputRefused(
            "SERIES_DERIVED",
            f"ImageType of {frame.name} says that it is a projection of a slab, which changes sizes.",
            "Give the original slices.",
        )
    if kind == "map":
        raise InputRefused(
            "PIXEL_NOT_HU",
            f"ImageType of {frame.name} says that it is a map computed from a CT, not the CT.",
            "Give the plain CT reconstruction.",
        )


def _words(values: Iterable[str]) -> set[str]:
    """Split values such as ``CT_SOM5 MIP`` at blanks."""
    return {word for value in values for word in value.upper().split()}
