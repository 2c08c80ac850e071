"""Photographs with one peculiarity each, and the answer that the reader owes: the tests' corpus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from skimage.color import rgb2ycbcr

from shared_nets.data.photograph_synthetic import (
    DERMOSCOPY,
    SECONDARY_CAPTURE,
    TRUE_COLOUR_CAPTURE,
    VL_PHOTOGRAPH,
    dicom_photograph,
    synthetic_photograph,
    write_dicom_photograph,
)

_CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True, kw_only=True)
class PhotographDefect:
    """One peculiarity and the answer to it.

    Attributes:
        write: writes into a folder and returns what to read.
        refusal: the code it is refused with, or ``None``.
        repair: the code of the repair that is listed, or ``None``.
        warning: the code of the warning that is listed, or ``None``.
        tolerance: how far a pixel may lie from the synthetic photograph; ``None`` for another picture.
    """

    write: Callable[[Path], Path]
    refusal: str | None = None
    repair: str | None = None
    warning: str | None = None
    tolerance: int | None = 0


def _picture() -> Image.Image:
    return Image.fromarray(synthetic_photograph())


def _saved(name: str, make: Callable[[], Image.Image] = _picture, **how: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        make().save(folder / name, **how)
        return folder / name

    return write


def _bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _cut(write: Callable[[Path], Path], keep: float) -> Callable[[Path], Path]:
    def cut(folder: Path) -> Path:
        path = write(folder)
        data = path.read_bytes()
        path.write_bytes(data[: int(keep * len(data))])
        return path

    return cut


def _oriented(orientation: int) -> Callable[[Path], Path]:
    """Store the picture turned, with the tag that turns it back."""
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return _saved("turned.png", lambda: _picture().transpose(undo[orientation]), exif=exif)


def _alpha(opacity: int) -> Callable[[Path], Path]:
    def make() -> Image.Image:
        picture = _picture()
        picture.putalpha(Image.new("L", picture.size, opacity))
        return picture

    return _saved("alpha.png", make)


def _frames(name: str) -> Callable[[Path], Path]:
    return _saved(name, save_all=True, append_images=[_picture().transpose(Image.Transpose.ROTATE_180)])


def _second_picture() -> Image.Image:
    return _picture().resize((16, 16))


def _sixteen_bits(pixel: int) -> Image.Image:
    """Grey of a 12-bit camera."""
    return Image.fromarray(np.full((40, 40), pixel, dtype=np.uint16))


def _dicom(
    *, sop_class: str = DERMOSCOPY, syntax: str = ExplicitVRLittleEndian, **values: Any
) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        dataset = dicom_photograph(sop_class=sop_class)
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        write_dicom_photograph(folder / "photo.dcm", dataset, syntax=syntax)
        return folder / "photo.dcm"

    return write


def _dicom_changed(change: Callable[[Dataset, Any], None]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        dataset = dicom_photograph()
        change(dataset, synthetic_photograph())
        write_dicom_photograph(folder / "photo.dcm", dataset)
        return folder / "photo.dcm"

    return write


def _planar(dataset: Dataset, pixels: Any) -> None:
    dataset.PlanarConfiguration = 1
    dataset.PixelData = np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()


def _ybr_full(dataset: Dataset, pixels: Any) -> None:
    dataset.PhotometricInterpretation = "YBR_FULL"
    full = (rgb2ycbcr(pixels) - [16, 128, 128]) * [255 / 219, 255 / 224, 255 / 224] + [0, 128, 128]
    dataset.PixelData = np.rint(full).clip(0, 255).astype(np.uint8).tobytes()


def _sixteen_bit_colour(dataset: Dataset, pixels: Any) -> None:
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = np.rint(pixels * (4095 / 255)).astype("<u2").tobytes()


def _palette(dataset: Dataset, pixels: Any) -> None:
    """Every row has one colour of a palette; the picture is then no longer the synthetic one."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "PALETTE COLOR"
    del dataset.PlanarConfiguration
    for colour, values in (("Red", range(256)), ("Green", range(255, -1, -1)), ("Blue", [90] * 256)):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        table = (np.array(values, dtype="<u2") * 257).tobytes()
        setattr(dataset, f"{colour}PaletteColorLookupTableData", table)
    dataset.PixelData = np.ascontiguousarray(pixels[..., 0]).tobytes()


def _grey(meaning: str) -> Callable[[Dataset, Any], None]:
    def change(dataset: Dataset, pixels: Any) -> None:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, meaning
        del dataset.PlanarConfiguration
        dataset.PixelData = np.ascontiguousarray(pixels[..., 0]).tobytes()

    return change


def _folder_with(*names: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        for name in names:
            write_dicom_photograph(folder / name)
        (folder / "notes.txt").write_text("not an image", encoding="utf-8")
        return folder

    return write


def _damaged(folder: Path) -> Path:
    path = _dicom(syntax=JPEG2000Lossless)(folder)
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\x4f\xff\x51")
    data[start : start + 40] = bytes(40)
    path.write_bytes(bytes(data))
    return path


def _is(tolerance: int | None, write: Callable[[Path], Path], **answer: str) -> PhotographDefect:
    return PhotographDefect(write=write, tolerance=tolerance, **answer)


def _refused(code: str, write: Callable[[Path], Path]) -> PhotographDefect:
    return PhotographDefect(write=write, refusal=code, tolerance=None)


_HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"

#: Name → how it is made and what the reader answers.
PHOTOGRAPH_DEFECTS: dict[str, PhotographDefect] = {
    # sound files
    "png": _is(0, _saved("a.png")),
    "bmp": _is(0, _saved("a.bmp")),
    "tiff": _is(0, _saved("a.tif")),
    "tiff, compressed": _is(0, _saved("a.tiff", compression="tiff_lzw")),
    "webp": _is(0, _saved("a.webp", lossless=True)),
    "jpeg": _is(6, _saved("a.jpg", quality=95)),
    "jpeg, progressive": _is(6, _saved("a.jpg", quality=95, progressive=True)),
    "no suffix": _is(0, _saved("a", format="PNG")),
    # peculiar files
    "orientation 3": _is(0, _oriented(3), repair="IMAGE_ORIENTED"),
    "orientation 6": _is(0, _oriented(6), repair="IMAGE_ORIENTED"),
    "orientation 7": _is(0, _oriented(7), repair="IMAGE_ORIENTED"),
    "alpha, opaque": _is(0, _alpha(255)),
    "alpha, half": _is(None, _alpha(128), repair="IMAGE_ALPHA"),
    "alpha, nothing left": _refused("IMAGE_TRANSPARENT", _alpha(0)),
    "cmyk": _is(6, _saved("a.tif", lambda: _picture().convert("CMYK")), repair="IMAGE_CMYK"),
    "palette": _is(40, _saved("a.png", lambda: _picture().quantize(256)), repair="IMAGE_PALETTE"),
    "grey": _is(None, _saved("a.png", lambda: _picture().convert("L")), warning="IMAGE_GREY"),
    "grey as colour": _is(
        None, _saved("a.png", lambda: _picture().convert("L").convert("RGB")), warning="IMAGE_GREY"
    ),
    "16-bit grey": _is(
        None, _saved("a.png", lambda: _sixteen_bits(65535)), repair="IMAGE_16_BIT", warning="IMAGE_GREY"
    ),
    "12-bit grey in 16 bits": _is(
        None, _saved("a.tif", lambda: _sixteen_bits(4095)), repair="IMAGE_16_BIT", warning="IMAGE_GREY"
    ),
    "numbers with fractions": _refused(
        "PIXEL_FORMAT_UNSUPPORTED", _saved("a.tif", lambda: _picture().convert("F"))
    ),
    "damaged profile": _is(
        0, _saved("a.png", icc_profile=b"not a profile"), warning="IMAGE_PROFILE_UNREADABLE"
    ),
    "png called jpg": _is(0, _saved("a.jpg", format="PNG"), repair="FILE_SUFFIX"),
    "telephone with a second picture": _is(
        6,
        _saved("a.jpg", format="MPO", save_all=True, append_images=[_second_picture()], quality=95),
        repair="IMAGE_FIRST_OF_SEVERAL",
    ),
    "several pages": _refused("IMAGE_SEVERAL_FRAMES", _frames("a.tif")),
    "animated webp": _refused("IMAGE_SEVERAL_FRAMES", _frames("a.webp")),
    "animated png": _refused("IMAGE_SEVERAL_FRAMES", _frames("a.png")),
    "gif": _refused("INPUT_UNREADABLE", _saved("a.gif")),
    "jpeg, cut off": _refused("PIXEL_TRUNCATED", _cut(_saved("a.jpg"), 0.7)),
    "png, cut off": _refused("PIXEL_TRUNCATED", _cut(_saved("a.png"), 0.6)),
    "bmp, cut off": _refused("PIXEL_TRUNCATED", _cut(_saved("a.bmp"), 0.7)),
    "webp, cut off": _refused("PIXEL_TRUNCATED", _cut(_saved("a.webp"), 0.7)),
    "tiff, cut off": _refused("PIXEL_TRUNCATED", _cut(_saved("a.tif"), 0.7)),
    "cut off in the header": _refused("PIXEL_TRUNCATED", _cut(_saved("a.jpg"), 0.01)),
    "empty file": _refused("INPUT_UNREADABLE", _bytes("a.jpg", b"")),
    "web page called jpg": _refused("INPUT_UNREADABLE", _bytes("a.jpg", _HTML)),
    "pdf called jpg": _refused("INPUT_UNREADABLE", _bytes("a.jpg", b"%PDF-1.7 ...")),
    "heic": _refused("INPUT_UNREADABLE", _bytes("a.heic", b"\0\0\0\x18ftypheic" + bytes(40))),
    "zeros": _refused("INPUT_UNREADABLE", _bytes("a.jpg", bytes(600))),
    # DICOM
    "dicom dermoscopy": _is(0, _dicom()),
    "dicom vl photograph": _is(0, _dicom(sop_class=VL_PHOTOGRAPH)),
    "dicom secondary capture": _is(0, _dicom(sop_class=SECONDARY_CAPTURE)),
    "dicom true colour, one frame": _is(0, _dicom(sop_class=TRUE_COLOUR_CAPTURE, NumberOfFrames=1)),
    "dicom implicit": _is(0, _dicom(syntax=ImplicitVRLittleEndian)),
    "dicom rle": _is(0, _dicom(syntax=RLELossless)),
    "dicom jpeg-ls": _is(0, _dicom(syntax=JPEGLSLossless)),
    "dicom jpeg 2000": _is(0, _dicom(syntax=JPEG2000Lossless)),
    "dicom jpeg": _is(8, _dicom(syntax=JPEGBaseline8Bit)),
    "dicom in planes": _is(0, _dicom_changed(_planar)),
    "dicom ybr": _is(3, _dicom_changed(_ybr_full)),
    "dicom 12 bit": _is(1, _dicom_changed(_sixteen_bit_colour), repair="IMAGE_16_BIT"),
    "dicom palette": _is(None, _dicom_changed(_palette), repair="IMAGE_PALETTE"),
    "dicom grey": _is(None, _dicom_changed(_grey("MONOCHROME2")), warning="IMAGE_GREY"),
    "dicom grey, inverted": _is(
        None, _dicom_changed(_grey("MONOCHROME1")), repair="PIXEL_MONOCHROME1", warning="IMAGE_GREY"
    ),
    "dicom burned-in": _is(0, _dicom(BurnedInAnnotation="YES"), warning="PIXEL_BURNED_IN_ANNOTATION"),
    "dicom without modality": _is(0, _dicom(Modality=None), warning="MODALITY_MISSING"),
    "dicom without uid": _is(0, _dicom(SeriesInstanceUID=None), warning="SERIES_NO_UID"),
    "dicom of a ct": _refused("WRONG_MODALITY", _dicom(sop_class=SECONDARY_CAPTURE, Modality="CT")),
    "dicom of another class": _refused("WRONG_MODALITY", _dicom(sop_class=_CT, Modality="OT")),
    "dicom of several frames": _refused("IMAGE_SEVERAL_FRAMES", _dicom(NumberOfFrames=2)),
    "dicom without pixels": _refused("PIXEL_MISSING", _dicom(PixelData=None)),
    "dicom cut off": _refused("PIXEL_TRUNCATED", _cut(_dicom(), 0.8)),
    "dicom jpeg cut off": _refused("PIXEL_TRUNCATED", _cut(_dicom(syntax=JPEGBaseline8Bit), 0.9)),
    "dicom damaged": _refused("PIXEL_UNDECODABLE", _damaged),
    # folders
    "folder with one": _is(0, _folder_with("IM1"), repair="FILE_NOT_AN_IMAGE"),
    "folder with two": _refused("SERIES_AMBIGUOUS", _folder_with("IM1", "IM2")),
    "folder with none": _refused("INPUT_EMPTY", _folder_with()),
}


def write_photograph_defect(name: str, folder: Path) -> tuple[PhotographDefect, Path]:
    """Write one peculiar photograph.

    Args:
        name: a key of :data:`PHOTOGRAPH_DEFECTS`.
        folder: where to write.

    Returns:
        The defect, with the answer that the reader owes, and the path to read.

    Raises:
        KeyError: there is no such defect.
    """
    defect = PHOTOGRAPH_DEFECTS[name]
    folder.mkdir(parents=True, exist_ok=True)
    return defect, defect.write(folder)
