"""Time and memory of reading a CT series beside SimpleITK and MONAI's readers, with equal voxels."""

from __future__ import annotations

import argparse
import copy
import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from shared_nets.data.dicom_synthetic import INTERCEPT, set_pixels, synthetic_series, write_file

Array = npt.NDArray[Any]

SLICES, SIZE, CHOSEN, CODESTREAMS = 300, 512, 64, 10
SYNTAXES = {"uncompressed": ExplicitVRLittleEndian, "jpeg2000": JPEG2000Lossless}


def ours(folder: str) -> Array:
    """Read the whole volume with our reader."""
    from shared_nets.data.ct_reader import CTReader

    reader = CTReader()
    return reader.get_data(reader.open(folder))[0]


def ours_chosen(folder: str) -> Array:
    """Read all headers and :data:`CHOSEN` slices with our reader."""
    from shared_nets.data.ct_reader import CTReader

    reader = CTReader()
    series = reader.open(folder)
    return reader.get_data(series, chosen_slices(series.shape[2]))[0]


def simpleitk(folder: str) -> Array:
    """Read the whole volume with SimpleITK."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
    return sitk.GetArrayFromImage(reader.Execute()).transpose(2, 1, 0)


def monai_itk(folder: str) -> Array:
    """Read the whole volume with MONAI's ITKReader."""
    from monai.data import ITKReader

    reader = ITKReader()
    return reader.get_data(reader.read(folder))[0]


def monai_load_image_itk(folder: str) -> Array:
    """Read the whole volume as MONAI's users do: LoadImage with its default type, float32."""
    from monai.transforms import LoadImage

    return LoadImage(reader="ITKReader")(folder).numpy()


def monai_pydicom(folder: str) -> Array:
    """Read the whole volume with MONAI's PydicomReader."""
    from monai.data import PydicomReader

    reader = PydicomReader()
    return reader.get_data(reader.read(folder))[0]


#: Name in the table → what reads; the first is the one that others are compared with.
CONTENDERS: dict[str, Callable[[str], Array]] = {
    "ours": ours,
    f"ours, {CHOSEN} slices": ours_chosen,
    "SimpleITK": simpleitk,
    "MONAI ITKReader": monai_itk,
    "MONAI LoadImage, ITK": monai_load_image_itk,
    "MONAI PydicomReader": monai_pydicom,
}


def main(arguments: list[str] | None = None) -> int:
    """Print one table per encoding and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_dicom", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--slices", type=int, default=SLICES)
    parser.add_argument("--syntax", action="append", choices=tuple(SYNTAXES), help="default: both")
    parser.add_argument("--peak", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.peak:
        print(_own_peak_mib(*options.peak))
        return 0
    rounds = {"uncompressed": 2 if options.quick else 5, "jpeg2000": 1 if options.quick else 2}
    for name in options.syntax or SYNTAXES:
        with tempfile.TemporaryDirectory() as folder:
            write_large_series(Path(folder), slices=options.slices, syntax=SYNTAXES[name])
            _table(name, folder, options.slices, rounds[name])
    return 0


def chosen_slices(depth: int) -> list[int]:
    """Choose slices spread over the middle half, as kidneys lie."""
    return np.linspace(depth // 4, 3 * depth // 4, min(CHOSEN, depth // 2)).round().astype(int).tolist()


def write_large_series(
    folder: Path, *, slices: int = SLICES, size: int = SIZE, syntax: str = ExplicitVRLittleEndian
) -> None:
    """Write a synthetic series of clinical size: an ellipse of tissue in air, with noise.

    Args:
        folder: must exist.
        slices: number of slices.
        size: rows and columns.
        syntax: transfer syntax UID.
    """
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size - 0.5
    body = (x / 0.42) ** 2 + (y / 0.3) ** 2 < 1
    pictures = [
        np.where(body, 40 + 60 * np.sin(9 * x + n) + random.normal(0, 12, body.shape), -1000)
        for n in range(CODESTREAMS)
    ]
    stored = [np.clip(picture - INTERCEPT, 0, 4095).astype("<u2") for picture in pictures]
    encoded: dict[int, Any] = {}
    for k, dataset in enumerate(synthetic_series(slices)):
        n = k % CODESTREAMS  # encoding every slice anew would take longer than the benchmark
        set_pixels(dataset, stored[n])
        if n in encoded:
            dataset.PixelData = copy.copy(encoded[n])
            dataset["PixelData"].is_undefined_length = syntax != ExplicitVRLittleEndian
        write_file(folder / f"IM{k:04d}.dcm", dataset, syntax=syntax, is_encoded=n in encoded)
        encoded.setdefault(n, dataset.PixelData)


def _table(syntax: str, folder: str, slices: int, rounds: int) -> None:
    reference = ours(folder)
    for name, read in CONTENDERS.items():  # also imports, and fills the file cache
        volume = read(folder)
        expected = reference if volume.shape == reference.shape else reference[..., chosen_slices(slices)]
        if not any(np.array_equal(np.asarray(side), expected) for side in (volume, volume[..., ::-1])):
            raise ValueError(f"{name} must read the same voxels as ours, got others.")
        del volume
    wall: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    cpu: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, read in CONTENDERS.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            read(folder)
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
    int16_mib = reference.size * 2 / 2**20
    print(f"\n{slices} slices of {SIZE}², {syntax}, median of {rounds}; volume {int16_mib:.0f} MiB of int16")
    print(f"{'':24s}{'wall ms':>9s}{'cpu ms':>9s}{'ours is':>11s}{'peak MiB':>10s}{'volumes':>9s}")
    first = statistics.median(wall["ours"])
    for name in CONTENDERS:
        median = statistics.median(wall[name])
        peak = float(
            subprocess.run(
                [sys.executable, "-m", "tools.bench_dicom", "--peak", name, folder],
                check=True,
                capture_output=True,
                text=True,
                cwd=Path(__file__).parents[1],
            ).stdout
        )
        print(
            f"{name:24s}{1e3 * median:9.0f}{1e3 * statistics.median(cpu[name]):9.0f}{median / first:9.1f} ×"
            f"{peak:10.0f}{peak / int16_mib:9.2f}"
        )


def _own_peak_mib(name: str, folder: str) -> float:
    """Measure in this fresh process what a read adds to the peak after the imports."""
    for module in ("itk", "monai.data", "monai.transforms", "SimpleITK", "shared_nets.data.ct_reader"):
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as tiny:
        for k, dataset in enumerate(synthetic_series(3)):
            write_file(Path(tiny) / f"{k}.dcm", dataset)
        CONTENDERS[name](tiny)  # lazy imports count as baseline
    before = _peak_kib()
    volume = CONTENDERS[name](folder)
    after = _peak_kib()
    del volume
    return (after - before) / 1024


def _peak_kib() -> int:
    """Give this process's peak memory; unlike getrusage, it does not start with that of the parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


if __name__ == "__main__":
    raise SystemExit(main())
