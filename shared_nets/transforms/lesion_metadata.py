"""Metadata of a lesion as people write them → the row that a network reads, and where each value came from.

Shape letters: F values of the schema.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from shared_nets.transforms.clinical_file import read_clinical
from shared_nets.transforms.clinical_parse import is_missing
from shared_nets.transforms.clinical_values import ClinicalValues, parse_clinical_values
from shared_nets.transforms.lesion_schema import LesionSchema, lesion_schema
from shared_nets.types import Finding

#: Said of metadata that were given to a network without a schema.
NOT_USED = Finding(
    code="METADATA_NOT_USED",
    message="The metadata were not read: this network looks at the photograph alone.",
)


def parse_lesion_metadata(
    given: Mapping[str, Any], schema: LesionSchema, *, header: Mapping[str, Any] | None = None
) -> ClinicalValues:
    """Understand what people wrote of a lesion.

    A column that tells the answer, or says nothing of the lesion, is left out with a warning. So is a word
    that the vocabulary lacks: the network has a place for what it does not know.

    Args:
        given: what was written, by column name.
        schema: what is read.
        header: facts of the image header; its age and sex fill what is missing.

    Returns:
        The values; those that nobody gave stay missing.

    Raises:
        InputRefused: a ``CLINICAL_*`` code: an unknown column, a number out of range or in an unknown unit, a
            number where a word belongs, a value given twice.
    """
    kept: dict[str, Any] = {}
    ignored: dict[str, list[str]] = {}
    findings: list[Finding] = []
    for column, raw in given.items():
        reason = schema.reason_to_ignore(column)
        feature = schema.values.find(column)
        if reason is not None and feature is None:
            if not is_missing(raw):
                ignored.setdefault(reason, []).append(f'"{column}"')
            continue
        kept[column] = raw
        if feature is None or feature.kind != "categorical" or is_missing(raw):
            continue
        text = raw.get("value") if isinstance(raw, Mapping) and set(raw) == {"value"} else raw
        if not isinstance(text, str) or _is_number(text):
            continue  # refused below, in the words that serve every table
        kept[column] = schema.word(feature, text)
        if kept[column] is None:
            message = (
                f'What stands under "{column}" is not in the vocabulary and was left out. Known words: '
                f"{', '.join(feature.categories)}."
            )
            findings.append(Finding(code="CLINICAL_UNKNOWN_CATEGORY", message=message))
    for reason, columns in ignored.items():
        was = "were" if len(columns) > 1 else "was"
        message = f"{', '.join(columns)} {was} not used: {reason}."
        findings.append(Finding(code="CLINICAL_NOT_USED", message=message))
    values = parse_clinical_values(kept, schema.values, header=header)
    values.findings = findings + values.findings
    return values


class LesionMetadatad(MapTransform):
    """Read ``data["clinical"]`` (path, values or nothing) and add the network's row beside it.

    Writes ``metadata``, ``(F,)`` float32: numbers in the schema's order, NaN where missing, then categories,
    0 where missing or unknown; ``metadata_used``, value, unit and source by name; ``metadata_missing``, a
    tuple of names; and ``metadata_findings``, a tuple of findings. Without a schema there is no row, and what
    was given is not read: the finding ``METADATA_NOT_USED`` says so.

    Args:
        keys: one key, of a path, a mapping or ``None``; may be absent from the sample.
        schema: a schema or the name of one; ``None`` for a network that looks at the image alone.
        id_key: key of the study's id, by which a table's row is found.
        image_key: key of the image; the age and sex of its DICOM header fill what is missing.

    Raises:
        ValueError: ``keys`` names several keys.
        InputRefused: a ``CLINICAL_*`` code; see :func:`parse_lesion_metadata`.
    """

    def __init__(
        self,
        keys: KeysCollection = "clinical",
        *,
        schema: LesionSchema | str | None = "dermoscopy_clinic",
        id_key: str = "study_id",
        image_key: str = "image",
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        if len(self.keys) != 1:
            raise ValueError(f"keys must name one key, got {self.keys}.")
        self.schema = lesion_schema(schema) if isinstance(schema, str) else schema
        self.id_key = id_key
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the sample with the row and its account added."""
        sample = dict(data)
        if self.schema is None:
            sample["metadata_findings"] = (NOT_USED,) if sample.get(self.keys[0]) else ()
            return sample
        study_id = sample.get(self.id_key)
        given = read_clinical(
            sample.get(self.keys[0]),
            None if study_id is None else str(study_id),
            id_columns=self.schema.id_columns,
        )
        header = getattr(sample.get(self.image_key), "meta", {}).get("header") or {}
        values = parse_lesion_metadata(given, self.schema, header=header)
        sample["metadata"] = torch.from_numpy(self.schema.encode(values.used))  # (F,)
        sample["metadata_used"] = values.described()
        sample["metadata_missing"] = tuple(values.missing)
        sample["metadata_findings"] = tuple(values.findings)
        return sample


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
