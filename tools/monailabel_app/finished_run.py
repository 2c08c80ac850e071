"""Run one study and keep what the forms of its result are written from, instead of files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

from shared_nets.handlers.finished_study import FinishedStudy
from shared_nets.refusals import InputRefused
from shared_nets.runtime.bundle import BundleRuntime


def run_and_keep(runtime: BundleRuntime, study: Mapping[str, Any]) -> FinishedStudy | InputRefused:
    """Run one study.

    Args:
        runtime: the bundle; the forms that it writes are set aside for good.
        study: item with ``study_id`` and what the bundle reads.

    Returns:
        The finished study, or why it was refused.
    """
    kept: list[FinishedStudy] = []

    def keep(finished: FinishedStudy) -> Mapping[str, bytes]:
        kept.append(finished)
        return {}

    runtime.content("study_results").forms = (keep,)
    with tempfile.TemporaryDirectory() as folder:
        (outcome,) = runtime.run([study], output_dir=folder)
    return outcome.refusal if outcome.refusal is not None else kept[0]
