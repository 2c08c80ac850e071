"""Prepare what the kidney segmentation is trained on: real CTs with label maps, and kidneys of other people.

    python -m tools.build_kidney_bodies --output BODIES [--kits KITS] [--body NAME CT LABELS …]

Without ``--body`` the two public scans of ``tools.demo_data`` are taken (this then uses the network). Labels
are those of TotalSegmentator; kidneys of other people come from the label maps of KiTS23.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from shared_nets.data.ct_reader import CTReader
from shared_nets.data.kits import read_kits
from shared_nets.data.mask_reader import MaskReader
from shared_nets.transforms.kidney_mask import canonical_labels, kidney_sides
from shared_nets.transforms.network_grid import network_grid, to_network_grid
from tools.demo_data import fetch

SPACING_MM = 3.0
_MARGIN_VOXELS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Write ``body_*.npz`` and ``kidneys_*.npz``."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.build_kidney_bodies", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kits", type=Path, help="KiTS23 folder, as tools.build_kits_datalist reads it")
    parser.add_argument(
        "--body", nargs=3, action="append", metavar=("NAME", "CT", "LABELS"), help="a CT and its label map"
    )
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    bodies = options.body or [
        ("lidc", fetch("lidc_nifti"), fetch("lidc_mask")),
        ("totalsegmentator", fetch("totalsegmentator_ct"), fetch("totalsegmentator_mask")),
    ]
    for name, ct, labels in bodies:
        write_body(options.output / f"body_{name}.npz", ct, labels)
    number = write_kidneys(options.output, options.kits) if options.kits else 0
    print(f"{len(bodies)} bodies and {number} pairs of kidneys in {options.output}")
    return 0


def write_body(path: Path, ct: str | Path, labels: str | Path) -> None:
    """Write a CT and its label map on one coarse grid."""
    reader, mask_reader = CTReader(), MaskReader()
    volume, meta = reader.get_data(reader.open(ct))
    numbers, mask_meta = mask_reader.get_data(mask_reader.read(labels))
    grid = network_grid(volume.shape, meta["affine"], spacing_mm=SPACING_MM)
    mask_grid = network_grid(numbers.shape, mask_meta["affine"], spacing_mm=SPACING_MM)
    if grid.shape != mask_grid.shape or not np.allclose(grid.affine, mask_grid.affine, atol=0.1):
        raise ValueError(f"{Path(labels).name} must lie where {Path(ct).name} lies.")
    hu = to_network_grid(volume, grid).numpy().round().clip(-2048, 4095).astype(np.int16)
    nearest = _nearest(nib.orientations.apply_orientation(numbers, mask_grid.orientation), mask_grid.shape)
    np.savez_compressed(path, hu=hu, labels=nearest.astype(np.uint8), spacing_mm=SPACING_MM)


def write_kidneys(folder: Path, kits: Path) -> int:
    """Write both kidneys of every person of KiTS23, cut out at the resolution of the masks; how many."""
    cases = read_kits(kits)
    for case in cases:
        image: Any = nib.load(case.mask)
        kidneys = canonical_labels(np.asarray(image.dataobj), image.affine, label_set="kits")
        orientation = nib.orientations.io_orientation(kidneys.affine)
        middle = float(kidneys.grid_affine[0] @ [*((np.array(kidneys.grid_shape) - 1) / 2.0), 1.0])
        sides = kidney_sides(kidneys.labels, kidneys.affine, midline_x_mm=middle).masks
        cut = {name: _cut_out(np.where(side, kidneys.labels, 0)) for name, side in sides.items()}
        turned = {name: nib.orientations.apply_orientation(part, orientation) for name, part in cut.items()}
        empty = np.zeros((1, 1, 1), dtype=np.uint8)
        np.savez_compressed(
            folder / f"kidneys_{case.case_id}.npz",
            right=turned.get("right", empty),
            left=turned.get("left", empty),
            spacing_mm=float(kidneys.spacing_mm.mean()),
        )
    return len(cases)


def _cut_out(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    places = np.argwhere(labels > 0)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    inside = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return np.pad(inside, _MARGIN_VOXELS).astype(np.uint8)


def _nearest(volume: npt.NDArray[np.generic], shape: tuple[int, int, int]) -> npt.NDArray[np.generic]:
    index = [
        ((np.arange(size) + 0.5) * old / size).astype(int)
        for old, size in zip(volume.shape, shape, strict=True)
    ]
    return volume[np.ix_(*index)]


if __name__ == "__main__":
    sys.exit(main())
