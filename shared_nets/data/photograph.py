"""A photograph as it was read, and the steps that every kind of file shares: size, depth, colour space.

Shape letters: H rows from top to bottom, W columns from left to right.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

ByteArray = npt.NDArray[np.uint8]
_MEGAPIXEL = 1_000_000


@dataclass(frozen=True, kw_only=True)
class PhotographOptions:
    """What is accepted.

    Args:
        burned_in: ``warn`` or ``refuse`` when a DICOM header says that text is burned into the pixels.
        max_megapixels: larger images are refused before they are decoded; Pillow itself ends at 178.
        reduce_above_megapixels: larger JPEG files are decoded at a half, a quarter or an eighth.
    """

    burned_in: str = "warn"
    max_megapixels: float = 170.0
    reduce_above_megapixels: float = 50.0

    def __post_init__(self) -> None:
        if self.burned_in not in ("warn", "refuse"):
            raise ValueError(f"burned_in must be warn or refuse, got {self.burned_in!r}.")
        if self.max_megapixels <= 0 or self.reduce_above_megapixels <= 0:
            raise ValueError("max_megapixels and reduce_above_megapixels must be positive.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Photograph:
    """A decoded photograph with all that a result must know of its source; nothing names a person.

    Args:
        pixels: sRGB, ``(H, W, 3)`` uint8.
        source: ``dicom`` or ``photograph``.
        header: facts for the provenance: ``format``, ``sha256`` of the file, ``stored_shape`` (rows, columns
            in the file), and what DICOM says of equipment and site.
        files: the DICOM file; empty otherwise.
        study_uid: of DICOM; also the next three.
        series_uid: Series Instance UID.
        sop_uid: SOP Instance UID.
        modality: DICOM's word.
        is_resampled: whether pixels are not those of the file, because they were decoded at a smaller size.
        repairs: what was put right.
        warnings: what a reader of the result must know.
    """

    pixels: ByteArray
    source: str
    header: Mapping[str, Any]
    files: tuple[str, ...] = ()
    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    modality: str = ""
    is_resampled: bool = False
    repairs: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()


@dataclass
class Notes:
    """Collects findings while a file is read."""

    repairs: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def repaired(self, code: str, message: str) -> None:
        """Note something that was put right."""
        self.repairs.append(Finding(code=code, message=message))

    def warn(self, code: str, message: str) -> None:
        """Note something that a reader of the result must know."""
        self.warnings.append(Finding(code=code, message=message))


def check_megapixels(name: str, rows: int, columns: int, options: PhotographOptions) -> None:
    """Refuse an image whose decoding could exhaust the memory.

    Args:
        name: of the file.
        rows: of the image.
        columns: of the image.
        options: with the limit.

    Raises:
        InputRefused: ``IMAGE_TOO_LARGE``; ``INPUT_UNREADABLE`` without a size.
    """
    if rows < 1 or columns < 1:
        raise InputRefused(
            "INPUT_UNREADABLE", f"{name} does not say how large it is.", "Export the file again."
        )
    if rows * columns > options.max_megapixels * _MEGAPIXEL:
        raise too_large(name, options)


def too_large(name: str, options: PhotographOptions) -> InputRefused:
    """Say that an image is larger than is read."""
    return InputRefused(
        "IMAGE_TOO_LARGE",
        f"{name} has more than {options.max_megapixels:g} million pixels.",
        "Scale it down, or cut out the lesion with the skin around it.",
    )


def to_eight_bits(values: npt.NDArray[Any], top: int | None = None) -> ByteArray:
    """Scale whole numbers from 0 on to 8 bits.

    Args:
        values: any shape, not negative.
        top: the value that stands for full intensity. Without it, the depth of the camera (8, 10, 12, 14 or
            16 bits) is the smallest that holds all values: 12-bit data often come in 16-bit files.

    Returns:
        The same shape, uint8.
    """
    if top is None:
        highest = int(values.max(initial=0))
        top = next((1 << bits) - 1 for bits in (8, 10, 12, 14, 16, 32) if highest < 1 << bits)
    scaled = np.rint(values.astype(np.float32) * np.float32(255.0 / top))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def to_srgb(image: Image.Image, profile: bytes | None, notes: Notes, name: str) -> Image.Image:
    """Bring an image into sRGB, by its embedded colour profile where there is one.

    Args:
        image: mode ``L``, ``RGB`` or ``CMYK``.
        profile: the ICC profile; colours without one are taken for sRGB.
        notes: of the file.
        name: of the file.

    Returns:
        Mode ``RGB``.
    """
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        words = ImageCms.getProfileDescription(source).strip()
        if image.mode == "RGB" and words.startswith("sRGB"):
            return image
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.warn(
            "IMAGE_PROFILE_UNREADABLE",
            f"The colour profile of {name} is damaged or does not fit the image; sRGB was assumed.",
        )
        return image.convert("RGB")
    if converted is None:  # only when converted in place
        raise AssertionError("profileToProfile must return an image.")
    notes.repaired("IMAGE_PROFILE", f"Colours of {name} were converted to sRGB by the embedded profile.")
    return converted


def note_grey(pixels: ByteArray, notes: Notes, name: str) -> None:
    """Warn where an image holds no colour at all.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        notes: of the file.
        name: of the file.
    """
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    if np.array_equal(red, green) and np.array_equal(green, blue):
        notes.warn("IMAGE_GREY", f"{name} has no colour, and the networks here learned from colour.")
