"""From what the kidney network says to the frozen kidney result, or a refusal where there is no kidney.

Shape letters: X, Y, Z voxels of the coarse grid; I, J, K voxels of the CT.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from shared_nets.transforms.abdomen_gate import abdomen_findings, kidneys_or_refusal
from shared_nets.transforms.find_kidneys import find_kidneys, kidney_volume_ml, measure_kidneys
from shared_nets.transforms.kidney_slices import spread_evenly, volume_axes
from shared_nets.transforms.slice_content import displayed
from shared_nets.transforms.study_sources import open_image
from shared_nets.types import EMPTY_PROVENANCE, KidneyMask, KidneyResult

MAX_PICTURE_SLICES = 4
STATEMENTS = (
    "The outlines are a model's output and were not checked by a human.",
    "Cysts are not counted as kidney; solid tumours are.",
)


class KidneyResultd(MapTransform):
    """Build the frozen :class:`KidneyResult`, the mask on the CT's grid, and pictures for people.

    Reads the prediction (logit ``(1, X, Y, Z)``), and ``ct``, ``coarse_hu`` and ``network_grid``, which
    :class:`shared_nets.transforms.network_grid.ToNetworkGridd` kept. Replaces the prediction by the label map
    on the CT's grid (MetaTensor ``(1, I, J, K)`` uint8: 1 right, 2 left kidney) and writes ``result``,
    ``kidney_mask``, ``found_kidneys``, ``source_image`` and ``picture_slices``.

    Args:
        keys: key of the prediction.
        threshold: probability from which on a voxel is kidney.
        statements: further sentences about what the weights can and cannot show.
        thresholds: numbers that decided, for the provenance.
        output_key: where to write the result.

    Raises:
        InputRefused: ``KIDNEY_NOT_FOUND``, ``WRONG_BODY_PART``, ``PIXEL_NOT_HU``.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        *,
        threshold: float = 0.5,
        statements: Sequence[str] = (),
        thresholds: Mapping[str, float | str | None] | None = None,
        output_key: str = "result",
    ) -> None:
        super().__init__(keys)
        self.threshold = threshold
        self.statements = (*STATEMENTS, *statements)
        self.thresholds = dict(thresholds or {})
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the keys to a copy of ``data``."""
        d = dict(data)
        key = self.first_key(d)
        logits = torch.as_tensor(d[key]).detach().cpu().float().as_subclass(torch.Tensor)
        probability = torch.sigmoid(logits[0])  # (X, Y, Z)
        grid, coarse_hu = d["network_grid"], d["coarse_hu"]
        check = abdomen_findings(coarse_hu.numpy(), grid.spacing_mm)
        volume_ml = kidney_volume_ml(probability, grid, threshold=self.threshold)
        found = find_kidneys(probability, coarse_hu, grid, threshold=self.threshold)
        refusal = kidneys_or_refusal(volume_ml if found is not None else 0.0, check)
        if refusal is not None or found is None:
            raise refusal or ValueError("found must be kidneys where none was refused, got None.")
        source = open_image({"image": d["ct"]}, "image", None, is_needed=True)
        if source is None:
            raise ValueError("ct must be there, got nothing.")
        volume = source.volume
        kidneys, further = measure_kidneys(found.mask, volume, found.findings)
        findings = (*source.noted.warnings, *check.findings, *found.findings, *further)
        d[key] = MetaTensor(
            torch.from_numpy(found.mask.whole())[None], affine=torch.from_numpy(found.mask.affine)
        )
        d["kidney_mask"], d["found_kidneys"], d["source_image"] = found.mask, found, source.origin
        d["picture_slices"] = picture_slices(found.mask, volume)
        d[self.output_key] = KidneyResult(
            study_id=str(d.get("study_id", "study")),
            kidneys=kidneys,
            total_volume_ml=round(sum(kidney.volume_ml for kidney in kidneys.values()), 1),
            warnings=tuple(dict.fromkeys(findings)),
            statements=self.statements,
            provenance=replace(
                EMPTY_PROVENANCE,
                image={**source.facts, "sop_uids": list(source.sop_uids)},
                mask={"source": "automatic", "label_set": "right_left"},
                repairs=tuple(dict.fromkeys(source.noted.repairs)),
                thresholds=self.thresholds,
            ),
        )
        return d


def picture_slices(
    mask: KidneyMask, volume: npt.NDArray[Any] | None, *, number: int = MAX_PICTURE_SLICES
) -> list[dict[str, Any]]:
    """Cut axial slices with kidney for people, from the feet to the head, evenly spread.

    Args:
        mask: the kidneys; labels 1 right, 2 left.
        volume: the CT, ``(I, J, K)`` HU; ``None`` shows the mask alone.
        number: how many at most.

    Returns:
        As :func:`shared_nets.writers.kidney_picture.kidney_picture` draws them.
    """
    axes = volume_axes(mask.affine)
    axis = axes.superior
    in_plane = tuple(a for a in range(3) if a != axis)
    shown = np.flatnonzero(np.count_nonzero(mask.labels, axis=in_plane))
    if not axes.superior_grows:
        shown = shown[::-1]
    inner = shown[1:-1] if shown.size >= number + 2 else shown
    picks, is_valid = spread_evenly(inner.size, number)
    chosen = inner[picks[is_valid]] + mask.offset[axis]
    spacing_mm = np.linalg.norm(mask.affine[:3, :3], axis=0)
    whole = mask.whole().take(chosen, axis=axis)
    labels = displayed(whole, axes)
    hu = None if volume is None else displayed(np.asarray(volume).take(chosen, axis=axis), axes)
    order = range(len(chosen)) if axes.superior_grows else range(len(chosen))[::-1]
    positions = mask.affine[2, 3] + mask.affine[2, axis] * chosen
    return [
        {
            "hu": None if hu is None else np.ascontiguousarray(hu[n]),
            "labels": np.ascontiguousarray(labels[n]),
            "pixel_spacing_mm": (float(spacing_mm[axes.anterior]), float(spacing_mm[axes.right])),
            "position_mm": float(positions[n]),
        }
        for n in order
    ]
