"""Write images that are no lesions, to see how many of them a lesion classifier takes for one.

    python -m tools.build_foreign_images OUT --like DATASET [--medmnist FILE.npz …]

Writes PNG files and ``datalist.json`` with one list a kind, without labels: ``noise``, ``blank`` and
``waves`` are drawn; ``negatives`` and ``shuffled`` are made from the photographs of DATASET (the list
``validation`` of its datalist), with their colours inverted and their sixteen tiles in another order; every
MedMNIST file adds its test images as a list of its name. The same arguments give the same files.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from shared_nets.writers.atomic_file import write_atomically

Pixels = npt.NDArray[np.uint8]

_TILES = 4
#: Highest frequency of the waves, in periods an image, and their amplitude.
_PERIODS, _AMPLITUDE = 4.0, 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the images and say how many."""
    summary = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m tools.build_foreign_images", description=summary)
    parser.add_argument("output_dir", type=Path, metavar="OUT")
    parser.add_argument(
        "--like", type=Path, required=True, metavar="DATASET", help="folder with datalist.json"
    )
    parser.add_argument("--medmnist", type=Path, nargs="*", default=[], metavar="FILE.npz")
    parser.add_argument("--count", type=int, default=300, help="images of each drawn or changed kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    photographs = read_photographs(options.like, options.count)
    kinds = {**drawn(photographs[0].shape, options.count, options.seed), **changed(photographs, options.seed)}
    kinds |= {path.stem: medmnist_images(path) for path in options.medmnist}
    datalist = {kind: list(_written(images, kind, options.output_dir)) for kind, images in kinds.items()}
    write_atomically(options.output_dir / "datalist.json", (json.dumps(datalist, indent=1) + "\n").encode())
    print(", ".join(f"{len(images)} {kind}" for kind, images in kinds.items()))
    return 0


def read_photographs(folder: Path, count: int) -> list[Pixels]:
    """Read the first validation images of a datalist, ``(H, W, 3)`` each."""
    items = json.loads((folder / "datalist.json").read_text(encoding="utf-8"))["validation"][:count]
    out = []
    for item in items:
        with Image.open(folder / item["image"]) as image:
            out.append(np.asarray(image.convert("RGB")))
    return out


def drawn(shape: Sequence[int], count: int, seed: int) -> dict[str, list[Pixels]]:
    """Draw images that show nothing: a colour a pixel, one colour, and waves of colour.

    Args:
        shape: of an image, H, W and 3.
        count: images of each kind.
        seed: of the draws.

    Returns:
        Images ``(H, W, 3)`` by kind.
    """
    draw = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.linspace(0, 1, shape[0]), np.linspace(0, 1, shape[1]), indexing="ij")

    def wave() -> Pixels:
        down, across = draw.uniform(-_PERIODS, _PERIODS, 2)
        angle = 2 * np.pi * ((down * rows + across * columns)[..., None] + draw.uniform(0, 1, 3))  # (H, W, 3)
        return np.round(127.5 + _AMPLITUDE * np.sin(angle)).astype(np.uint8)

    return {
        "noise": [draw.integers(0, 256, shape, dtype=np.uint8) for _ in range(count)],
        "blank": [np.broadcast_to(draw.integers(0, 256, 3, dtype=np.uint8), shape) for _ in range(count)],
        "waves": [wave() for _ in range(count)],
    }


def changed(photographs: Sequence[Pixels], seed: int) -> dict[str, list[Pixels]]:
    """Spoil photographs: their negatives, and their tiles in another order."""
    draw = np.random.default_rng(seed)
    return {
        "negatives": [255 - photograph for photograph in photographs],
        "shuffled": [_shuffled(photograph, draw) for photograph in photographs],
    }


def medmnist_images(path: Path) -> list[Pixels]:
    """Read the test images of a MedMNIST file; grey ones get three equal channels."""
    with np.load(path, allow_pickle=False) as content:
        images = content["test_images"]
    if images.shape[-1] != 3:
        images = np.repeat(images.reshape(*images.shape[:3], 1), 3, axis=3)  # (N, H, W, 3)
    return list(images)


def _shuffled(photograph: Pixels, draw: np.random.Generator) -> Pixels:
    height, width = (side // _TILES for side in photograph.shape[:2])
    cut = photograph[: height * _TILES, : width * _TILES]
    tiles = cut.reshape(_TILES, height, _TILES, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)
    mixed = draw.permutation(tiles).reshape(_TILES, _TILES, height, width, 3)
    return mixed.swapaxes(1, 2).reshape(cut.shape)


def _written(images: Sequence[Pixels], kind: str, folder: Path) -> Iterator[dict[str, str]]:
    for number, pixels in enumerate(images):
        name = f"images/{kind}_{number:05d}.png"
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
        write_atomically(folder / name, buffer.getvalue())
        yield {"study_id": f"{kind}_{number:05d}", "image": name}


if __name__ == "__main__":
    sys.exit(main())
