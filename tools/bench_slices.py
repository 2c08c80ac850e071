"""Time and memory from a DICOM series and a kidney mask to 64 pictures, beside MONAI's usual chain.

Every contender runs in a process of its own on the same files, with one thread. Peak memory is what the
run adds to the process after imports and a rehearsal on a tiny study (Linux only).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUM_SLICES, IMG_SIZE, MARGIN_MM = 64, 224, 10.0
WINDOW_HU = (-160.0, 240.0)
SHAPE, SPACING_MM = (512, 512, 300), (0.7, 0.7, 1.5)
QUICK_SHAPE, QUICK_SPACING_MM = (256, 256, 150), (1.4, 1.4, 3.0)
TINY_SHAPE, TINY_SPACING_MM = (96, 96, 60), (4.0, 4.0, 5.0)

Run = Callable[[Any], Any]


def ours() -> Run:
    """Prepare our transform: headers, mask, the 64 slices."""
    from shared_nets.data.ct_reader import CTReader
    from shared_nets.data.mask_reader import MaskReader
    from shared_nets.transforms.load_kidney_slices import LoadKidneySlicesd

    return LoadKidneySlicesd(
        image_reader=CTReader(),
        mask_reader=MaskReader(),
        label_set="totalsegmentator",
        num_slices=NUM_SLICES,
        img_size=IMG_SIZE,
        content="masked_ct",
        window_hu=WINDOW_HU,
        crop_margin_mm=MARGIN_MM,
    )


def monai_chain(reader: str) -> Run:
    """Prepare what MONAI's tutorials do: load, orient, window, crop to the mask, resize the whole volume.

    Args:
        reader: name of MONAI's reader for the series.

    Returns:
        The chain.
    """
    from monai.transforms import (
        Compose,
        CropForegroundd,
        LoadImaged,
        MaskIntensityd,
        Orientationd,
        Resized,
        ScaleIntensityRanged,
    )

    both = ["image", "mask"]
    low, high = WINDOW_HU
    return Compose(
        [
            LoadImaged("image", reader=reader, ensure_channel_first=True),
            LoadImaged("mask", reader="NibabelReader", ensure_channel_first=True),
            Orientationd(both, axcodes="RAS", labels=None),
            ScaleIntensityRanged("image", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True),
            MaskIntensityd("image", mask_key="mask", select_fn=_is_kidney),
            CropForegroundd(both, source_key="mask", select_fn=_is_kidney, margin=(14, 14, 0)),
            Resized("image", spatial_size=(IMG_SIZE, IMG_SIZE, NUM_SLICES), mode="trilinear"),
        ]
    )


#: Name in the table → what prepares a run; the first is the one that others are compared with.
CONTENDERS: dict[str, Callable[[], Run]] = {
    "ours": ours,
    "MONAI, ITKReader": lambda: monai_chain("ITKReader"),
    "MONAI, PydicomReader": lambda: monai_chain("PydicomReader"),
}


def main(argv: list[str] | None = None) -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_slices", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="150 slices of 256² and fewer rounds")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=0, help="default: 5, or 2 with --quick")
    options = parser.parse_args(argv)
    rounds = options.rounds or (2 if options.quick else 5)
    if options.contender:
        print(json.dumps(_measure(options.contender, options.folder, rounds)))
        return 0
    shape, spacing_mm = (QUICK_SHAPE, QUICK_SPACING_MM) if options.quick else (SHAPE, SPACING_MM)
    with tempfile.TemporaryDirectory() as folder:
        write_study(Path(folder) / "study", shape, spacing_mm)
        write_study(Path(folder) / "tiny", TINY_SHAPE, TINY_SPACING_MM)
        _table(Path(folder), shape, rounds)
    return 0


def write_study(
    folder: Path, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> dict[str, str]:
    """Write a synthetic CT as a DICOM series, and its labels as NIfTI.

    Args:
        folder: where; made if it is not there.
        shape: voxels along X, Y and Z.
        spacing_mm: their distance, mm.

    Returns:
        Paths by the names that transforms use.
    """
    from shared_nets.data.phantom import make_phantom, write_dicom_series, write_nifti

    phantom = make_phantom(shape=shape, spacing_mm=spacing_mm)
    write_dicom_series(phantom.hu, phantom.affine, folder / "ct")
    write_nifti(phantom.labels, phantom.affine, folder / "mask.nii.gz")
    return _paths(folder)


def _paths(folder: Path) -> dict[str, str]:
    return {"image": str(folder / "ct"), "mask": str(folder / "mask.nii.gz")}


def _table(folder: Path, shape: tuple[int, int, int], rounds: int) -> None:
    measured = {name: _in_own_process(name, folder, rounds) for name in CONTENDERS}
    first = measured["ours"]
    volume_mib = shape[0] * shape[1] * shape[2] * 2 / 2**20
    print(
        f"{shape[2]} slices of {shape[0]}² (uncompressed DICOM, {volume_mib:.0f} MiB in int16) to "
        f"{NUM_SLICES} pictures of {IMG_SIZE}², median of {rounds}"
    )
    print(
        f"{'':22s}{'wall ms':>9s}{'cpu ms':>9s}{'peak MiB':>10s}{'× wall':>9s}{'× cpu':>8s}{'× memory':>10s}"
    )
    for name, one in measured.items():
        ratios = [one[key] / first[key] for key in ("wall_ms", "cpu_ms", "peak_mib")]
        print(
            f"{name:22s}{one['wall_ms']:9.0f}{one['cpu_ms']:9.0f}{one['peak_mib']:10.0f}"
            f"{ratios[0]:9.1f}{ratios[1]:8.1f}{ratios[2]:10.1f}"
        )


def _in_own_process(name: str, folder: Path, rounds: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tools.bench_slices", "--contender", name]
    command += ["--folder", str(folder), "--rounds", str(rounds)]
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def _measure(name: str, folder: Path, rounds: int) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    run = CONTENDERS[name]()
    run(_paths(folder / "tiny"))  # lazy imports are not counted
    paths = _paths(folder / "study")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _memory_mib("VmRSS")
    run(paths)  # also fills the file cache
    peak = _memory_mib("VmHWM") - before
    wall, cpu = [], []
    for _ in range(rounds):
        start, start_cpu = time.perf_counter(), time.process_time()
        run(paths)
        wall.append(1e3 * (time.perf_counter() - start))
        cpu.append(1e3 * (time.process_time() - start_cpu))
    return {"wall_ms": statistics.median(wall), "cpu_ms": statistics.median(cpu), "peak_mib": peak}


def _memory_mib(name: str) -> float:
    line = next(
        line
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        if line.startswith(name)
    )
    return int(line.split()[1]) / 1024


def _is_kidney(labels: Any) -> Any:
    return (labels == 2) | (labels == 3)


if __name__ == "__main__":
    raise SystemExit(main())
