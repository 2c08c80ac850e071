"""Result and refusal as JSON that is checked against its schema before it is written."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for

from shared_nets.refusals import InputRefused
from shared_nets.types import RESEARCH_USE_ONLY, CKDResult, KidneyResult, LesionResult, StudyResult

_SCHEMAS = Path(__file__).parent / "schemas"
#: Schema of each kind of result.
SCHEMA_NAMES: dict[type, str] = {
    CKDResult: "ckd_result",
    KidneyResult: "kidney_result",
    LesionResult: "lesion_result",
}


def result_as_dict(result: StudyResult) -> dict[str, Any]:
    """Turn a result into plain JSON values.

    Args:
        result: the frozen result.

    Returns:
        A dictionary valid under the schema of its kind, one of :data:`SCHEMA_NAMES` in ``schemas/``.

    Raises:
        jsonschema.ValidationError: the result is not what the schema promises its readers.
    """
    content = json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False, default=_plain))
    _check(content, SCHEMA_NAMES[type(result)])
    return content


def refusal_as_dict(study_id: str, refusal: InputRefused) -> dict[str, Any]:
    """Turn a refusal into plain JSON values.

    Args:
        study_id: name of the study.
        refusal: why it was refused.

    Returns:
        A dictionary valid under ``schemas/refusal.schema.json``.
    """
    content = {
        "study_id": study_id,
        "status": "refused",
        **refusal.as_dict(),
        "notice": RESEARCH_USE_ONLY,
    }
    _check(content, "refusal")
    return content


def to_json_bytes(content: dict[str, Any]) -> bytes:
    """Encode JSON the same way every time: UTF-8, two spaces, keys in their order, a final newline."""
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _check(content: dict[str, Any], name: str) -> None:
    error = best_match(_validator(name).iter_errors(content))
    if error is not None:
        raise error


@cache
def _validator(name: str) -> Validator:
    """Build what checks against a schema, once: a schema costs more to check than a result."""
    schema = json.loads((_SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    kind = validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a result must hold plain values, got {type(value).__name__}.")
