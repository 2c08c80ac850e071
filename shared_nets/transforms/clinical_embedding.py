"""The clinical vector of a study → its embedding by an in-context tabular network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor


class RowEmbedder(Protocol):
    """Turns rows ``(M, F)`` into embeddings ``(M, E)``; a row with a known id never sees its own target."""

    def embed(self, features: npt.ArrayLike, *, ids: Sequence[str] | None = None) -> npt.NDArray[np.float32]:
        """Embed rows."""


def embed_row(row: Tensor | npt.ArrayLike, embedder: RowEmbedder, *, row_id: str | None = None) -> Tensor:
    """Embed one clinical vector.

    Args:
        row: values ``(F,)``, NaN where missing.
        embedder: the network and its context.
        row_id: id of the row when it may be in the context.

    Returns:
        The embedding ``(E,)``, float32.

    Raises:
        ValueError: the row is not a vector.
    """
    values = np.asarray(row.detach().cpu() if isinstance(row, Tensor) else row, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"row must be a vector (F,), got shape {values.shape}.")
    embedded = embedder.embed(values[None], ids=None if row_id is None else [row_id])
    return torch.from_numpy(np.array(embedded[0], dtype=np.float32))


class ClinicalEmbeddingd(MapTransform):
    """Add the embedding of each clinical vector, ``clinical`` → ``clinical_embedding``.

    Args:
        keys: keys of the vectors, ``(F,)`` tensors or arrays.
        embedder: object with ``embed``, for example :class:`shared_nets.nets.tabpfn_embedder.TabPFNEmbedder`.
        id_key: key of the study's id.
        out_of_fold: look the study up in the context by its id and, if it is there, embed it without its
            own fold. Needed to train and to evaluate on the people of the context; new people do not need it.
        postfix: what is put behind the key, after an underscore.
        allow_missing_keys: leave studies without a vector as they are.
    """

    def __init__(
        self,
        keys: KeysCollection = "clinical",
        *,
        embedder: RowEmbedder,
        id_key: str = "study_id",
        out_of_fold: bool = False,
        postfix: str = "embedding",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.embedder = embedder
        self.id_key = id_key
        self.out_of_fold = out_of_fold
        self.postfix = postfix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the study with ``<key>_<postfix>``, ``(E,)`` float32, added.

        Raises:
            KeyError: ``out_of_fold`` is on and the study has no id.
        """
        study = dict(data)
        row_id = None
        if self.out_of_fold:
            if self.id_key not in study:
                raise KeyError(
                    f"{self.id_key} must be given when out_of_fold is on, got {sorted(map(str, study))}."
                )
            row_id = str(study[self.id_key])
        for key in self.key_iterator(study):
            study[f"{key}_{self.postfix}"] = embed_row(study[key], self.embedder, row_id=row_id)
        return study
