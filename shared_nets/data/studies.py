"""Which studies a run is about (one, a folder, a datalist), and a dataset that survives refusals."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import Dataset

from shared_nets.data.study_folder import PHOTOGRAPH_SUFFIXES, VOLUME_SUFFIXES, studies_in
from shared_nets.refusals import InputRefused, refusal_behind

logger = logging.getLogger(__name__)

_STUDY_ID = re.compile(r"[^A-Za-z0-9._-]+")


def list_studies(
    *,
    image: str | None = None,
    mask: str | None = None,
    clinical: Any = None,
    study_id: str | None = None,
    datalist: str | Sequence[Mapping[str, Any]] | None = None,
    datalist_key: str | None = None,
    dataset_dir: str | None = None,
    fold: int | None = None,
    without_fold: int | None = None,
) -> list[dict[str, Any]]:
    """List the studies of a run, in a fixed order.

    Exactly one of three ways: ``image`` and/or ``mask`` name one study; ``datalist`` names many (a JSON list,
    a JSON object with a list under ``datalist_key``, or a list of dictionaries; relative paths start at
    ``dataset_dir``, or at the file's folder without one); ``dataset_dir`` alone is a folder of studies, laid
    out as :mod:`shared_nets.data.study_folder` shows.

    Args:
        image: path of a CT series or volume, or of a photograph.
        mask: path of a kidney mask.
        clinical: path of clinical values, or the values themselves.
        study_id: name of the study's output folder; by default taken from the image's or mask's name.
        datalist: see above.
        datalist_key: key of the list inside a JSON object.
        dataset_dir: see above.
        fold: keep only the studies of a datalist with this ``fold``.
        without_fold: leave out those with this one.

    Returns:
        Items with ``study_id`` and those of ``image``, ``mask``, ``clinical`` and targets that are there.

    Raises:
        InputRefused: nothing to do (``INPUT_EMPTY``), or a path that does not exist (``INPUT_NOT_FOUND``).
    """
    if image is not None or mask is not None:
        if datalist is not None:
            raise ValueError("image and datalist must not both be given, got both.")
        single = {"image": image, "mask": mask, "clinical": clinical}
        name = _name_of(image if image is not None else mask) if study_id is None else study_id
        return [_item(str(name), {k: v for k, v in single.items() if v is not None})]
    if datalist is not None:
        studies = _of_folds(_from_datalist(datalist, datalist_key, dataset_dir), fold, without_fold)
    elif dataset_dir is not None:
        studies = [_item(name, parts) for name, parts in studies_in(Path(dataset_dir))]
    else:
        raise InputRefused(
            "INPUT_EMPTY",
            "No study was named.",
            "Give --image and --mask, or --dataset_dir, or --datalist.",
        )
    ids = [study["study_id"] for study in studies]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise InputRefused(
            "INPUT_UNREADABLE",
            f"Several studies have the study_id {', '.join(twice[:5])}.",
            "Give every study a study_id of its own.",
        )
    return studies


class StudyDataset(Dataset):
    """A dataset in which a refused study is an item, not an exception.

    Args:
        data: items as :func:`list_studies` makes them.
        transform: preprocessing; an :class:`InputRefused` that it raises becomes
            ``{"study_id", "refusal"}``. Any other error is a defect and is raised.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable | None = None) -> None:
        super().__init__(list(data), transform)

    def _transform(self, index: int) -> Any:
        item = dict(self.data[index])
        try:
            return self.transform(item) if self.transform is not None else item
        except Exception as error:
            refusal = refusal_behind(error)
            if refusal is None:
                raise
            logger.warning("%s is refused: %s", item["study_id"], refusal)
            return {"study_id": item["study_id"], "refusal": refusal}


def _from_datalist(
    datalist: str | Sequence[Mapping[str, Any]], key: str | None, dataset_dir: str | None
) -> list[dict[str, Any]]:
    base = Path(dataset_dir) if dataset_dir is not None else Path()
    rows: Any = datalist
    if isinstance(datalist, str | Path):
        path = Path(datalist)
        if not path.is_file():
            raise InputRefused(
                "INPUT_NOT_FOUND", f"There is no datalist {path.name}.", "Check the path given as --datalist."
            )
        if dataset_dir is None:
            base = path.parent
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputRefused(
                "INPUT_UNREADABLE",
                f"{path.name} is not JSON: {error}.",
                "Write the datalist as a JSON list of studies.",
            ) from error
    if isinstance(rows, dict):
        if key is None and len(rows) == 1:
            (key,) = rows
        if key not in rows:
            raise InputRefused(
                "INPUT_UNREADABLE",
                f"The datalist has no list {key!r}.",
                f"Set --datalist_key to one of {sorted(rows)}.",
            )
        rows = rows[key]
    if not rows:
        raise InputRefused("INPUT_EMPTY", "The datalist names no study.", "Add studies to the datalist.")
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise InputRefused(
            "INPUT_UNREADABLE",
            "The datalist is not a list of studies.",
            'Write every study as a JSON object: {"study_id": …, "image": …, "mask": …}.',
        )
    studies = []
    for row in rows:
        named = dict(row)
        name = named.pop("study_id", None)
        if name is None:
            name = _name_of(named.get("image") or named.get("mask"))
        for part in ("image", "mask", "clinical"):
            if isinstance(named.get(part), str):
                named[part] = str(base / named[part])
        studies.append(_item(str(name), named))
    return studies


def _of_folds(
    studies: list[dict[str, Any]], fold: int | None, without_fold: int | None
) -> list[dict[str, Any]]:
    if fold is None and without_fold is None:
        return studies
    lacking = [study["study_id"] for study in studies if "fold" not in study]
    if lacking:
        raise ValueError(f"fold must be given for every study of the datalist, got none for {lacking[:5]}.")
    kept = [s for s in studies if s["fold"] != without_fold and (fold is None or s["fold"] == fold)]
    if not kept:
        raise InputRefused(
            "INPUT_EMPTY",
            f"No study is left for fold {fold} without fold {without_fold}.",
            f"The datalist has the folds {sorted({study['fold'] for study in studies})}.",
        )
    return kept


def _item(name: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    clean = _STUDY_ID.sub("_", name).strip("._")
    if not clean:
        raise ValueError(f"study_id must hold letters or digits, got {name!r}.")
    return {"study_id": clean, **parts}


def _name_of(path: Any) -> str:
    if not isinstance(path, str | Path):
        return "study"
    stem = Path(path).resolve().name
    for suffix in sorted({*VOLUME_SUFFIXES, *PHOTOGRAPH_SUFFIXES}, key=len, reverse=True):
        if stem.lower().endswith(suffix):
            return stem[: -len(suffix)] or "study"
    return stem or "study"
