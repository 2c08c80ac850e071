"""One door for every kind of CT file: find out what a path is, and open it by its headers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from shared_nets.data.ct_series import CTOptions, CTSeries
from shared_nets.data.dicom_files import files_below
from shared_nets.data.dicom_series import open_dicom
from shared_nets.data.volume_file import VOLUME_SUFFIXES, open_volume_file
from shared_nets.refusals import InputRefused

PathLike = str | os.PathLike[str]


def open_ct(data: PathLike | Sequence[PathLike], options: CTOptions | None = None) -> CTSeries:
    """Open one CT volume by its headers and check everything that headers can tell.

    Args:
        data: a folder with a DICOM series, a list of its files, an Enhanced multi-frame file, or a NIfTI,
            NRRD or MetaImage file.
        options: what is accepted.

    Returns:
        The volume; nothing is decoded.

    Raises:
        InputRefused: see :data:`shared_nets.refusals.CODES`.
    """
    options = options or CTOptions()
    paths = [os.fspath(data)] if isinstance(data, str | os.PathLike) else [os.fspath(path) for path in data]
    if not paths:
        raise InputRefused("INPUT_EMPTY", "No file was given.", "Give a folder or a file.")
    for path in paths:
        if not Path(path).exists():
            raise InputRefused("INPUT_NOT_FOUND", f"There is no {Path(path).name}.", "Check the path.")
    volumes = [path for path in paths if path.lower().endswith(VOLUME_SUFFIXES)]
    if len(volumes) == 1 and len(paths) == 1:
        return open_volume_file(volumes[0], options)
    if volumes:
        raise InputRefused(
            "SERIES_AMBIGUOUS",
            f"{Path(volumes[0]).name} is one of {len(paths)} files, and each could be the volume.",
            "Give one file.",
        )
    files = [file for path in paths for file in (files_below(path) if Path(path).is_dir() else [path])]
    inside = [file for file in files if file.lower().endswith(VOLUME_SUFFIXES)]
    if len(inside) == 1 and len(files) == 1:
        return open_volume_file(inside[0], options)
    return open_dicom(files, options)
