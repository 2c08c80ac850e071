"""Run a bundle as a MONAI Deploy application: a folder with one study in, DICOM and other files out.

    python -m tools.deploy_app --bundle NAME -i FOLDER -o FOLDER

The input is a folder of DICOM files, a volume or a photograph; clinical.json beside it has clinical values,
and the DICOM header fills up what that lacks (age, sex, height, weight). Of several CT series one is chosen
by the stated rule (python -m tools.check_input --help), and the result says so. Paths that are not given
are those of a packaged application: HOLOSCAN_INPUT_PATH, HOLOSCAN_OUTPUT_PATH, HOLOSCAN_MODEL_PATH.

Exit status: 0 a result; 3 refused, with one JSON line on stderr; 1 failed by a defect; 2 nothing was run,
because of the arguments or because MONAI Deploy is not installed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared_nets.refusals import EXIT_STATUS_REFUSED, InputRefused, refusal_behind
from tools.deploy_app.sdk import DeployUnavailable, import_sdk
from tools.settings import setting

REPOSITORY = Path(__file__).resolve().parents[2]
EXIT_STATUS_FAILED, EXIT_STATUS_NOTHING_RUN = 1, 2
_PATHS = ("input", "output", "model")


def main(arguments: Sequence[str] | None = None, *, bundle: str | None = None) -> int:
    """Run the application and return the exit status.

    Args:
        arguments: of the command line.
        bundle: name of the bundle of an application that has but one.
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=chosen.log_level, format="%(levelname)s %(message)s")
    paths = {name: getattr(chosen, name) or _from_environment(name) for name in _PATHS}
    if paths["input"] is None or paths["output"] is None:
        parser.error("--input and --output must be given, or their environment variables.")
    try:
        import_sdk()
    except DeployUnavailable as reason:
        sys.stderr.write(f"{reason}\n")
        return EXIT_STATUS_NOTHING_RUN
    # only now: MONAI, which these import, must not look for the SDK before it can find it
    from tools.deploy_app.app import BundleApp
    from tools.deploy_app.study_input import find_bundle, find_study

    try:
        bundle_root = find_bundle(paths["model"], chosen.bundle or bundle, REPOSITORY / "bundles")
    except ValueError as error:
        parser.error(str(error))
    try:
        app = BundleApp(
            bundle_root=bundle_root,
            study=find_study(paths["input"], chosen.study_id),
            output_dir=paths["output"],
            overrides=dict(chosen.set),
        )
        outcome = app.run_study()
    except Exception as error:
        refusal = refusal_behind(error)
        return _tell_defect(error) if refusal is None else _tell_refusal(refusal)
    if outcome.refusal is not None:
        return _tell_refusal(outcome.refusal)
    _tell_result(outcome)
    return 0


def _tell_result(outcome: Any) -> None:
    for finding in (*outcome.result.provenance.repairs, *outcome.result.warnings):
        print(f"{finding.code}: {finding.message}")
    for path in outcome.files.values():
        print(path)


def _tell_refusal(refusal: InputRefused) -> int:
    sys.stderr.write(f"{json.dumps(refusal.as_dict(), ensure_ascii=False)}\n")
    return EXIT_STATUS_REFUSED


def _tell_defect(error: BaseException) -> int:
    """Say where an error came from without its message, which could name a patient."""
    while error.__cause__ is not None:  # MONAI wraps what a transform raises
        error = error.__cause__
    frames = "".join(traceback.format_tb(error.__traceback__))
    sys.stderr.write(f"failed by a defect: {type(error).__name__}\n{frames}")
    return EXIT_STATUS_FAILED


def _from_environment(name: str) -> Path | None:
    value = os.environ.get(f"HOLOSCAN_{name.upper()}_PATH")
    return Path(value) if value else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.deploy_app",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-i", "--input", type=Path, help="folder with one study, or its image")
    add("-o", "--output", type=Path, help="gets a folder with the study's files")
    add("-m", "--model", type=Path, help="folder of a bundle, released or not, or of several")
    add("--bundle", metavar="NAME", help="of this repository, or of the folder given as --model")
    add("--study_id", help="name of the study; default: the name of the input")
    add("--set", type=setting, action="append", default=[], metavar="NAME=VALUE",
        help="value of the bundle's configuration, JSON or else a string; repeatable")  # fmt: skip
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    add("-l", "--log-level", default="WARNING", choices=levels, help="below WARNING, results are logged")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
