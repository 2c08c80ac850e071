"""Write the datalist of a set of skin lesions: ISIC 2024, HAM10000 or DermaMNIST.

Every datalist is a JSON object with lists of items for MONAI. For DermaMNIST the images are written as PNG
files beside it, so that every later step reads photographs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from shared_nets.data import dermamnist, ham10000, isic2024
from shared_nets.refusals import EXIT_STATUS_REFUSED, InputRefused
from shared_nets.writers.atomic_file import write_atomically

Datalist = dict[str, Any]
_DERMAMNIST_KEYS = {"train": "training", "val": "validation", "test": "test"}


def isic2024_datalist(
    folder: str | Path, *, num_folds: int = 5, seed: int = 42, negatives_per_fold: int | None = None
) -> Datalist:
    """List the images of ISIC 2024.

    Args:
        folder: see :mod:`shared_nets.data.isic2024`; image paths start there.
        num_folds: number of folds.
        seed: of folds and quick subset.
        negatives_per_fold: for a quick run; ``None`` lists everything (hundreds of megabytes; a training can
            take :class:`shared_nets.data.isic2024.Isic2024` itself instead).

    Returns:
        ``about`` and ``training``, each item with its ``fold``.

    Raises:
        InputRefused: the folder or its table cannot be used.
        ValueError: a number does not fit.
    """
    items = isic2024.Isic2024(folder, num_folds=num_folds, seed=seed, negatives_per_fold=negatives_per_fold)
    about = {
        "data": "ISIC 2024 (SLICE-3D), CC BY-NC 4.0",
        "class_names": isic2024.CLASS_NAMES,
        "num_folds": num_folds,
        "seed": seed,
        "negatives_per_fold": negatives_per_fold,
        "group": "number of the patient",
    }
    return {"about": about, "training": [_relative(item, folder) for item in items]}


def ham10000_datalist(folder: str | Path, *, num_folds: int = 5, seed: int = 42) -> Datalist:
    """List the images of HAM10000.

    Args:
        folder: see :mod:`shared_nets.data.ham10000`; image paths start there.
        num_folds: number of folds.
        seed: of the folds.

    Returns:
        ``about`` and ``training``, each item with its ``fold``.

    Raises:
        InputRefused: the folder or its table cannot be used.
        ValueError: ``num_folds`` does not fit the number of lesions.
    """
    items = ham10000.read_ham10000(folder, num_folds=num_folds, seed=seed)
    about = {
        "data": "HAM10000, CC BY-NC 4.0",
        "class_names": ham10000.CLASS_NAMES,
        "malignant_classes": ham10000.MALIGNANT_CLASSES,
        "num_folds": num_folds,
        "seed": seed,
        "group": "number of the lesion; patients are not published",
    }
    return {"about": about, "training": [_relative(item, folder) for item in items]}


def dermamnist_datalist(file: str | Path, image_folder: str | Path) -> Datalist:
    """Write the images of DermaMNIST as PNG files and list them.

    Args:
        file: see :mod:`shared_nets.data.dermamnist`.
        image_folder: where ``train_00000.png`` … go; image paths start at the folder that holds it.

    Returns:
        ``about``, ``training``, ``validation`` and ``test``: the official split.

    Raises:
        InputRefused: the file cannot be used.
    """
    parts = dermamnist.read_dermamnist(file)
    folder = Path(image_folder)
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "data": "DermaMNIST (HAM10000), CC BY-NC 4.0",
        "class_names": ham10000.CLASS_NAMES,
        "malignant_classes": ham10000.MALIGNANT_CLASSES,
        "group": "not published: images of one lesion may lie on both sides of the split",
    }
    lists: Datalist = {"about": about}
    for split, part in parts.items():
        items = []
        for i, (pixels, label) in enumerate(zip(part.images, part.labels, strict=True)):
            name = f"{split}_{i:05d}"
            Image.fromarray(pixels).save(folder / f"{name}.png")
            items.append({"study_id": name, "image": f"{folder.name}/{name}.png", "label": int(label)})
        lists[_DERMAMNIST_KEYS[split]] = items
    return lists


def by_fold(datalist: Datalist, validation_fold: int) -> Datalist:
    """Split the list ``training`` of a datalist.

    Args:
        datalist: of items with their ``fold``.
        validation_fold: fold that becomes the list ``validation``.

    Returns:
        The datalist with the lists ``training`` and ``validation``.

    Raises:
        ValueError: one of them would be empty.
    """
    lists = {
        "training": [item for item in datalist["training"] if item["fold"] != validation_fold],
        "validation": [item for item in datalist["training"] if item["fold"] == validation_fold],
    }
    if not all(lists.values()):
        raise ValueError(f"validation_fold must be one of several folds of the data, got {validation_fold}.")
    return {**datalist, **lists}


def datalist_bytes(datalist: Datalist) -> bytes:
    """Encode a datalist with one item a line; the same one gives the same bytes."""
    parts = []
    for key, content in datalist.items():
        is_list = isinstance(content, list)
        text = f"[\n{_lines(content)}\n]" if is_list else json.dumps(content, ensure_ascii=False)
        parts.append(f"{json.dumps(key)}: {text}")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 3 where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m tools.build_lesion_datalist", description=__doc__)
    sets = parser.add_subparsers(dest="set", required=True, metavar="SET")
    isic = sets.add_parser("isic2024", help="train-metadata.csv with train-image.hdf5 or train-image/image/")
    ham = sets.add_parser("ham10000", help="HAM10000_metadata.csv with folders of JPEG files")
    mnist = sets.add_parser("dermamnist", help="dermamnist.npz of any size")
    for command in (isic, ham):
        command.add_argument(
            "--validation-fold",
            type=int,
            metavar="N",
            help="write this fold as the list validation and the others as training, instead of one list",
        )
        command.add_argument("source", metavar="FOLDER", help="folder of the download")
        command.add_argument("--folds", type=int, default=5, metavar="N", help="number of folds (default 5)")
        command.add_argument("--seed", type=int, default=42, help="another seed deals the folds another way")
        command.add_argument("--output", required=True, help="JSON file to write; its paths start at FOLDER")
    isic.add_argument(
        "--negatives-per-fold",
        type=int,
        metavar="N",
        help="for a quick run: all positives and N negatives of each fold; folds stay those of the whole set",
    )
    mnist.add_argument("source", metavar="FILE", help="dermamnist.npz")
    mnist.add_argument("--output", required=True, help="JSON file to write; images go to images/ beside it")
    chosen = parser.parse_args(arguments)
    try:
        datalist = _build(chosen)
    except InputRefused as refusal:
        print(refusal, file=sys.stderr)
        return EXIT_STATUS_REFUSED
    except ValueError as error:
        parser.error(str(error))
    write_atomically(chosen.output, datalist_bytes(datalist))
    counts = ", ".join(f"{len(items)} {key}" for key, items in datalist.items() if isinstance(items, list))
    print(f"{chosen.output}: {counts}")
    return 0


def _build(chosen: argparse.Namespace) -> Datalist:
    if chosen.set == "dermamnist":
        return dermamnist_datalist(chosen.source, Path(chosen.output).parent / "images")
    options = {"num_folds": chosen.folds, "seed": chosen.seed}
    if chosen.set == "ham10000":
        datalist = ham10000_datalist(chosen.source, **options)
    else:
        datalist = isic2024_datalist(chosen.source, negatives_per_fold=chosen.negatives_per_fold, **options)
    return datalist if chosen.validation_fold is None else by_fold(datalist, chosen.validation_fold)


def _relative(item: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    return {**item, "image": Path(os.path.relpath(item["image"], folder)).as_posix()}


def _lines(items: Iterable[dict[str, Any]]) -> str:
    return ",\n".join(json.dumps(item, ensure_ascii=False, allow_nan=False) for item in items)


if __name__ == "__main__":
    sys.exit(main())
