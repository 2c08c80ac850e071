"""Which studies a folder holds: scans in folders of their own, photographs in folders, or loose photographs.

::

    STUDY/ct/            STUDY/image.jpg       NAME.jpg
    STUDY/mask.nii.gz    STUDY/clinical.json   NAME.json, or one metadata.csv for all
    STUDY/clinical.json
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shared_nets.data.dicom_header import read_header
from shared_nets.data.photograph_dicom import PHOTOGRAPH_CLASSES
from shared_nets.refusals import InputRefused

logger = logging.getLogger(__name__)

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".dcm")
PHOTOGRAPH_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".dcm")
METADATA_TABLE = "metadata.csv"
_VALUES = (".json", ".csv")


class FoundStudy(NamedTuple):
    """A study with the paths of its parts, by ``image``, ``mask`` and ``clinical``."""

    name: str
    parts: dict[str, str]


def studies_in(folder: Path) -> list[FoundStudy]:
    """List the studies of a folder.

    Args:
        folder: laid out in one of the ways above.

    Returns:
        The studies in the order of their names, at least one.

    Raises:
        InputRefused: ``INPUT_NOT_FOUND``, ``INPUT_EMPTY`` without a study; ``SERIES_AMBIGUOUS`` where a part
            could be one of several files, or photographs lie both in folders of their own and loose.
    """
    if not folder.is_dir():
        raise InputRefused(
            "INPUT_NOT_FOUND", f"There is no folder {folder.name}.", "Check the path given as --dataset_dir."
        )
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    in_folders = [found for path in inside if (found := _study_in(path)) is not None]
    loose = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_loose_photograph(path)]
    if loose and any(_is_photograph_study(found) for found in in_folders):
        raise InputRefused(
            "SERIES_AMBIGUOUS",
            f"{folder.name} holds photographs in folders of their own and loose ones: {loose[0].name}.",
            "Lay all of them out in one way: STUDY/image.jpg, or NAME.jpg.",
        )
    if loose and in_folders:
        logger.warning(
            "%d photographs in %s are skipped: its studies are in folders.", len(loose), folder.name
        )
    studies = in_folders or [_loose_study(path, loose) for path in loose]
    if not studies:
        raise InputRefused(
            "INPUT_EMPTY",
            f"{folder.name} holds no study.",
            "Lay it out as STUDY/ct/, STUDY/mask.nii.gz, STUDY/clinical.json; photographs as NAME.jpg with "
            "NAME.json or one metadata.csv, or as STUDY/image.jpg with STUDY/clinical.json.",
        )
    return studies


def _study_in(folder: Path) -> FoundStudy | None:
    scan = {
        key: str(path)
        for key, part in (("image", "ct"), ("mask", "mask"))
        if (path := _only(folder, part, [folder / f"{part}{end}" for end in ("", *VOLUME_SUFFIXES)]))
    }
    photographs = [
        path
        for path in sorted(folder.iterdir())
        if path.stem.lower() == "image" and path.suffix.lower() in PHOTOGRAPH_SUFFIXES and path.is_file()
    ]
    if scan and photographs:
        logger.warning("%s of %s is skipped: the study is a scan.", photographs[0].name, folder.name)
    elif photographs:
        scan = {"image": str(_only(folder, "image", photographs))}
    if not scan:
        logger.warning("%s is skipped: it holds neither ct nor mask nor image.", folder.name)
        return None
    clinical = _only(folder, "clinical", [folder / f"clinical{end}" for end in _VALUES])
    return FoundStudy(folder.name, {**scan, **({"clinical": str(clinical)} if clinical else {})})


def _only(folder: Path, part: str, paths: Sequence[Path]) -> Path | None:
    found = [path for path in paths if path.exists()]
    if len(found) > 1:
        raise InputRefused(
            "SERIES_AMBIGUOUS",
            f"{folder.name} holds more than one {part}: {', '.join(path.name for path in found)}.",
            "Keep one of them.",
        )
    return found[0] if found else None


def _is_photograph_study(found: FoundStudy) -> bool:
    image = Path(found.parts.get("image", ""))
    return image.stem.lower() == "image"


def _is_loose_photograph(path: Path) -> bool:
    """Whether a file is a photograph by its suffix; of DICOM the header decides, as most of it is scans."""
    suffix = path.suffix.lower()
    if path.name.startswith(".") or suffix not in PHOTOGRAPH_SUFFIXES:
        return False
    if suffix != ".dcm":
        return True
    try:
        header = read_header(str(path))
    except (OSError, ValueError):
        return False
    return header is not None and header.text("SOPClassUID") in PHOTOGRAPH_CLASSES


def _loose_study(path: Path, photographs: Sequence[Path]) -> FoundStudy:
    table = path.parent / METADATA_TABLE
    clinical = _only(path.parent, f"source of metadata for {path.name}", [path.with_suffix(".json"), table])
    if clinical == table and len(photographs) > 1 and _num_rows(table) == 1:
        raise InputRefused(
            "CLINICAL_CASE_NOT_FOUND",
            f"{table.name} has one row for {len(photographs)} photographs.",
            "Give it a row for each photograph, and a column that names the photograph without its suffix.",
        )
    return FoundStudy(path.stem, {"image": str(path), **({"clinical": str(clinical)} if clinical else {})})


def _num_rows(table: Path) -> int:
    with table.open("rb") as file:
        return sum(1 for line in file if line.strip()) - 1
