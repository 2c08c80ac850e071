"""Synthetic defects of DICOM series, one each, and the answer that the reader owes: the tests' corpus."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from shared_nets.data.dicom_synthetic import (
    COLUMNS,
    INTERCEPT,
    ROWS,
    SERIES_UID,
    enhanced_ct,
    get_pixels,
    set_pixels,
    synthetic_series,
    write_file,
    write_series,
)

Series = list[Dataset]
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
TILT_DEGREES = 15.0


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One defect and the answer to it.

    Attributes:
        write: writes the series into a folder that does not exist yet.
        refusal: the code it is refused with, or ``None``.
        repair: the code of the repair that is listed, or ``None``.
        warning: the code of the warning that is listed, or ``None``.
        same_values: whether what is read equals the sound series voxel by voxel.
    """

    write: Callable[[Path], None]
    refusal: str | None = None
    repair: str | None = None
    warning: str | None = None
    same_values: bool = True


def _change(
    change: Callable[[Series], Series | None], *, syntax: str = ExplicitVRLittleEndian
) -> Callable[[Path], None]:
    """Write the sound series after a change; the change returns the new list, or edits the old one."""

    def write(folder: Path) -> None:
        series = synthetic_series()
        with disable_value_validation():
            changed = change(series)
        write_series(folder, series if changed is None else changed, syntax=syntax)

    return write


def _set_all(**values: object) -> Callable[[Path], None]:
    def change(series: Series) -> None:
        for dataset in series:
            _set(dataset, **values)

    return _change(change)


def _set_one(k: int, **values: object) -> Callable[[Path], None]:
    return _change(lambda series: _set(series[k], **values))


def _set(dataset: Dataset, **values: object) -> None:
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)


def _copy(dataset: Dataset, **values: object) -> Dataset:
    other = copy.deepcopy(dataset)
    _set(other, **values)
    return other


def _varying_spacing(series: Series) -> None:
    for k, dataset in enumerate(series):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + 0.05 * k * k]


def _tilted(series: Series) -> None:
    tilt = math.radians(TILT_DEGREES)
    for dataset in series:  # the gantry leans back, the table still moves along z
        dataset.ImageOrientationPatient = [1, 0, 0, 0, math.cos(tilt), math.sin(tilt)]
        dataset.GantryDetectorTilt = TILT_DEGREES


def _localizer(series: Series) -> Series:
    scout = _copy(
        series[0],
        SOPInstanceUID=f"{SERIES_UID}.99",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
    )
    set_pixels(scout, np.zeros((40, 50), dtype="<u2"))
    return [scout, *series]


def _duplicate_but_different(series: Series) -> Series:
    other = _copy(series[5], SOPInstanceUID=f"{SERIES_UID}.98")
    set_pixels(other, get_pixels(series[5]) + np.uint16(40))
    return [*series, other]


def _long_orientation(series: Series) -> None:
    for dataset in series:
        dataset.ImageOrientationPatient = ["1.00000000000000000000", *("0.00000000000000000000",) * 3,
                                           "1.00000000000000000000", "-0.0000000000000000000001"]  # fmt: skip


def _monochrome1(series: Series) -> None:
    for dataset in series:
        dataset.PhotometricInterpretation = "MONOCHROME1"
        set_pixels(dataset, np.uint16(4095) - get_pixels(dataset))


def _padding(series: Series) -> None:
    """The corner is padding that would be far below air; the value is written as unsigned, as GE does."""
    for dataset in series:
        hounsfield = get_pixels(dataset).astype("<i2") + np.int16(INTERCEPT)
        hounsfield[:2, :2] = -2000
        dataset.BitsStored, dataset.HighBit = 16, 15
        dataset.RescaleIntercept = 0
        set_pixels(dataset, hounsfield)
        dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)


def _signed(series: Series) -> None:
    for dataset in series:
        set_pixels(dataset, get_pixels(dataset).astype("<i2") + np.int16(INTERCEPT))
        dataset.RescaleIntercept = 0


def _slope_per_slice(series: Series) -> None:
    for k, dataset in enumerate(series):
        slope = 0.5 + 0.5 * (k % 2)
        dataset.RescaleSlope = slope
        set_pixels(dataset, (get_pixels(dataset) / slope).astype("<u2"))


def _beyond_hounsfield(series: Series) -> None:
    stored = get_pixels(series[4])
    stored[0, 0] = 65000
    set_pixels(series[4], stored)


def _eight_bit(series: Series) -> None:
    for dataset in series:
        set_pixels(dataset, (get_pixels(dataset) // 8).astype("<u2"))
        dataset.RescaleIntercept = 0


def _mixed_size(series: Series) -> None:
    set_pixels(series[7], np.full((48, 64), 24, dtype="<u2"))


def _second_series(series: Series, **values: object) -> Series:
    other = [
        _copy(
            dataset,
            SeriesInstanceUID=f"{SERIES_UID}.5",
            SeriesNumber=5,
            SOPInstanceUID=f"{SERIES_UID}.5.{k}",
            **values,
        )
        for k, dataset in enumerate(synthetic_series())
    ]
    return [*series, *other]


def _screenshot(series: Series) -> Series:
    capture = _copy(
        series[0],
        SOPClassUID=SECONDARY_CAPTURE,
        SOPInstanceUID=f"{SERIES_UID}.7.1",
        SeriesInstanceUID=f"{SERIES_UID}.7",
        SeriesNumber=999,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelData=bytes(ROWS * COLUMNS * 3),
    )
    return [*series, capture]


def _write_truncated(folder: Path, *, syntax: str = ExplicitVRLittleEndian, keep: float = 0.7) -> None:
    write_series(folder, synthetic_series(), syntax=syntax)
    file = folder / "IM0006.dcm"
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])


def _write_damaged_codestream(folder: Path) -> None:
    write_series(folder, synthetic_series(), syntax=JPEG2000Lossless)
    file = folder / "IM0006.dcm"
    data = bytearray(file.read_bytes())
    start = data.index(b"\xff\x4f\xff\x51")
    data[start : start + 40] = bytes(40)
    file.write_bytes(bytes(data))


def _write_with_junk(folder: Path) -> None:
    write_series(folder / "study" / "series", synthetic_series())
    (folder / "readme.txt").write_text("not an image", encoding="utf-8")
    (folder / "study" / "IM0000.dcm").write_bytes(b"")
    (folder / "DICOMDIR").write_bytes(b"not a real directory")


def _write_without_preamble(folder: Path) -> None:
    write_series(folder, synthetic_series(), syntax=ImplicitVRLittleEndian)
    for file in folder.iterdir():
        data = file.read_bytes()
        start = 144 + int.from_bytes(data[140:144], "little")  # after the file meta information
        file.write_bytes(data[start:])


def _write_enhanced(folder: Path, *, syntax: str = ExplicitVRLittleEndian) -> None:
    folder.mkdir(parents=True)
    write_file(folder / "enhanced.dcm", enhanced_ct(order=[3, 1, 0, 2, *range(11, 3, -1)]), syntax=syntax)


def _write_multiframe_without_headers(folder: Path) -> None:
    dataset = enhanced_ct()
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.SOPClassUID = CTImageStorage
    folder.mkdir(parents=True)
    write_file(folder / "multiframe.dcm", dataset)


def _encoded(syntax: str) -> Defect:
    return Defect(write=_change(lambda series: None, syntax=syntax))


def _refused(code: str, write: Callable[[Path], None]) -> Defect:
    return Defect(write=write, refusal=code, same_values=False)


_TURNED = [0, 1, 0, -1, 0, 0]
_SKEW = [1, 0, 0, 0.2, 1, 0]

#: Name of the defect → how it is made and what the reader answers.
DEFECTS: dict[str, Defect] = {
    "sound": Defect(write=_change(lambda series: None)),
    # the table of the front door
    "missing slice": _refused("GEOMETRY_MISSING_SLICE", _change(lambda series: series[:5] + series[6:])),
    "spacing varies": _refused("GEOMETRY_IRREGULAR_SPACING", _change(_varying_spacing)),
    "gantry tilt": Defect(write=_change(_tilted), repair="GEOMETRY_GANTRY_TILT", same_values=False),
    "slice twice": Defect(
        write=_change(lambda series: [*series, _copy(series[5], SOPInstanceUID=f"{SERIES_UID}.98")]),
        repair="GEOMETRY_DUPLICATE_SLICE",
    ),
    "slice twice, different": _refused("GEOMETRY_DUPLICATE_SLICE", _change(_duplicate_but_different)),
    "localizer inside": Defect(write=_change(_localizer), repair="LOCALIZER_DROPPED"),
    "no position": _refused("GEOMETRY_NO_POSITION", _set_all(ImagePositionPatient=None)),
    "orientation over 16 characters": Defect(write=_change(_long_orientation)),
    "monochrome1": Defect(write=_change(_monochrome1), repair="PIXEL_MONOCHROME1"),
    "slope zero": _refused("PIXEL_RESCALE_INVALID", _set_all(RescaleSlope=0)),
    "pixel spacing zero": _refused("GEOMETRY_BAD_SPACING", _set_all(PixelSpacing=[0, 0])),
    "truncated": _refused("PIXEL_TRUNCATED", _write_truncated),
    "enhanced": Defect(write=_write_enhanced),
    "tagged MR": _refused("WRONG_MODALITY", _set_all(Modality="MR")),
    # encodings
    "implicit": _encoded(ImplicitVRLittleEndian),
    "big endian": _encoded(ExplicitVRBigEndian),
    "deflated": _encoded(DeflatedExplicitVRLittleEndian),
    "jpeg 2000": _encoded(JPEG2000Lossless),
    "jpeg-ls": _encoded(JPEGLSLossless),
    "rle": _encoded(RLELossless),
    "enhanced jpeg 2000": Defect(write=lambda folder: _write_enhanced(folder, syntax=JPEG2000Lossless)),
    "without preamble": Defect(write=_write_without_preamble),
    "jpeg 2000 truncated": _refused(
        "PIXEL_TRUNCATED", lambda folder: _write_truncated(folder, syntax=JPEG2000Lossless, keep=0.9)
    ),
    "jpeg 2000 damaged": _refused("PIXEL_UNDECODABLE", _write_damaged_codestream),
    "truncated in the header": _refused(
        "INPUT_UNREADABLE", lambda folder: _write_truncated(folder, keep=0.2)
    ),
    # pixels
    "padding": Defect(write=_change(_padding), repair="PIXEL_PADDING", same_values=False),
    "padding means water": Defect(
        write=_set_all(PixelPaddingValue=-INTERCEPT), warning="PIXEL_PADDING_DOUBTFUL"
    ),
    "signed": Defect(write=_change(_signed)),
    "slope per slice": Defect(write=_change(_slope_per_slice)),
    "no rescale": _refused("PIXEL_RESCALE_INVALID", _set_all(RescaleSlope=None, RescaleIntercept=None)),
    "intercept not a number": _refused("PIXEL_RESCALE_INVALID", _set_all(RescaleIntercept="NaN")),
    "rescaled to a material map": _refused("PIXEL_NOT_HU", _set_all(RescaleType="MGML")),
    "beyond hounsfield": _refused("PIXEL_NOT_HU", _change(_beyond_hounsfield)),
    "eight-bit values": _refused("PIXEL_NOT_HU", _change(_eight_bit)),
    "high bit elsewhere": _refused("PIXEL_FORMAT_UNSUPPORTED", _set_all(HighBit=15)),
    "no pixels": _refused("PIXEL_MISSING", _set_one(4, PixelData=None)),
    "burned-in annotation": Defect(
        write=_set_all(BurnedInAnnotation="YES"), warning="PIXEL_BURNED_IN_ANNOTATION"
    ),
    "compressed with loss": Defect(write=_set_all(LossyImageCompression="01"), warning="PIXEL_LOSSY"),
    # geometry
    "anisotropic pixels": Defect(write=_set_all(PixelSpacing=[1.6, 0.8])),
    "reversed instance numbers": Defect(write=_change(lambda series: series[::-1])),
    "skewed axes": _refused("GEOMETRY_BAD_ORIENTATION", _set_all(ImageOrientationPatient=_SKEW)),
    "no orientation": _refused("GEOMETRY_BAD_ORIENTATION", _set_all(ImageOrientationPatient=None)),
    "one slice turned": _refused("GEOMETRY_MIXED_ORIENTATION", _set_one(3, ImageOrientationPatient=_TURNED)),
    "one slice moved sideways": _refused(
        "GEOMETRY_IRREGULAR_SPACING", _set_one(3, ImagePositionPatient=[10, -9, 106])
    ),
    "mixed sizes": _refused("GEOMETRY_MIXED_SIZE", _change(_mixed_size)),
    "mixed pixel spacing": _refused("GEOMETRY_MIXED_SIZE", _set_one(3, PixelSpacing=[0.9, 0.9])),
    "single slice": _refused("GEOMETRY_TOO_FEW_SLICES", _change(lambda series: series[:1])),
    "every other slice": Defect(
        write=_change(lambda series: series[::2]), warning="GEOMETRY_SLICE_GAPS", same_values=False
    ),
    "frames without headers": _refused("GEOMETRY_NOT_A_VOLUME", _write_multiframe_without_headers),
    # files and series
    "junk and nested folders": Defect(write=_write_with_junk, repair="FILE_NOT_DICOM"),
    "empty folder": _refused("INPUT_EMPTY", lambda folder: folder.mkdir(parents=True)),
    "two series": _refused("SERIES_AMBIGUOUS", _change(_second_series)),
    "a derived series beside": Defect(
        write=_change(lambda series: _second_series(series, ImageType=["DERIVED", "SECONDARY", "MPR"])),
        repair="SERIES_DROPPED",
    ),
    "an MR series beside": Defect(
        write=_change(lambda series: _second_series(series, Modality="MR")), repair="SERIES_DROPPED"
    ),
    "a screen capture beside": Defect(write=_change(_screenshot), repair="SERIES_DROPPED"),
    "only localizers": _refused(
        "GEOMETRY_NOT_A_VOLUME", _set_all(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    ),
    "two people": _refused("SERIES_INCONSISTENT", _set_one(6, PatientID="SYNTHETIC-2")),
    "two frames of reference": _refused("SERIES_INCONSISTENT", _set_one(6, FrameOfReferenceUID="1.2.3.4")),
}  # fmt: skip


def write_defect(name: str, folder: Path) -> Defect:
    """Write one synthetic series with one defect.

    Args:
        name: a key of :data:`DEFECTS`.
        folder: where to write; must not exist.

    Returns:
        The defect, with the answer that the reader owes.

    Raises:
        KeyError: there is no such defect.
    """
    defect = DEFECTS[name]
    defect.write(folder)
    return defect
