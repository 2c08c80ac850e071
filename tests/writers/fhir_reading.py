"""Reads FHIR bundles back, and says what R4 does not allow in them.

Two libraries judge, each for what the other does not see. ``fhirclient`` is made from the definitions of
R4 (4.0.1) and refuses unknown and missing elements, wrong types and wrong numbers of them.
``fhir.resources.R4B`` (4.3.0: R4 and a few later additions) refuses two values at once, and
knows the codes and the kinds of reference that an element may have.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from shared_nets.writers.fhir_report import fhir_report

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def written(result, **arguments) -> dict[str, Any]:
    return json.loads(fhir_report(result, created=CREATED, **arguments))


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


def only(bundle: dict[str, Any], kind: str) -> dict[str, Any]:
    (resource,) = resources(bundle, kind)
    return resource


def observation(bundle: dict[str, Any], code: str) -> dict[str, Any]:
    (found,) = [o for o in resources(bundle, "Observation") if o["code"]["coding"][0]["code"] == code]
    return found


def walk(content: Any) -> Iterator[Any]:
    yield content
    if isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from walk(part)


def r4_problems(bundle: dict[str, Any]) -> list[str]:
    """Say what FHIR R4 does not allow in a bundle; nothing where it is a good one."""
    reason = "FHIR's definitions are not installed (extra dev)"
    r4 = pytest.importorskip("fhirclient.models.bundle", reason=reason)
    r4b = pytest.importorskip("fhir.resources.R4B.bundle", reason=reason)
    problems = []
    try:
        r4.Bundle(copy.deepcopy(bundle), strict=True)
    except Exception as error:
        problems.append(f"R4: {error}")
    try:
        model = r4b.Bundle.model_validate(copy.deepcopy(bundle))
    except ValueError as error:
        return [*problems, f"R4B: {error}"]
    return [*problems, *_wrong_codes_and_kinds(model, "Bundle")]


def _wrong_codes_and_kinds(model: Any, where: str) -> Iterator[str]:
    for name, field in type(model).model_fields.items():
        rules, value = field.json_schema_extra or {}, getattr(model, name)
        for one in value if isinstance(value, list) else [value]:
            if one is None:
                continue
            allowed = rules.get("enum_values")
            if allowed and str(one) not in allowed:
                yield f"{where}.{name}: {one} is none of {allowed}"
            kinds = rules.get("enum_reference_types") or ["Resource"]
            kind = getattr(one, "type", None)
            if isinstance(kind, str) and kinds != ["Resource"] and kind not in kinds:
                yield f"{where}.{name}: {kind} is none of {kinds}"
            if hasattr(type(one), "model_fields"):
                yield from _wrong_codes_and_kinds(one, f"{where}.{name}")
