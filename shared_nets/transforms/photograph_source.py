"""What the meta data of a photograph say, in the types that results are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shared_nets.types import Finding, SourceImage


def source_image(meta: Mapping[str, Any]) -> SourceImage:
    """Say where a photograph lies, for writers of DICOM objects that refer to it.

    A photograph has no millimetres: its affine counts pixels, columns to the patient's left and rows to the
    back as in a DICOM image without a position, so that only the order of rows and columns means something.

    Args:
        meta: as :class:`shared_nets.data.photograph_reader.PhotographReader` gives them: ``spatial_shape``
            (rows, columns), and where the source is DICOM ``files`` and ``frame_numbers``.

    Returns:
        ``shape`` is columns, rows, 1. ``files`` is empty where the source is not DICOM.
    """
    rows, columns = (int(size) for size in meta["spatial_shape"])
    return SourceImage(
        files=tuple(meta.get("files") or ()),
        frame_numbers=tuple(int(number) for number in meta.get("frame_numbers") or ()),
        shape=(columns, rows, 1),
        affine=np.diag([-1.0, -1.0, 1.0, 1.0]),
        is_resampled=bool(meta.get("is_resampled", False)),
    )


def photograph_facts(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Give the facts of the source for a result's provenance; none names a person.

    Args:
        meta: as above.

    Returns:
        A copy of ``meta["source"]``; empty where the image did not come from the reader.
    """
    return dict(meta.get("source") or {})


def photograph_findings(meta: Mapping[str, Any]) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Give what the reader repaired and what it warns of.

    Meta data hold findings as dictionaries, because MONAI takes nothing but plain values there.

    Args:
        meta: as above.

    Returns:
        Repairs and warnings.
    """
    repairs, warnings = (
        tuple(Finding(code=note["code"], message=note["message"]) for note in meta.get(name) or ())
        for name in ("repairs", "warnings")
    )
    return repairs, warnings
