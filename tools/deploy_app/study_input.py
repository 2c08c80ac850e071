"""Which study an input folder of MONAI Deploy holds, and which bundle a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared_nets.data.dicom_header import read_header
from shared_nets.data.studies import list_studies
from shared_nets.data.study_folder import PHOTOGRAPH_SUFFIXES, VOLUME_SUFFIXES
from shared_nets.refusals import InputRefused

_VALUES = (".json", ".csv")
_PLAIN_SUFFIXES = tuple({*VOLUME_SUFFIXES, *PHOTOGRAPH_SUFFIXES} - {".dcm"})


def find_study(path: Path, study_id: str | None = None) -> dict[str, Any]:
    """Find image, mask and clinical values of one study.

    A folder holds the image as ``ct/``, ``ct.<suffix>`` or ``image.<suffix>``, or as its only volume or
    photograph, or as DICOM files below it. Beside the image may lie ``clinical.json`` (or ``.csv``) and
    ``mask.<suffix>``. Beside a single file that is given, ``<its name>.json`` (or ``.csv``), or else
    ``clinical.json`` (or ``.csv``), has the values.

    Args:
        path: folder or file.
        study_id: name of the study; by default that of the path.

    Returns:
        Item with ``study_id``, ``image``, and those of ``mask`` and ``clinical`` that are there.

    Raises:
        InputRefused: ``INPUT_NOT_FOUND``, ``INPUT_EMPTY``; ``SERIES_AMBIGUOUS`` where a part could be one of
            several files.
    """
    if not path.exists():
        raise InputRefused("INPUT_NOT_FOUND", f"There is no {path.name}.", "Check the path given as input.")
    parts: dict[str, Path | None]
    if path.is_file():
        stem = _without_suffix(path.name)
        own = [path.with_name(f"{stem}{end}") for end in _VALUES]
        shared = [path.with_name(f"clinical{end}") for end in _VALUES]
        parts = {"image": path, "clinical": _only("clinical", own) or _only("clinical", shared)}
    else:
        named = {
            "ct": _only("ct", [path / f"ct{end}" for end in ("", *VOLUME_SUFFIXES)]),
            "image": _only("image", [path / f"image{end}" for end in PHOTOGRAPH_SUFFIXES]),
        }
        parts = {
            "image": _only("image", [part for part in named.values() if part]) or _unnamed_image(path),
            "mask": _only("mask", [path / f"mask{end}" for end in VOLUME_SUFFIXES]),
            "clinical": _only("clinical", [path / f"clinical{end}" for end in _VALUES]),
        }
        study_id = study_id or path.resolve().name
    given = {name: str(part) for name, part in parts.items() if part is not None}
    (study,) = list_studies(
        image=given.get("image"),
        mask=given.get("mask"),
        clinical=given.get("clinical"),
        study_id=study_id,
    )
    return study


def find_bundle(model: Path | None, name: str | None, bundles: Path) -> Path:
    """Find the bundle that is meant.

    Args:
        model: folder of a bundle, or of several; ``None`` where none was given.
        name: of the bundle.
        bundles: folder of bundles where no model folder was given.

    Returns:
        The folder of the bundle.

    Raises:
        ValueError: there is no such bundle, or it could be one of several.
    """
    if model is not None and _is_bundle(model):
        if name is not None and model.resolve().name != name:
            raise ValueError(f"model must be the bundle {name}, got {model.resolve().name}.")
        return model
    folder = bundles if model is None else model
    found = {path.name: path for path in _folders(folder) if _is_bundle(path)}
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        there = ", ".join(found) or "none"
        wanted = "one of several" if name is None else name
        raise ValueError(f"bundle must name a bundle of {folder.name} ({there}), got {wanted}.")
    return found[name]


def _unnamed_image(folder: Path) -> Path:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not _is_beside(path)]
    plain = [path for path in files if path.name.lower().endswith(_PLAIN_SUFFIXES)]
    only = _only("image", plain)
    if only is not None:
        return only
    has_folders = any(True for _ in _folders(folder))
    if not files and not has_folders:
        raise InputRefused(
            "INPUT_EMPTY", f"{folder.name} holds no image.", "Lay the image, or its DICOM files, into it."
        )
    return files[0] if len(files) == 1 and not has_folders and _is_dicom(files[0]) else folder


def _is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, damaged or not; of any other the readers of folders know more to say."""
    if path.name.lower().endswith(".dcm"):
        return True
    try:
        return read_header(str(path)) is not None
    except (OSError, ValueError):
        return True


def _is_beside(path: Path) -> bool:
    """Whether a file goes with an image instead of being one."""
    return path.name.startswith((".", "clinical.", "mask."))


def _folders(folder: Path) -> Sequence[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []


def _is_bundle(folder: Path) -> bool:
    return (folder / "configs" / "inference.json").is_file()


def _without_suffix(name: str) -> str:
    suffixes = sorted({*VOLUME_SUFFIXES, *PHOTOGRAPH_SUFFIXES}, key=len, reverse=True)
    return next((name[: -len(end)] for end in suffixes if name.lower().endswith(end)), name)


def _only(part: str, paths: Sequence[Path]) -> Path | None:
    found = [path for path in paths if path.exists()]
    if len(found) > 1:
        raise InputRefused(
            "SERIES_AMBIGUOUS",
            f"The input holds more than one {part}: {', '.join(path.name for path in found)}.",
            "Keep one of them.",
        )
    return found[0] if found else None
