"""Photographs out of one HDF5 file, ISIC 2024's way: the bytes of each JPEG under its name."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared_nets.data.photograph import Photograph
from shared_nets.data.photograph_reader import PathLike, PhotographReader
from shared_nets.refusals import InputRefused

SEPARATOR = "#"
_INSIDE = re.compile(rf"(?P<file>.+\.(?:hdf5|h5)){SEPARATOR}(?P<name>[\w-]+)$")


class Hdf5Photographs:
    """Bytes of photographs by name, out of one HDF5 file that every process opens for itself.

    HDF5 handles survive neither a fork nor a pickle. The file is therefore opened when the first photograph
    is asked for, and again in every process that inherits or receives this object.

    Args:
        path: of the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._file: Any = None
        self._process = -1

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_process": -1}

    def __getitem__(self, name: str) -> bytes:
        """Give the bytes that are stored under ``name``.

        Raises:
            InputRefused: ``INPUT_NOT_FOUND`` or ``INPUT_UNREADABLE``.
            ImportError: h5py is not installed.
        """
        file = self._opened()
        if name not in file:
            raise InputRefused(
                "INPUT_NOT_FOUND",
                f"{Path(self.path).name} holds no photograph of that name.",
                "Take the image file and the table of the same release.",
            )
        try:
            stored = file[name][()]
        except (OSError, AttributeError) as error:
            raise self._damaged() from error
        return stored.tobytes() if hasattr(stored, "tobytes") else bytes(stored)

    def close(self) -> None:
        """Close the file, where this process has opened it."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None

    def _opened(self) -> Any:
        if self._file is not None and self._process == os.getpid():
            return self._file
        try:
            import h5py
        except ImportError as error:
            raise ImportError("Photographs in HDF5 need h5py: pip install shared_nets[isic].") from error
        if not Path(self.path).is_file():
            raise InputRefused(
                "INPUT_NOT_FOUND", f"There is no {Path(self.path).name}.", "Check the path of the image file."
            )
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise self._damaged() from error
        self._process = os.getpid()
        return self._file

    def _damaged(self) -> InputRefused:
        return InputRefused(
            "INPUT_UNREADABLE", f"{Path(self.path).name} is no readable HDF5 file.", "Download it again."
        )


class Hdf5PhotographReader(PhotographReader):
    """:class:`PhotographReader` that also reads ``FILE.hdf5#NAME``; everything else it reads as before.

    A photograph passes through a temporary file, so that it is checked as any other one is.

    Args:
        kwargs: as for :class:`PhotographReader`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stores: dict[str, Hdf5Photographs] = {}

    def open(self, data: PathLike | Sequence[PathLike]) -> Photograph:
        """Read and decode one photograph.

        Args:
            data: ``FILE.hdf5#NAME``, or what :meth:`PhotographReader.open` takes.

        Returns:
            The photograph.

        Raises:
            InputRefused: the input cannot be used.
        """
        paths = [data] if isinstance(data, str | os.PathLike) else list(data)
        inside = _INSIDE.match(os.fspath(paths[0])) if len(paths) == 1 else None
        if inside is None:
            return super().open(data)
        store = self._stores.setdefault(inside["file"], Hdf5Photographs(inside["file"]))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{inside['name']}.jpg"
            path.write_bytes(store[inside["name"]])
            return super().open(path)
