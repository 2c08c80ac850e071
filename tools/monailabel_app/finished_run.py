"""Run one study by the code of its bundle, and keep what answers are made from, instead of files.

The code may be a copy that the bundle carries, of another release than this server: everything that stands in
an answer is written by it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared_nets.handlers.finished_study import FinishedStudy
from shared_nets.refusals import InputRefused
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.runtime.carried_code import module_of


class RefusedByBundle(InputRefused):
    """A refusal by the code of a bundle, whose code word this server need not know.

    Args:
        refusal: ``code``, ``message`` and ``remedy``.
    """

    def __init__(self, refusal: Mapping[str, str]) -> None:
        Exception.__init__(self, *refusal.values())
        self.code, self.message, self.remedy = (refusal[name] for name in ("code", "message", "remedy"))


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A study with a result.

    Args:
        runtime: the bundle.
        study: what the forms of the result are written from, of the bundle's own code.
        result: the content of ``result.json``.
    """

    runtime: BundleRuntime
    study: FinishedStudy
    result: dict[str, Any]

    def label_names(self) -> dict[str, int]:
        """Give the numbers of the kidneys in the mask, by their names."""
        if self.study.mask is None:
            return {}
        sides: dict[int, str] = module_of(self.runtime, "types").KIDNEY_SIDES
        present = np.unique(self.study.mask.labels).tolist()
        return {sides[number]: number for number in present if number}

    def nifti(self) -> bytes:
        """Write the mask as ``.nii.gz``, wherever the image came from.

        Raises:
            ValueError: there is no mask.
        """
        if self.study.mask is None:
            raise ValueError("study must have a mask, got none.")
        content: bytes = module_of(self.runtime, "writers.kidney_nifti").kidney_nifti(self.study.mask)
        return content

    def dicom(self) -> Mapping[str, bytes]:
        """Write the DICOM files; none where the image was not DICOM with usable UIDs."""
        files: Mapping[str, bytes] = module_of(self.runtime, "handlers.dicom_form").Dicom()(self.study)
        return files


def run_and_keep(runtime: BundleRuntime, study: Mapping[str, Any]) -> FinishedRun:
    """Run one study.

    Args:
        runtime: the bundle; the forms that it writes are set aside for good.
        study: item with ``study_id`` and what the bundle reads.

    Returns:
        The finished study.

    Raises:
        RefusedByBundle: what the bundle refuses.
    """
    kept: list[FinishedStudy] = []

    def keep(finished: FinishedStudy) -> Mapping[str, bytes]:
        kept.append(finished)
        return {}

    runtime.content("study_results").forms = (keep,)
    with tempfile.TemporaryDirectory() as folder:
        (outcome,) = runtime.run([study], output_dir=folder)
        if outcome.refusal is not None:
            raise RefusedByBundle(outcome.refusal.as_dict())
        result = json.loads(Path(outcome.files["result.json"]).read_text(encoding="utf-8"))
    return FinishedRun(runtime=runtime, study=kept[0], result=result)
