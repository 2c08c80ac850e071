"""Check one image before anything is run on it: one JSON object, exit status 0 (ok) or 3 (refused)."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from shared_nets.data import series_rule
from shared_nets.data.ct_open import open_ct
from shared_nets.data.ct_series import CTOptions
from shared_nets.refusals import EXIT_STATUS_REFUSED, InputRefused

_NOTHING: dict[str, Any] = {
    "status": "ok",
    "code": None,
    "message": None,
    "remedy": None,
    "modality": None,
    "source": None,
    "shape": None,
    "spacing_mm": None,
    "affine": None,
    "series_uid": None,
    "repairs": [],
    "warnings": [],
}


def main(arguments: list[str] | None = None) -> int:
    """Print the answer as JSON and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.check_input",
        description=__doc__,
        epilog=series_rule.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", metavar="PATH", help="folder with a DICOM series, or one image file")
    parser.add_argument(
        "--kind",
        choices=("ct", "photograph"),
        default="ct",
        help="what it should be; of the options below, a photograph of skin knows only --burned-in",
    )
    parser.add_argument("--modality", default="CT", help="DICOM's word for what the model was made for")
    parser.add_argument("--series-uid", help="the wanted series, where a folder holds several")
    parser.add_argument(
        "--series-choice",
        choices=("refuse", "rule"),
        default="refuse",
        help="when several series of a study could be meant: refuse, or choose by rule and say so",
    )
    parser.add_argument("--gantry-tilt", choices=("resample", "refuse"), default="resample")
    parser.add_argument("--burned-in", choices=("warn", "refuse"), default="warn")
    parser.add_argument("--body-part", action="append", help="accepted part of the body; may be repeated")
    parser.add_argument("--headers-only", action="store_true", help="do not decode the pixels")
    chosen = parser.parse_args(arguments)
    if chosen.kind == "photograph":
        answer = check_photograph(chosen.path, burned_in=chosen.burned_in)
        print(json.dumps(answer))
        return 0 if answer["status"] == "ok" else EXIT_STATUS_REFUSED
    options = CTOptions(
        modality=chosen.modality,
        series_uid=chosen.series_uid,
        gantry_tilt=chosen.gantry_tilt,
        burned_in=chosen.burned_in,
        body_parts=None if chosen.body_part is None else tuple(chosen.body_part),
        series_choice=chosen.series_choice,
    )
    answer = check(chosen.path, options, headers_only=chosen.headers_only)
    print(json.dumps(answer))
    return 0 if answer["status"] == "ok" else EXIT_STATUS_REFUSED


def check(path: str, options: CTOptions, *, headers_only: bool = False) -> dict[str, Any]:
    """Say whether an image would be accepted.

    Args:
        path: folder or file.
        options: what is accepted.
        headers_only: leave the pixels unread; what is wrong with them stays unknown.

    Returns:
        JSON-able; ``status`` is ``ok`` or ``refused``, and values that do not apply are ``None``.
    """
    try:
        series = open_ct(path, options)
        found = [] if headers_only else [series.pixels.read(range(series.shape[2]))]
    except InputRefused as refusal:
        return {**_NOTHING, "status": "refused", **refusal.as_dict()}
    repairs = [*series.repairs, *(finding for pixels in found for finding in pixels.repairs)]
    warnings = [*series.warnings, *(finding for pixels in found for finding in pixels.warnings)]
    return {
        **_NOTHING,
        "modality": series.modality,
        "source": series.source,
        "shape": list(series.shape),
        "spacing_mm": list(series.spacing_mm),
        "affine": series.affine.tolist(),
        "series_uid": series.series_uid,
        "repairs": [asdict(finding) for finding in repairs],
        "warnings": [asdict(finding) for finding in warnings],
    }


def check_photograph(path: str, *, burned_in: str = "warn") -> dict[str, Any]:
    """Say whether a photograph of skin would be accepted.

    Args:
        path: file, or folder with one.
        burned_in: ``warn`` or ``refuse``, as for CT.

    Returns:
        As :func:`check`; ``shape`` is rows and columns, upright.
    """
    import torch  # here, because it is slow to import and a CT is checked without it

    from shared_nets.data.photograph import PhotographOptions
    from shared_nets.data.photograph_reader import open_photograph
    from shared_nets.transforms.skin_gate import skin_findings

    try:
        photograph = open_photograph(path, PhotographOptions(burned_in=burned_in))
        gate = skin_findings(torch.from_numpy(photograph.pixels).permute(2, 0, 1))
        if gate.refusal is not None:
            raise gate.refusal
    except InputRefused as refusal:
        return {**_NOTHING, "status": "refused", **refusal.as_dict()}
    return {
        **_NOTHING,
        "modality": photograph.modality or None,
        "source": photograph.source,
        "shape": list(photograph.pixels.shape[:2]),
        "series_uid": photograph.series_uid or None,
        "repairs": [asdict(finding) for finding in photograph.repairs],
        "warnings": [asdict(finding) for finding in (*photograph.warnings, *gate.findings)],
    }


if __name__ == "__main__":
    raise SystemExit(main())
