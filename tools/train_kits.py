"""Train the embedded CKD weights on the adults of KiTS23 with an eGFR: model.pt and the TabPFN context."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared_nets.nets.tabpfn_context import ClinicalContext, assign_folds, id_digest
from shared_nets.nets.tabpfn_embedder import TabPFNEmbedder
from shared_nets.runtime.kits_cohort import Cohort, load_cohort, schema_named
from shared_nets.runtime.kits_fitting import VARIANTS, fit_best, new_network, scaled_features

SHIPPED = "both"
MIN_AGE_YEARS = 18.0


def main(arguments: list[str] | None = None) -> int:
    """Train, write ``model.pt``, ``ckd_context.npz`` and ``training.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="KiTS23 folder")
    parser.add_argument("--image_branch", type=Path, required=True, help="from tools.pretrain_kidney_trunk")
    parser.add_argument("--tabpfn", type=Path, required=True, help="TabPFN checkpoint")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default=SHIPPED)
    parser.add_argument("--cache_dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    variant = VARIANTS[options.variant]
    schema = variant.schema
    if schema is None:
        raise ValueError("variant must have clinical values to be shipped, got none.")
    cohort = load_cohort(options.data_dir, options.cache_dir)
    cohort = cohort.at(cohort.age_years >= MIN_AGE_YEARS)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    context_path = options.output_dir / "ckd_context.npz"
    context_for(cohort, schema, options.seed).save(context_path)
    embedder = TabPFNEmbedder(checkpoint=options.tabpfn, context=context_path)
    clinical = torch.from_numpy(np.array(embedder.embed(cohort.rows(schema_named(schema)), ids=cohort.ids)))
    network = new_network(options.image_branch, options.seed)
    trunk, measures = cohort.describe(network)
    features = scaled_features(network, trunk, measures, torch.arange(len(cohort.cases)))
    people = cohort.people(features, clinical)
    best = fit_best(network, people, variant, seed=options.seed)
    record: dict[str, Any] = {
        "people": len(cohort.cases),
        "variant": options.variant,
        "seed": options.seed,
        "tabpfn_sha256": _sha256(options.tabpfn),
        "image_branch_sha256": _sha256(options.image_branch),
        "chosen": dataclasses.asdict(best.settings),
        **best.facts,
    }
    torch.save(best.network.state_dict(), options.output_dir / "model.pt")
    record["model_sha256"] = _sha256(options.output_dir / "model.pt")
    record["context_sha256"] = _sha256(context_path)
    print(json.dumps(record, indent=1))
    return 0


def context_for(cohort: Cohort, schema_name: str, seed: int) -> ClinicalContext:
    """Make the TabPFN context: how far each person's log creatinine is from that of their age and sex."""
    schema = schema_named(schema_name)
    names = (*schema.names, *(f"{name}_is_missing" for name in schema.names))
    return ClinicalContext(
        feature_names=names,
        features=cohort.rows(schema),
        targets=cohort.log_creatinine - cohort.log_creatinine_offset,
        folds=assign_folds(cohort.ids, num_folds=5, random_state=seed),
        id_digests=tuple(id_digest(name) for name in cohort.ids),
        target_name="log creatinine minus that of an eGFR of 75 at the same age and sex",
        origin="KiTS23, adults with an eGFR before surgery",
        licence="CC BY-NC-SA 4.0",
        schema_sha256=schema.sha256,
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
