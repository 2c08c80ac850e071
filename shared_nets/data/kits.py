"""KiTS23 on disk → studies: kidney masks, what was known before the operation, and the measured eGFR.

Two layouts are read. The public one, as the challenge's download makes it::

    dataset/kits23.json                      dataset/case_00000/segmentation.nii.gz (and imaging.nii.gz)

and a flat one::

    clinical.csv                             masks/case_00000.nii.gz (and images/case_00000.nii.gz)

Reference:
    N. Heller et al., "The KiTS21 Challenge: Automatic segmentation of kidneys, renal tumors, and renal cysts
    in corticomedullary-phase CT", 2023. Data licence CC BY-NC-SA 4.0: it binds weights trained on them, too.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from shared_nets.refusals import InputRefused

logger = logging.getLogger(__name__)

MIN_AGE_YEARS = 18.0
#: The answer, under the name of the table. It is never an input.
ANSWER = "chronic_kidney_disease"
_NOT_KNOWN = (None, "", "not_found_in_emr")
_EGFR_COLUMNS = ("egfr", "egfr_is_lower_bound", "egfr_days_before_surgery")
_PUBLIC_NAMES = {  # name here → names in the published file, newest first
    "age": ("age_at_nephrectomy",),
    "sex": ("gender",),
    "bmi": ("bmi", "body_mass_index"),
    "smoking_history": ("smoking_history",),
    "radiographic_tumour_size_cm": ("radiographic_size",),
}


@dataclass(frozen=True, kw_only=True)
class KitsCase:
    """One patient; KiTS has one case a patient.

    Args:
        case_id: name of the case.
        mask: label map: 1 kidney, 2 tumour, 3 cyst.
        image: CT, where it was downloaded.
        clinical: what was known before the operation, by name; unknown values are left out, and so is
            ``chronic_kidney_disease``.
        egfr_ml_min: last eGFR before the operation, mL/min/1.73 m².
        egfr_is_lower_bound: whether the laboratory wrote "90 or more".
        egfr_days_before_surgery: how old the eGFR was.
    """

    case_id: str
    mask: Path
    image: Path | None = None
    clinical: dict[str, Any] = field(default_factory=dict)
    egfr_ml_min: float | None = None
    egfr_is_lower_bound: bool = False
    egfr_days_before_surgery: float | None = None

    @property
    def is_minor(self) -> bool:
        """Whether the person is under 18, where adult equations do not hold; an unknown age is not."""
        age = self.clinical.get("age")
        return age is not None and float(age) < MIN_AGE_YEARS


def read_kits(folder: str | Path) -> list[KitsCase]:
    """List the cases whose mask is there, ordered by name.

    Args:
        folder: root of either layout, or its ``dataset`` folder.

    Returns:
        One case a patient.

    Raises:
        InputRefused: ``INPUT_NOT_FOUND`` for neither layout, ``INPUT_EMPTY`` without a mask,
            ``CLINICAL_UNREADABLE``, ``CLINICAL_GIVEN_TWICE`` or ``CLINICAL_BAD_VALUE`` for a broken table.
    """
    root = Path(folder)
    for base in (root, root / "dataset"):
        if (base / "kits23.json").is_file():
            rows, mask, image = _public_rows(base), "{}/segmentation.nii.gz", "{}/imaging.nii.gz"
            break
        if (base / "clinical.csv").is_file():
            rows, mask, image = _flat_rows(base), "masks/{}.nii.gz", "images/{}.nii.gz"
            break
    else:
        raise InputRefused(
            "INPUT_NOT_FOUND",
            f"{root.name} holds neither dataset/kits23.json nor clinical.csv.",
            "Give the folder of the KiTS23 download, or one with clinical.csv and masks/.",
        )
    cases: dict[str, KitsCase] = {}
    without_mask = 0
    for row in rows:
        name = row.pop("case_id")
        if name in cases:
            raise InputRefused("CLINICAL_GIVEN_TWICE", f"{name} stands twice in the table.", "Keep one row.")
        if not (base / mask.format(name)).is_file():
            without_mask += 1
            continue
        image_path = base / image.format(name)
        cases[name] = KitsCase(
            case_id=name,
            mask=base / mask.format(name),
            image=image_path if image_path.is_file() else None,
            **row,
        )
    if without_mask:
        logger.warning("%d of %d cases are left out: their mask is not there.", without_mask, len(rows))
    if not cases:
        raise InputRefused(
            "INPUT_EMPTY", f"{root.name} holds no mask of its cases.", "Download the segmentations as well."
        )
    return [cases[name] for name in sorted(cases)]


def parse_egfr(value: Any) -> tuple[float | None, bool]:
    """Read an eGFR as KiTS writes it.

    Args:
        value: number, text of one, text such as ``">=90"``, or nothing.

    Returns:
        eGFR in mL/min/1.73 m² or ``None``, and whether it is a lower bound.

    Raises:
        InputRefused: ``CLINICAL_BAD_VALUE``.
    """
    if value in _NOT_KNOWN or (isinstance(value, float) and math.isnan(value)):
        return None, False
    text = str(value).strip().replace("≥", ">=")
    number = text.removeprefix(">").removeprefix("=")
    try:
        egfr = float(number)
    except ValueError:
        egfr = math.nan
    if not 0.0 < egfr < 300.0:
        raise InputRefused(
            "CLINICAL_BAD_VALUE",
            f'The eGFR "{text}" is not a number between 0 and 300.',
            'Write mL/min/1.73 m², such as 77 or ">=90".',
        )
    return egfr, text.startswith(">")


def assign_folds(cases: Sequence[KitsCase], *, num_folds: int, seed: int) -> list[int]:
    """Deal the cases into folds of like eGFR; a patient is in one fold only.

    Args:
        cases: cases with an eGFR, in any order.
        num_folds: number of folds.
        seed: another seed deals another way; the same seed deals the same way, whatever the order.

    Returns:
        Fold of each case, 0 to ``num_folds - 1``.

    Raises:
        ValueError: there are fewer cases than folds, or a case has no eGFR.
    """
    if not 2 <= num_folds <= len(cases):
        raise ValueError(f"num_folds must be 2 to the number of cases ({len(cases)}), got {num_folds}.")
    order = sorted(range(len(cases)), key=lambda i: cases[i].case_id)
    known = [value for i in order if (value := cases[i].egfr_ml_min) is not None]
    if len(known) != len(cases):
        raise ValueError("cases must have an eGFR, got one without.")
    egfr = np.array(known)
    num_strata = min(4, len(cases) // num_folds)  # a stratum must reach every fold
    strata = np.searchsorted(np.quantile(egfr, np.linspace(0.0, 1.0, num_strata + 1)[1:-1]), egfr)
    if np.bincount(strata)[np.unique(strata)].min() < num_folds:
        strata = np.zeros_like(strata)  # too many ties for strata
    folds = [0] * len(cases)
    deal = StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(egfr, strata)
    for fold, (_, members) in enumerate(deal):
        for member in members:
            folds[order[member]] = fold
    return folds


def kits_item(case: KitsCase, *, relative_to: str | Path) -> dict[str, Any]:
    """Describe a case as a datalist does.

    Args:
        case: the case.
        relative_to: folder from which paths are written.

    Returns:
        ``study_id, image?, mask, clinical, egfr_ml_min?, egfr_is_lower_bound?, is_minor``; paths with ``/``.
    """
    item: dict[str, Any] = {"study_id": case.case_id}
    for key, path in (("image", case.image), ("mask", case.mask)):
        if path is not None:
            item[key] = Path(os.path.relpath(path, relative_to)).as_posix()
    item["clinical"] = dict(case.clinical)
    if case.egfr_ml_min is not None:
        item["egfr_ml_min"] = case.egfr_ml_min
        item["egfr_is_lower_bound"] = case.egfr_is_lower_bound
    item["is_minor"] = case.is_minor
    return item


def _public_rows(base: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads((base / "kits23.json").read_text(encoding="utf-8"))
        rows = []
        for patient in content:
            clinical = {}
            for name, published in _PUBLIC_NAMES.items():
                clinical[name] = next((patient[key] for key in published if key in patient), None)
            if clinical["sex"] not in ("male", "female"):  # CKD-EPI knows no other
                clinical["sex"] = None
            clinical |= {name: int(has_it) for name, has_it in patient.get("comorbidities", {}).items()}
            before = patient.get("last_preop_egfr") or {}
            rows.append(
                _row(
                    str(patient["case_id"]),
                    clinical,
                    before.get("value"),
                    before.get("days_before_nephrectomy"),
                )
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputRefused(
            "CLINICAL_UNREADABLE",
            f"kits23.json is not the published list of patients ({type(error).__name__}: {error}).",
            "Take dataset/kits23.json from the KiTS23 download unchanged.",
        ) from error
    return rows


def _flat_rows(base: Path) -> list[dict[str, Any]]:
    try:
        text = (base / "clinical.csv").read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputRefused(
            "CLINICAL_UNREADABLE", "clinical.csv is not UTF-8 text.", "Save the table as UTF-8."
        ) from error
    table = csv.DictReader(text.splitlines())
    if "case_id" not in (table.fieldnames or ()):
        raise InputRefused(
            "CLINICAL_UNREADABLE",
            "clinical.csv has no column case_id.",
            "Name the column of the cases so.",
        )
    rows = []
    for line in table:
        if None in line or None in line.values():
            raise InputRefused(
                "CLINICAL_UNREADABLE",
                f"Line {table.line_num} of clinical.csv has not as many values as there are columns.",
                "Repair the line.",
            )
        name = line.pop("case_id")
        value, bound, days = (line.pop(column, None) for column in _EGFR_COLUMNS)
        row = _row(name, {k: _number_or_word(v) for k, v in line.items()}, value, _number_or_word(days))
        row["egfr_is_lower_bound"] |= str(bound).strip() in ("1", "1.0", "True", "true")
        rows.append(row)
    return rows


def _row(name: str, clinical: Mapping[str, Any], egfr: Any, days: Any) -> dict[str, Any]:
    value, is_lower_bound = parse_egfr(egfr)
    return {
        "case_id": name,
        "clinical": {k: v for k, v in clinical.items() if v not in _NOT_KNOWN and k != ANSWER},
        "egfr_ml_min": value,
        "egfr_is_lower_bound": is_lower_bound,
        "egfr_days_before_surgery": None if days is None else float(str(days).lstrip("<>=")),
    }


def _number_or_word(text: str | None) -> float | int | str | None:
    if text is None or not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        return text.strip()
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else number
