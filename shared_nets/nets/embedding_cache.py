"""Embeddings that were computed before, by the hash of all they depend on, in memory and maybe on disk."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

EmbeddingArray = npt.NDArray[np.float32]
_logger = logging.getLogger(__name__)


class EmbeddingCache:
    """Keep embeddings under a key; a damaged file counts as absent.

    Args:
        directory: folder of the files, made at the first :meth:`put`; ``None`` keeps memory only.
    """

    def __init__(self, directory: str | Path | None) -> None:
        self.directory = None if directory is None else Path(directory)
        self._known: dict[str, EmbeddingArray] = {}

    def get(self, key: str) -> EmbeddingArray | None:
        """Return the embedding ``(E,)`` float32, or ``None`` when it is not known."""
        if key in self._known:
            return self._known[key]
        path = None if self.directory is None else self.directory / f"{key}.npy"
        if path is None or not path.is_file():
            return None
        try:
            embedding = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            _logger.warning("The cached embedding %s is damaged and computed anew: %s", path.name, error)
            return None
        self._known[key] = embedding
        return embedding

    def put(self, key: str, embedding: EmbeddingArray) -> None:
        """Keep an embedding; its file appears whole or not at all."""
        self._known[key] = embedding
        if self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.directory, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, embedding, allow_pickle=False)
            Path(name).replace(self.directory / f"{key}.npy")
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
