"""Write the datalist of a KiTS23 folder: masks, clinical values, eGFR, creatinine, folds.

Creatinine is not published; the one written here gives the published eGFR by CKD-EPI 2021.
KiTS does not say by which equation its laboratories computed the eGFR. Where the eGFR is a lower bound
("90 or more"), the creatinine is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from shared_nets.data.kits import KitsCase, assign_folds, kits_item, read_kits
from shared_nets.refusals import EXIT_STATUS_REFUSED, InputRefused
from shared_nets.transforms.ckd_epi import creatinine_from_egfr
from shared_nets.transforms.clinical_schema import KITS
from shared_nets.transforms.clinical_values import parse_clinical_values
from shared_nets.writers.atomic_file import write_atomically


def build_datalist(
    folder: str | Path,
    *,
    relative_to: str | Path,
    num_folds: int = 5,
    seed: int = 0,
    include_minors: bool = False,
) -> dict[str, Any]:
    """List the cases of a KiTS23 folder, those with an answer dealt into folds.

    Args:
        folder: either layout of :func:`shared_nets.data.kits.read_kits`.
        relative_to: folder from which paths are written.
        num_folds: number of folds.
        seed: which deal.
        include_minors: list people under 18 with the others; without it they are a list of their own.

    Returns:
        ``training`` (with an eGFR, and a ``fold`` each), ``unlabelled``, ``minors``, and ``about``.

    Raises:
        InputRefused: the folder or its table cannot be used, or a clinical value is not allowed.
        ValueError: ``num_folds`` does not fit the number of cases.
    """
    labelled: list[KitsCase] = []
    lists: dict[str, list[dict[str, Any]]] = {"training": [], "unlabelled": [], "minors": []}
    for case in read_kits(folder):
        if case.is_minor and not include_minors:
            lists["minors"].append(_item(case, relative_to))
        elif case.egfr_ml_min is None or not {"age", "sex"} <= case.clinical.keys():
            lists["unlabelled"].append(_item(case, relative_to))
        else:
            labelled.append(case)
    for case, fold in zip(labelled, assign_folds(labelled, num_folds=num_folds, seed=seed), strict=True):
        lists["training"].append({**_item(case, relative_to), "fold": fold})
    about = {
        "data": "KiTS23, CC BY-NC-SA 4.0",
        "num_folds": num_folds,
        "seed": seed,
        "creatinine_mg_dl": "not measured: inverted from egfr_ml_min, age and sex by CKD-EPI 2021",
    }
    return {"about": about, **lists}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 3 where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m tools.build_kits_datalist", description=__doc__)
    parser.add_argument(
        "folder", metavar="FOLDER", help="with dataset/kits23.json, or clinical.csv and masks/"
    )
    parser.add_argument("--output", required=True, help="JSON file to write; its paths start at FOLDER")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="number of folds (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="another seed deals the folds another way")
    parser.add_argument("--include-minors", action="store_true", help="list people under 18 with the others")
    chosen = parser.parse_args(arguments)
    try:
        datalist = build_datalist(
            chosen.folder,
            relative_to=chosen.folder,
            num_folds=chosen.folds,
            seed=chosen.seed,
            include_minors=chosen.include_minors,
        )
    except InputRefused as refusal:
        print(refusal, file=sys.stderr)
        return EXIT_STATUS_REFUSED
    except ValueError as error:
        parser.error(str(error))
    write_atomically(chosen.output, (json.dumps(datalist, indent=1, ensure_ascii=False) + "\n").encode())
    counts = ", ".join(f"{len(datalist[key])} {key}" for key in ("training", "unlabelled", "minors"))
    print(f"{chosen.output}: {counts}")
    return 0


def _item(case: KitsCase, relative_to: str | Path) -> dict[str, Any]:
    item = kits_item(case, relative_to=relative_to)
    known = parse_clinical_values(case.clinical, KITS).used  # refuses what the model would refuse
    if case.egfr_ml_min is not None and not case.is_minor and {"age", "sex"} <= known.keys():
        creatinine = creatinine_from_egfr(case.egfr_ml_min, float(known["age"]), known["sex"] == "female")
        item["creatinine_mg_dl"] = round(float(creatinine), 4)
    return item


if __name__ == "__main__":
    sys.exit(main())
