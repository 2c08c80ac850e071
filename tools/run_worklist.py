"""Run a bundle on a folder or list of studies, in shards, and go on where a killed run stopped.

Exit status: 0 every study of the shard has a result; 3 some were refused; 1 some failed by a defect;
2 nothing was run, because of the arguments, the bundle, or the output folder; 75 nothing was run, because
another process is at work.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.contrib.logging import logging_redirect_tqdm

from shared_nets.data.studies import list_studies
from shared_nets.refusals import EXIT_STATUS_REFUSED, InputRefused
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.runtime.ray_workers import RayWorkers
from shared_nets.runtime.run_fingerprint import describe_run
from shared_nets.runtime.run_folder import RunFolder, RunSettings, Shard
from shared_nets.runtime.worklist import MakeWorkers, ThisProcess, Worklist
from shared_nets.runtime.worklist_summary import write_summary
from tools.settings import setting

EXIT_STATUS_FAILED, EXIT_STATUS_NOTHING_RUN, EXIT_STATUS_IN_USE = 1, 2, 75  # 75: EX_TEMPFAIL


def main(arguments: list[str] | None = None) -> int:
    """Run the worklist and return the exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not chosen.summary and (chosen.bundle_root is None or not (chosen.dataset_dir or chosen.datalist)):
        parser.error("--bundle_root and one of --dataset_dir and --datalist must be given, or --summary.")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    try:
        counts = _summarise(chosen) if chosen.summary else _run(chosen)
    except InputRefused as refusal:
        sys.stderr.write(f"{refusal}\n")
        return EXIT_STATUS_IN_USE if refusal.code == "WORKLIST_IN_USE" else EXIT_STATUS_NOTHING_RUN
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"{told}; see {RunFolder(chosen.output_dir).quarantine}")
    if counts["failed"]:
        return EXIT_STATUS_FAILED
    return EXIT_STATUS_REFUSED if counts["refused"] else 0


def _summarise(chosen: argparse.Namespace) -> dict[str, int]:
    return _counts_of(write_summary(RunFolder(chosen.output_dir)))


def _run(chosen: argparse.Namespace) -> dict[str, int]:
    root = chosen.bundle_root.absolute()
    overlays = [path.absolute() for path in chosen.overlay]
    overrides = dict(chosen.set)
    # absolute, because the workers of a cluster have another current folder
    studies = list_studies(
        dataset_dir=None if chosen.dataset_dir is None else str(chosen.dataset_dir.absolute()),
        datalist=None if chosen.datalist is None else str(chosen.datalist.absolute()),
        datalist_key=chosen.datalist_key,
    )
    worklist = Worklist(
        studies,
        output_dir=chosen.output_dir.absolute(),
        settings=RunSettings(
            facts=describe_run(root, overlays=overlays, overrides=overrides),
            created=chosen.created,
            num_threads=chosen.num_threads,
        ),
        shard=chosen.shard,
        redo=chosen.redo,
    )
    with logging_redirect_tqdm():
        endings = worklist.run(_make_workers(chosen, root, overlays, overrides))
    return _counts_of(Counter(ending.state for ending in endings))


def _make_workers(
    chosen: argparse.Namespace, root: Path, overlays: list[Path], overrides: dict[str, Any]
) -> MakeWorkers:
    folder = RunFolder(chosen.output_dir.absolute())

    def make(run: Mapping[str, Any]) -> ThisProcess | RayWorkers:
        knobs = {"created": run["created"], **overrides}
        make_runtime = partial(BundleRuntime, root, overlays=overlays, **knobs)
        if not chosen.ray:
            return ThisProcess(make_runtime, folder.output_dir, run["num_threads"])
        return RayWorkers(
            make_runtime,
            folder,
            chosen.shard,
            run["num_threads"],
            num_workers=chosen.num_workers,
            address=chosen.address,
            gpus_per_worker=chosen.gpus_per_worker,
        )

    return make


def _counts_of(summary: Mapping[str, Any]) -> dict[str, int]:
    return {state: summary[state] for state in ("done", "refused", "failed", "waiting")}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.run_worklist",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle_root", type=Path, help="folder of the bundle")
    inputs = parser.add_mutually_exclusive_group()
    inputs.add_argument("--dataset_dir", type=Path, help="folder of studies, or of photographs")
    inputs.add_argument("--datalist", type=Path, help="JSON list of studies")
    parser.add_argument("--datalist_key", help="key of the list inside a JSON object")
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="gets one folder a study, and _worklist"
    )
    parser.add_argument("--shard", type=_shard, default=Shard(), metavar="I/N", help="part I of N, from 1")
    parser.add_argument("--overlay", type=Path, action="append", default=[], help="config file laid over")
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="JSON, or else a string",
    )
    parser.add_argument("--created", help="moment that the results carry, ISO 8601; default: the first start")
    parser.add_argument(
        "--num_threads", type=_positive, help="of a process, fixed by the first start; default: 1"
    )
    parser.add_argument("--redo", action="store_true", help="do again what was made otherwise")
    parser.add_argument("--summary", action="store_true", help="only derive summary and quarantine anew")
    parser.add_argument("--ray", action="store_true", help="in several processes of Ray (extra: ray)")
    parser.add_argument("--num_workers", type=_positive, help="processes of Ray; default: one a CPU")
    parser.add_argument("--address", help="of a Ray cluster; default: Ray on this machine")
    parser.add_argument(
        "--gpus_per_worker", type=float, default=0.0, help="GPUs that Ray keeps for a process"
    )
    return parser


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
