"""The front door for CT: a MONAI reader that checks headers first and decodes only what is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from monai.data import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys

from shared_nets.data.ct_open import open_ct
from shared_nets.data.ct_series import CTOptions, CTSeries
from shared_nets.data.dicom_body_part import BODY_REGIONS
from shared_nets.refusals import InputRefused

__all__ = ["CTReader", "CTSeries"]

PathLike = str | os.PathLike[str]


class CTReader(ImageReader):
    """Read a CT volume for ``LoadImaged(keys="image", reader=CTReader())``, or refuse it with a code.

    A DICOM series (folder, or list of files), an Enhanced multi-frame CT, NIfTI, NRRD and MetaImage become
    Hounsfield units on a right-handed grid whose slices lie along ``k``. What is wrong beyond repair raises
    :class:`InputRefused`; what was repaired is listed in ``meta["repairs"]``.

    Args:
        modality: DICOM's word for what the model was made for; ``None`` accepts anything.
        series_uid: the wanted series where a folder holds several.
        gantry_tilt: ``resample`` shifts the slices of a tilted gantry onto an orthogonal grid, ``refuse``
            refuses them.
        burned_in: ``warn`` or ``refuse`` when the header says that text is burned into the pixels.
        values: ``refuse`` or ``warn`` when values cannot be Hounsfield units (normalised, 8 bit).
        body_parts: parts of the body the model was made for, as DICOM writes them (a part of the word is
            enough), or the name of a region (``abdomen``); a scan that names a clearly different one is
            refused. ``None`` does not look.
        series_choice: what to do when several series of one study could be meant: ``refuse``, or choose by
            the stated ``rule`` of :mod:`shared_nets.data.series_rule`, which is then listed in the repairs.
    """

    def __init__(
        self,
        *,
        modality: str | None = "CT",
        series_uid: str | None = None,
        gantry_tilt: str = "resample",
        burned_in: str = "warn",
        values: str = "refuse",
        body_parts: Sequence[str] | str | None = None,
        series_choice: str = "refuse",
    ) -> None:
        self.options = CTOptions(
            modality=modality,
            series_uid=series_uid,
            gantry_tilt=gantry_tilt,
            burned_in=burned_in,
            values=values,
            body_parts=_words(body_parts),
            series_choice=series_choice,
        )

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Accept any name: DICOM files often have no suffix, and contents decide."""
        return True

    def open(self, data: PathLike | Sequence[PathLike]) -> CTSeries:
        """Read the headers, check them, and say what the volume will be.

        Args:
            data: a path, or the files of one series.

        Returns:
            The volume by its headers; nothing is decoded.

        Raises:
            InputRefused: the input cannot be used.
        """
        return open_ct(data, self.options)

    def read(self, data: PathLike | Sequence[PathLike], **kwargs: Any) -> CTSeries:
        """Do as :meth:`open` does, but keep a refusal until the volume is used.

        ``LoadImage`` catches whatever ``read`` raises and goes on to MONAI's own readers, which would let in
        silently what was refused here. So the refusal is raised by the first use of what is returned: any
        attribute of it, or :meth:`get_data`.

        Args:
            data: a path, or the files of one series.
            kwargs: ignored; part of MONAI's interface.

        Returns:
            The volume by its headers.
        """
        try:
            return self.open(data)
        except InputRefused as refusal:
            return _Refused(refusal)  # type: ignore[return-value]

    def get_data(
        self, img: CTSeries, slices: Sequence[int] | None = None
    ) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Decode slices into one array.

        Args:
            img: what :meth:`read` or :meth:`open` returned.
            slices: indices along ``k`` in any order; all by default.

        Returns:
            ``(I, J, S)`` Hounsfield units, int16 where slope and intercept are whole numbers and float32
            otherwise, and MONAI's meta data. ``affine`` and ``spatial_shape`` there are those of the whole
            grid, also when only some slices were decoded; ``slice_indices`` says which.

        Raises:
            InputRefused: the series was refused, or its pixels cannot be used.
            IndexError: a slice does not exist.
        """
        depth = img.shape[2]
        indices = list(range(depth)) if slices is None else [int(k) for k in slices]
        if any(not 0 <= k < depth for k in indices):
            raise IndexError(f"slices must lie within 0 … {depth - 1}, got {indices}.")
        pixels = img.pixels.read(indices)
        meta: dict[str, Any] = {
            str(MetaKeys.AFFINE): img.affine.copy(),
            str(MetaKeys.ORIGINAL_AFFINE): img.affine.copy(),
            str(MetaKeys.SPATIAL_SHAPE): np.array(img.shape),
            str(MetaKeys.ORIGINAL_CHANNEL_DIM): "no_channel",
            str(MetaKeys.SPACE): str(SpaceKeys.RAS),
            "spacing_mm": list(img.spacing_mm),
            "slice_positions_mm": list(img.slice_positions_mm),
            "slice_indices": indices,
            "series_uid": img.series_uid or "",
            "study_uid": img.study_uid or "",
            "sop_uids": list(img.sop_uids),
            "frame_numbers": list(img.frame_numbers),
            "files": list(img.files),
            "is_resampled": img.is_resampled,
            "modality": img.modality,
            "source": img.source,
            "header": dict(img.header),
            "repairs": _plain(img.repairs + pixels.repairs),
            "warnings": _plain(img.warnings + pixels.warnings),
        }
        return pixels.array, meta


def _words(body_parts: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if body_parts is None:
        return None
    if not isinstance(body_parts, str):
        return tuple(body_parts)
    if body_parts not in BODY_REGIONS:
        raise ValueError(f"body_parts must be words, or one of {sorted(BODY_REGIONS)}, got {body_parts!r}.")
    return BODY_REGIONS[body_parts]


class _Refused:
    """Stands for a volume that was refused; any use of it raises the refusal."""

    def __init__(self, refusal: InputRefused) -> None:
        self._refusal = refusal

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._refusal


def _plain(findings: Sequence[Any]) -> list[dict[str, str]]:
    return [{"code": finding.code, "message": finding.message} for finding in findings]
