"""What a bundle's config calls when it is run by ``python -m monai.bundle``: refusals end in status 3."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from torch import nn

from shared_nets.data.studies import list_studies
from shared_nets.refusals import EXIT_STATUS_REFUSED, InputRefused
from shared_nets.runtime.checks import load_calibration, prepare_bundle

logger = logging.getLogger(__name__)


def studies_or_exit(**kwargs: Any) -> list[dict[str, Any]]:
    """List the studies (:func:`shared_nets.data.studies.list_studies`), or end the process with status 3."""
    return _or_exit(list_studies, **kwargs)


def splits_or_exit(datalist_keys: Sequence[str], **kwargs: Any) -> list[dict[str, Any]]:
    """List the studies of several lists of one datalist, each study with the name of its list as ``split``.

    Args:
        datalist_keys: names of the lists.
        kwargs: as for :func:`shared_nets.data.studies.list_studies`.

    Returns:
        The studies, one list after the other.
    """
    return [
        {**study, "split": key}
        for key in datalist_keys
        for study in studies_or_exit(datalist_key=key, **kwargs)
    ]


def prepare_or_exit(network: nn.Module, **kwargs: Any) -> None:
    """Prepare the bundle (:func:`shared_nets.runtime.checks.prepare_bundle`), or end with status 3."""
    _or_exit(prepare_bundle, network=network, **kwargs)


def check_calibration_or_exit(path: str | None, *, ckpt_path: str) -> None:
    """Check a calibration (:func:`shared_nets.runtime.checks.load_calibration`), or end with status 3."""
    _or_exit(load_calibration, path=path, ckpt_path=ckpt_path)


def _or_exit(function: Callable, **kwargs: Any) -> Any:
    try:
        return function(**kwargs)
    except InputRefused as refusal:
        _exit(refusal)


def _exit(refusal: InputRefused) -> NoReturn:
    logger.error("%s", refusal)
    sys.stderr.write(f"{refusal}\n")
    sys.exit(EXIT_STATUS_REFUSED)
