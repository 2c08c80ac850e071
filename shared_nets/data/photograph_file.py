"""JPEG, PNG, TIFF, BMP and WebP → one upright sRGB photograph, with a note of all that was done."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from shared_nets.data.photograph import (
    Notes,
    Photograph,
    PhotographOptions,
    check_megapixels,
    note_grey,
    to_eight_bits,
    to_srgb,
    too_large,
)
from shared_nets.refusals import InputRefused

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")  # a telephone's MPO opens as JPEG
_READ_HERE = "JPEG, PNG, TIFF, BMP, WebP and DICOM"
_SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **{".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".dcm": "DICOM", ".gif": "GIF"},
}
_REDUCED_PX = 4096  # no side of a JPEG decoded at a smaller size falls below this
_WHITE = (255, 255, 255)
_SEND_AGAIN = "Copy or export the file again; the transfer seems to have been cut off."
_SAVE_AS_JPEG = "Save the photograph as JPEG or PNG."
_MAX_SAMPLE_VALUE, _SAMPLE_FORMAT = 281, 339  # TIFF tags
_UNSIGNED = 1


def is_photograph_file(head: bytes) -> bool:
    """Tell by its first bytes whether a file is of a kind that is read here.

    Args:
        head: at least 12 bytes, fewer where the file is shorter.

    Returns:
        Whether it starts like JPEG, PNG, TIFF, BMP or WebP.
    """
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM")
    return head.startswith(starts) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def read_photograph_file(path: str, options: PhotographOptions) -> Photograph:
    """Read one photograph; its content decides what it is, not its name.

    Args:
        path: the file.
        options: what is accepted.

    Returns:
        The photograph, upright; ``header`` still lacks the sha256.

    Raises:
        InputRefused: ``INPUT_UNREADABLE``, ``IMAGE_…`` or ``PIXEL_…``.
    """
    name, notes = Path(path).name, Notes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of size and of damaged tags; both are dealt with here
        try:
            image = Image.open(path, formats=FORMATS)
        except UnidentifiedImageError as error:
            raise _not_a_photograph(path) from error
        except Image.DecompressionBombError as error:
            raise too_large(name, options) from error
        except OSError as error:
            if error.errno is not None:  # the file cannot be read, rather than understood
                raise
            raise _undecodable(path, error) from error
        with image:
            stored = image.height, image.width
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            check_megapixels(name, *stored, options)
            _check_frames(image, name, notes)
            _check_suffix(path, kind, notes)
            orientation = _orientation(image, notes, name)
            upright = _decoded(image, path, notes, options, orientation)
    if orientation in range(2, 9):
        notes.repaired(
            "IMAGE_ORIENTED", f"{name} was turned upright as its orientation tag ({orientation}) says."
        )
    pixels = np.array(upright)  # (H, W, 3), a copy that can be written to
    note_grey(pixels, notes, name)
    return Photograph(
        pixels=pixels,
        source="photograph",
        header={"format": kind, "stored_shape": list(stored)},
        is_resampled=any(note.code == "IMAGE_REDUCED" for note in notes.repairs),
        repairs=tuple(notes.repairs),
        warnings=tuple(notes.warnings),
    )


def _decoded(
    image: Image.Image, path: str, notes: Notes, options: PhotographOptions, orientation: int
) -> Image.Image:
    name = Path(path).name
    profile = image.info.get("icc_profile")
    is_large = image.width * image.height > options.reduce_above_megapixels * 1e6
    if is_large and image.format in ("JPEG", "MPO"):
        before = image.size
        image.draft(image.mode, (_REDUCED_PX, _REDUCED_PX))
        if image.size != before:
            message = (
                f"{name} has {before[0]}×{before[1]} pixels and was decoded at {image.width}×{image.height}."
            )
            notes.repaired("IMAGE_REDUCED", message)
    depth = _stored_bits(image, path)
    if depth > 16 or image.mode in ("I", "F"):
        raise _unsupported(name, f"numbers of {max(depth, 32)} bits or with fractions")
    try:
        image.load()
        if depth == 16:
            image = _from_sixteen_bits(image, path, orientation, notes)
    except InputRefused:
        raise
    except Exception as error:  # codecs raise OSError, SyntaxError, ValueError, struct.error
        raise _undecodable(path, error) from error
    try:
        ImageOps.exif_transpose(image, in_place=True)  # Pillow has turned TIFF already
    except Exception as error:  # a damaged EXIF block that says more than the orientation
        raise _undecodable(path, error) from error
    return _as_rgb(image, profile, notes, name)


def _as_rgb(image: Image.Image, profile: bytes | None, notes: Notes, name: str) -> Image.Image:
    """Bring every mode of Pillow to RGB."""
    if image.mode == "P":
        notes.repaired("IMAGE_PALETTE", f"The colours of {name} were looked up in its palette.")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode == "CMYK":
        how = "by the embedded profile" if profile else "without a profile, so they are approximate"
        notes.repaired("IMAGE_CMYK", f"The printing colours (CMYK) of {name} were converted {how}.")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("P", "YCbCr"):
        image = image.convert("RGB")
    if image.mode not in ("L", "RGB", "CMYK"):
        raise _unsupported(name, f"the colour mode {image.mode}")
    image = to_srgb(image, profile, notes, name)
    return image if alpha is None else _on_white(image, alpha, notes, name)


def _on_white(image: Image.Image, alpha: Image.Image, notes: Notes, name: str) -> Image.Image:
    opacity = np.asarray(alpha)
    if not opacity.any():
        raise InputRefused(
            "IMAGE_TRANSPARENT", f"Every pixel of {name} is transparent.", "Export the photograph again."
        )
    share = float((opacity < 255).mean())
    if share == 0:
        return image
    notes.repaired("IMAGE_ALPHA", f"{share:.1%} of {name} are transparent and were laid over white.")
    return Image.composite(image, Image.new("RGB", image.size, _WHITE), alpha)


def _stored_bits(image: Image.Image, path: str) -> int:
    """Bits per sample in the file; Pillow drops all but the upper 8 of coloured images."""
    if image.format == "PNG":
        with Path(path).open("rb") as file:
            return file.read(25)[24]  # the depth stands at a fixed place
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))) != {_UNSIGNED}:
            return 32  # signed or with fractions
        return int(max(tags.get(ExifTags.Base.BitsPerSample, (1,))))
    return 8


def _from_sixteen_bits(image: Image.Image, path: str, orientation: int, notes: Notes) -> Image.Image:
    """Scale 16 bits to 8: PNG by its full range, as its standard says, TIFF by the range in use."""
    name = Path(path).name
    if image.format == "PNG":
        notes.repaired("IMAGE_16_BIT", f"The 16 bits of {name} were scaled to 8 by their full range.")
        if not image.mode.startswith("I;16"):
            return image  # Pillow kept the upper 8 bits
        return Image.fromarray(to_eight_bits(np.asarray(image), top=65535))
    given = image.tag_v2.get(_MAX_SAMPLE_VALUE)  # type: ignore[attr-defined]
    reader = sitk.ImageFileReader()
    reader.SetImageIO("TIFFImageIO")
    reader.SetFileName(path)
    values = sitk.GetArrayFromImage(reader.Execute())  # (H, W) or (H, W, C), as stored
    colours = values if values.ndim == 2 else values[..., :3]
    top = None if given is None else int(np.max(given))
    scaled = to_eight_bits(colours, top)
    bits = (int(colours.max(initial=0)) if top is None else top).bit_length()
    notes.repaired("IMAGE_16_BIT", f"The 16 bits of {name}, of which {bits} are used, were scaled to 8.")
    turned = Image.fromarray(scaled)
    turned.getexif()[ExifTags.Base.Orientation] = orientation
    return turned


def _orientation(image: Image.Image, notes: Notes, name: str) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises many kinds for damaged tags
        notes.warn("IMAGE_EXIF_UNREADABLE", f"The camera's notes (EXIF) in {name} are damaged.")
        image.info.pop("exif", None)
        image._exif = None
        return 1


def _check_frames(image: Image.Image, name: str, notes: Notes) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames == 1:
        return
    if image.format == "MPO":
        message = (
            f"{name} holds {frames} pictures, as telephones store depth or brightness; the first was read."
        )
        notes.repaired("IMAGE_FIRST_OF_SEVERAL", message)
        return
    raise InputRefused(
        "IMAGE_SEVERAL_FRAMES", f"{name} holds {frames} pictures or pages.", "Give one picture a file."
    )


def _check_suffix(path: str, kind: str, notes: Notes) -> None:
    said = _SUFFIXES.get(Path(path).suffix.lower())
    if said is not None and said != kind:
        notes.repaired(
            "FILE_SUFFIX", f"{Path(path).name} is {kind} by its content, not {said} as its name says."
        )


def _not_a_photograph(path: str) -> InputRefused:
    """Say what a file is instead, as far as its first bytes tell."""
    name = Path(path).name
    with Path(path).open("rb") as file:
        head = file.read(512)
    if is_photograph_file(head):
        if head.startswith((b"II*\0", b"MM\0*")):
            return _unsupported(name, "a kind of TIFF that is not read here, such as camera raw")
        return InputRefused("INPUT_UNREADABLE", f"{name} is damaged at its start.", _SEND_AGAIN)
    what = next((words for words, is_it in _OTHERS.items() if is_it(head)), None)
    if what is None:
        message = f"{name} is not a photograph in a format that is read here."
    else:
        message = f"{name} is {what}, whatever its name says."
    return InputRefused("INPUT_UNREADABLE", message, f"{_SAVE_AS_JPEG} Read are {_READ_HERE}.")


def _starts_like_a_page(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith((b"<!doctype html", b"<html", b"<head"))


_OTHERS = {
    "empty": lambda head: not head,
    "a web page": _starts_like_a_page,
    "a PDF document": lambda head: head.startswith(b"%PDF"),
    "a GIF animation": lambda head: head.startswith(b"GIF8"),
    "a ZIP archive": lambda head: head.startswith(b"PK\x03\x04"),
    "a HEIF or AVIF photograph": lambda head: (
        head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
    ),
    "filled with zeros": lambda head: not any(head),
}


def _unsupported(name: str, what: str) -> InputRefused:
    return InputRefused("PIXEL_FORMAT_UNSUPPORTED", f"{name} holds {what}.", _SAVE_AS_JPEG)


def _undecodable(path: str, error: Exception) -> InputRefused:
    name, words = Path(path).name, str(error).lower()
    if "truncated" in words or "end of file" in words or "not enough" in words or _is_short_webp(path):
        return InputRefused("PIXEL_TRUNCATED", f"{name} ends before its last pixel.", _SEND_AGAIN)
    return InputRefused("PIXEL_UNDECODABLE", f"The pixels of {name} cannot be decoded.", _SEND_AGAIN)


def _is_short_webp(path: str) -> bool:
    with Path(path).open("rb") as file:
        head = file.read(8)
        return head[:4] == b"RIFF" and file.seek(0, 2) < 8 + int.from_bytes(head[4:], "little")
