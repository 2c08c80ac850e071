"""The people of KiTS23 with an eGFR, prepared as the CKD bundle prepares a study, for fitting and evaluation.

Shape letters: N people, S slices, P side of a picture, F clinical columns, M image features, T embedding.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shared_nets.data.kits import KitsCase, read_kits
from shared_nets.data.mask_reader import MaskReader
from shared_nets.engines.fusion_fitting import People
from shared_nets.nets.ckd_fusion import CKDFusion
from shared_nets.nets.tabpfn_embedder import TabPFNEmbedder
from shared_nets.transforms.ckd_epi import creatinine_from_egfr, stage_index
from shared_nets.transforms.clinical_schema import KIDNEY_SHAPE, SCHEMAS, ClinicalSchema
from shared_nets.transforms.clinical_values import parse_clinical_values
from shared_nets.transforms.kidney_mask import canonical_labels
from shared_nets.transforms.kidney_measures import left_side, side_measures
from shared_nets.transforms.kidney_shape import KidneyShaped
from shared_nets.transforms.kidney_slices import volume_axes
from shared_nets.transforms.load_kidney_slices import LoadKidneySlicesd
from shared_nets.transforms.slice_content import displayed

logger = logging.getLogger(__name__)

REFERENCE_EGFR_ML_MIN = 75.0
#: How the embedded weights want their slices; the same values stand in the bundle's configuration.
SLICES: dict[str, Any] = {
    "content": "mask",
    "label_set": "kits",
    "num_slices": 24,
    "img_size": 128,
    "pixel_size_mm": 2.5,
    "tumour_value": 0.5,
    "cyst_value": -1.0,
}


@dataclass(frozen=True)
class Cohort:
    """People with an eGFR, ordered by name.

    Args:
        cases: what KiTS says of each, N of them.
        pictures: ``(N, S, P, P)`` float32.
        slice_valid: ``(N, S)`` bool.
        slice_positions_mm: ``(N, S)``.
        shapes: shape features of each kidney mask by name.
        measures: :func:`shared_nets.transforms.kidney_measures.side_measures`, ``(N, 16)``.
    """

    cases: tuple[KitsCase, ...]
    pictures: Tensor
    slice_valid: Tensor
    slice_positions_mm: Tensor
    shapes: tuple[dict[str, float], ...]
    measures: npt.NDArray[np.float32]

    @property
    def ids(self) -> list[str]:
        """Names."""
        return [case.case_id for case in self.cases]

    @property
    def age_years(self) -> npt.NDArray[np.float64]:
        """Ages, ``(N,)``."""
        return np.array([case.clinical["age"] for case in self.cases], dtype=np.float64)

    @property
    def is_female(self) -> npt.NDArray[np.bool_]:
        """True for women, ``(N,)``."""
        return np.array([case.clinical["sex"] == "female" for case in self.cases])

    @property
    def egfr_ml_min(self) -> npt.NDArray[np.float64]:
        """Measured eGFR, or its lower bound, ``(N,)``."""
        return np.array([case.egfr_ml_min for case in self.cases], dtype=np.float64)

    @property
    def is_lower_bound(self) -> npt.NDArray[np.bool_]:
        """True where the true eGFR may be higher, ``(N,)``."""
        return np.array([case.egfr_is_lower_bound for case in self.cases])

    @property
    def log_creatinine_offset(self) -> npt.NDArray[np.float64]:
        """Log creatinine at the reference eGFR, ``(N,)``."""
        return np.log(creatinine_from_egfr(REFERENCE_EGFR_ML_MIN, self.age_years, self.is_female))

    @property
    def log_creatinine(self) -> npt.NDArray[np.float64]:
        """Log creatinine that gives the eGFR by CKD-EPI 2021, ``(N,)``."""
        return np.log(creatinine_from_egfr(self.egfr_ml_min, self.age_years, self.is_female))

    def target(self) -> Tensor:
        """Targets as :class:`shared_nets.transforms.ckd_target.CKDTargetd` writes them, ``(N, 5)``."""
        columns = (
            self.log_creatinine,
            self.is_lower_bound,
            stage_index(self.egfr_ml_min),
            self.age_years,
            self.is_female,
        )
        return torch.from_numpy(np.stack([np.asarray(c, dtype=np.float32) for c in columns], axis=1))

    def rows(self, schema: ClinicalSchema) -> npt.NDArray[np.float64]:
        """Clinical vectors with missing indicators as the bundle makes them, ``(N, 2 F)``."""
        vectors = []
        for case, shape in zip(self.cases, self.shapes, strict=True):
            known = {name: value for name, value in case.clinical.items() if schema.find(name)}
            values = parse_clinical_values(known, schema, measured=shape)
            vectors.append(values.vector(with_missing_indicators=True).double().numpy())
        return np.stack(vectors)

    def describe(self, network: CKDFusion) -> tuple[Tensor, Tensor]:
        """Give the trunk's image features ``(N, M)`` and the geometry's measures ``(N, G)`` of everyone."""
        if network.geometry is None:
            raise ValueError("network must have a geometry, got none.")
        network.eval()
        trunk, measures = [], []
        with torch.no_grad():
            for n in range(len(self.cases)):
                one = slice(n, n + 1)
                pictures, valid, places = (
                    self.pictures[one],
                    self.slice_valid[one],
                    self.slice_positions_mm[one],
                )
                trunk.append(network.pool_slices(network.encode_slices(pictures, valid), valid, places))
                measures.append(network.geometry.measures(pictures, valid, places))
        return torch.cat(trunk), torch.cat(measures)

    def people(self, image_features: Tensor, clinical: Tensor | None) -> People:
        """Everyone, for :func:`shared_nets.engines.fusion_fitting.fit_head`."""
        offset = torch.from_numpy(self.log_creatinine_offset.astype(np.float32))
        return People(image_features, clinical, offset, self.target())

    def at(self, kept: npt.NDArray[np.bool_]) -> Cohort:
        """Keep some of the people, ``(N,)`` bool."""
        index = torch.from_numpy(np.flatnonzero(kept))
        chosen = index.tolist()
        return Cohort(
            tuple(self.cases[i] for i in chosen),
            self.pictures[index],
            self.slice_valid[index],
            self.slice_positions_mm[index],
            tuple(self.shapes[i] for i in chosen),
            self.measures[index.numpy()],
        )


def load_cohort(data_dir: str | Path, cache_dir: str | Path | None = None) -> Cohort:
    """Prepare everyone with an eGFR, age and sex, children too (CKD-EPI does not hold for them; see callers).

    Args:
        data_dir: KiTS23 folder, see :func:`shared_nets.data.kits.read_kits`.
        cache_dir: keeps what was prepared between runs.

    Returns:
        The cohort.
    """
    cases = [
        case
        for case in read_kits(data_dir)
        if case.egfr_ml_min is not None and {"age", "sex"} <= case.clinical.keys()
    ]
    items = [_prepared(case, None if cache_dir is None else Path(cache_dir)) for case in cases]
    return Cohort(
        tuple(cases),
        torch.stack([torch.from_numpy(item["image"]) for item in items]),
        torch.stack([torch.from_numpy(item["slice_valid"]) for item in items]),
        torch.stack([torch.from_numpy(item["slice_positions_mm"]) for item in items]),
        tuple(json.loads(str(item["shape"])) for item in items),
        np.stack([item["measures"] for item in items]),
    )


def embed_people(
    embedder: TabPFNEmbedder,
    rows: npt.NDArray[np.float64],
    deviation: npt.NDArray[np.float64],
    ids: list[str],
    train: npt.NDArray[np.int64],
) -> Tensor:
    """Embed everyone against the training people, who are embedded out of fold.

    Args:
        embedder: embedder; it is fitted anew.
        rows: clinical vectors, ``(N, F)``.
        deviation: log creatinine minus the offset, ``(N,)``; only that of training people is used.
        ids: names.
        train: indices of the training people.

    Returns:
        Embeddings, ``(N, T)``.
    """
    embedder.fit(rows[train], deviation[train], ids=[ids[i] for i in train])
    return torch.from_numpy(np.array(embedder.embed(rows, ids=ids)))


def schema_named(name: str) -> ClinicalSchema:
    """Give a schema by name, ``KIDNEY_SHAPE`` or one of the bundle's."""
    return KIDNEY_SHAPE if name == "KIDNEY_SHAPE" else SCHEMAS[name]


def _prepared(case: KitsCase, cache_dir: Path | None) -> dict[str, npt.NDArray[Any]]:
    recipe = json.dumps(SLICES, sort_keys=True) + str(case.mask.stat().st_size)
    name = f"{case.case_id}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.npz"
    path = None if cache_dir is None else cache_dir / name
    if path is not None and path.is_file():
        with np.load(path, allow_pickle=False) as known:
            return dict(known)
    logger.info("preparing %s", case.case_id)
    sample = LoadKidneySlicesd(mask_reader=MaskReader(), **SLICES)({"mask": str(case.mask)})
    sample = KidneyShaped(keys="kidney_labels")(sample)
    item = {
        "image": np.array(sample["image"], dtype=np.float32),
        "slice_valid": np.array(sample["slice_valid"]),
        "slice_positions_mm": np.array(sample["slice_positions_mm"], dtype=np.float32),
        "shape": np.array(json.dumps(sample["kidney_shape"])),
        "measures": _exact_measures(case.mask),
    }
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **item)  # type: ignore[arg-type]
    return item


def _exact_measures(mask: Path) -> npt.NDArray[np.float32]:
    volume: Any = nib.load(mask)
    kidneys = canonical_labels(np.asarray(volume.dataobj), volume.affine, label_set="kits")
    voxel_mm = float(kidneys.spacing_mm.mean())
    labels = np.ascontiguousarray(displayed(kidneys.labels, volume_axes(kidneys.affine)))
    is_left = left_side(labels, voxel_mm=voxel_mm, midline_column=labels.shape[2] / 2.0)
    return side_measures(labels, is_left, voxel_mm=voxel_mm)
