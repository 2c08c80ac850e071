"""The transform that adds a study's clinical embedding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shared_nets.transforms.clinical_embedding import ClinicalEmbeddingd, embed_row


class DoublingEmbedder:
    """Doubles every row, and remembers which ids it was told."""

    def __init__(self) -> None:
        self.ids: list[str] | None = None

    def embed(self, features, *, ids=None):
        self.ids = ids
        return (2 * np.asarray(features)).astype(np.float32)


@pytest.mark.parametrize(
    "row",
    [pytest.param(torch.tensor([1.0, 2.5]), id="tensor"), pytest.param(np.array([1.0, 2.5]), id="array")],
)
def test_the_embedding_is_added_beside_the_vector(row):
    study = {"clinical": row, "study_id": "s1"}
    result = ClinicalEmbeddingd("clinical", embedder=DoublingEmbedder())(study)
    assert result["clinical_embedding"].tolist() == [2.0, 5.0]
    assert result["clinical_embedding"].dtype == torch.float32
    assert result["clinical"] is row
    assert "clinical_embedding" not in study


def test_missing_values_reach_the_embedder_as_nan():
    assert embed_row(torch.tensor([float("nan"), 1.0]), DoublingEmbedder()).isnan().tolist() == [True, False]


def test_the_id_is_told_only_out_of_fold():
    embedder = DoublingEmbedder()
    study = {"clinical": torch.zeros(2), "study_id": 17}
    ClinicalEmbeddingd(embedder=embedder)(study)
    assert embedder.ids is None
    ClinicalEmbeddingd(embedder=embedder, out_of_fold=True)(study)
    assert embedder.ids == ["17"]


def test_out_of_fold_without_an_id_is_an_error_rather_than_a_leak():
    transform = ClinicalEmbeddingd(embedder=DoublingEmbedder(), out_of_fold=True)
    with pytest.raises(KeyError, match="study_id must be given when out_of_fold is on"):
        transform({"clinical": torch.zeros(2)})


def test_a_missing_vector_is_an_error_unless_allowed():
    with pytest.raises(KeyError, match="clinical"):
        ClinicalEmbeddingd(embedder=DoublingEmbedder())({})
    assert ClinicalEmbeddingd(embedder=DoublingEmbedder(), allow_missing_keys=True)({"a": 1}) == {"a": 1}


def test_a_table_in_place_of_a_vector_is_named():
    with pytest.raises(ValueError, match=r"row must be a vector \(F,\), got shape \(1, 2\)"):
        embed_row(torch.zeros(1, 2), DoublingEmbedder())
