"""Clinical values of a study → the input vector of a network, and an account of where every number came from.

Shape letters: F features of the schema.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from shared_nets.refusals import InputRefused
from shared_nets.transforms.ckd_epi import refuse_children
from shared_nets.transforms.clinical_file import read_clinical
from shared_nets.transforms.clinical_header import header_values
from shared_nets.transforms.clinical_parse import Measured, is_missing, read_number, read_word
from shared_nets.transforms.clinical_schema import (
    ClinicalFeature,
    ClinicalSchema,
    clinical_schema,
    plain_name,
)
from shared_nets.transforms.clinical_units import canonical_unit
from shared_nets.types import Finding

_CREATININE = Measured(quantity="creatinine", minimum=0.1, maximum=30.0, unit="mg/dL")
_UREA = Measured(quantity="urea", minimum=0.36, maximum=89.0, unit=None)
_HEIGHT = Measured(quantity="height", minimum=100.0, maximum=250.0, unit="cm")
_WEIGHT = Measured(quantity="weight", minimum=20.0, maximum=400.0, unit="kg")
#: Values that fill a feature by a formula: name → (quantity of the feature that it fills, how it is read).
_FORMULAS: dict[str, tuple[str, Measured]] = {
    **dict.fromkeys(
        ("creatinine", "serum_creatinine", "scr", "cr", "cr_48h", "creatinine_mg_dl"),
        ("log_creatinine", _CREATININE),
    ),
    **dict.fromkeys(("urea", "serum_urea", "blood_urea"), ("urea_nitrogen", _UREA)),
    **dict.fromkeys(("height", "height_cm"), ("body_mass_index", _HEIGHT)),
    **dict.fromkeys(("weight", "weight_kg"), ("body_mass_index", _WEIGHT)),
}
_NITROGEN_MG_DL_PER_UREA_MMOL_L = 2.801
#: Columns that hold or follow from the answer. They are targets in a datalist, never inputs.
_ANSWERS = (
    *("chronic_kidney_disease", "ckd", "stage", "ckd_stage", "kdigo_stage"),
    *("egfr", "gfr", "egfr_ml_min", "egfr_is_lower_bound", "egfr_days_before_surgery"),
    *("last_preop_egfr", "first_postop_egfr", "last_postop_egfr"),
    *("creatinine", "serum_creatinine", "scr", "cr", "cr_48h", "creatinine_mg_dl", "baseline_creatinine"),
    *("cr_48h_log", "log_creatinine", "creatinine_log", "baseline_cr_log"),
)


@dataclass
class ClinicalValues:
    """What is known of one person, in the units of a schema.

    Args:
        schema: what the values are for.
        used: number or word by feature name.
        sources: ``user``, ``image header`` or ``kidney mask``, by feature name.
        findings: conversions and other things that a reader must know.
    """

    schema: ClinicalSchema
    used: dict[str, float | str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """Names without a value, in the order of the schema."""
        return [name for name in self.schema.names if name not in self.used]

    def put(self, feature: ClinicalFeature, value: float | str, source: str) -> None:
        """Store a value and where it came from."""
        self.used[feature.name] = value
        self.sources[feature.name] = source

    def vector(self, *, with_missing_indicators: bool) -> torch.Tensor:
        """Build the network's input.

        Args:
            with_missing_indicators: whether to append a 1 for every missing value and a 0 for the others.

        Returns:
            ``(F,)`` or ``(2 F,)`` float32; NaN where a value is missing.
        """
        values = torch.from_numpy(self.schema.encode(self.used))  # (F,)
        return torch.cat([values, values.isnan().float()]) if with_missing_indicators else values

    def described(self) -> dict[str, dict[str, Any]]:
        """Give value, unit and source by name, in the order of the schema."""
        return {
            f.name: {"value": self.used[f.name], "unit": f.unit, "source": self.sources[f.name]}
            for f in self.schema.features
            if f.name in self.used
        }


def parse_clinical_values(
    given: Mapping[str, Any],
    schema: ClinicalSchema,
    *,
    measured: Mapping[str, float] | None = None,
    header: Mapping[str, Any] | None = None,
    codings: Mapping[str, Mapping[str, str]] | None = None,
) -> ClinicalValues:
    """Understand what people wrote; what they did not write is taken from the mask or the image header.

    Args:
        given: what was written, by column name.
        schema: what the network reads.
        measured: shape of the kidneys by feature name, in the units of the schema; NaN is missing.
        header: facts of the image header, as :func:`clinical_header.header_values` reads them.
        codings: for tables that write numbers for words: word by number, by feature name.

    Returns:
        The values; those that nobody gave stay missing.

    Raises:
        InputRefused: a ``CLINICAL_*`` code with the name of the column.
    """
    values = ClinicalValues(schema)
    columns: dict[str, str] = {}  # by what they fill
    formulas: dict[str, tuple[str, Any]] = {}
    for column, raw in given.items():
        feature = schema.find(column)
        formula = _FORMULAS.get(plain_name(column))
        if feature is not None:
            is_log_of_it = feature.quantity == "log_creatinine" and _has_unit_of(raw, "creatinine")
            key = "creatinine" if is_log_of_it else feature.name
        elif formula is not None and schema.find_quantity(formula[0]) is not None:
            key = formula[1].quantity
        else:
            raise _unknown(column, schema)
        if is_missing(raw):
            continue
        if key in columns:
            raise _twice(columns[key], column)
        columns[key] = column
        if feature is None or key == "creatinine":
            formulas[key] = (column, raw)
        elif feature.kind != "continuous":
            coding = (codings or {}).get(feature.name)
            values.put(feature, read_word(column, raw, feature, coding), "user")
        else:
            how = Measured(
                quantity=feature.quantity, minimum=feature.minimum, maximum=feature.maximum, unit=feature.unit
            )
            number, findings = read_number(column, raw, how)
            values.put(feature, number, "user")
            values.findings += findings
    _apply_formulas(values, columns, formulas)
    _take_from_mask(values, measured or {})
    _take_from_header(values, header or {})
    return values


class ClinicalValuesd(MapTransform):
    """Replace ``data["clinical"]`` (path or values) by the network's vector, and describe it beside.

    Writes ``clinical``, ``(F,)`` or with indicators ``(2 F,)`` float32, NaN where missing, and
    ``clinical_values``: ``used`` (value, unit, source by name), ``missing``, ``findings``, ``age_years``,
    ``is_female``, ``schema``, ``schema_sha256``.

    Args:
        keys: one key, of a path, a mapping or ``None``; may be absent from the sample.
        schema: a schema or the name of one.
        without: names of features to leave out.
        with_missing_indicators: whether the vector ends in F indicators, 1 for missing.
        codings: word by number, by feature name, for tables that write numbers for words.

    Raises:
        ValueError: the schema has no age or no sex; CKD-EPI needs both.
        InputRefused: a ``CLINICAL_*`` code, or ``AGE_UNDER_18``.
    """

    def __init__(
        self,
        keys: KeysCollection = "clinical",
        schema: ClinicalSchema | str = "KITS",
        without: Sequence[str] = (),
        with_missing_indicators: bool = True,
        codings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        if len(self.keys) != 1:
            raise ValueError(f"keys must name one key, got {self.keys}.")
        self.schema = (
            clinical_schema(schema, without) if isinstance(schema, str) else schema.without(*without)
        )
        self.with_missing_indicators = with_missing_indicators
        self.codings = {name: dict(words) for name, words in (codings or {}).items()}
        age, sex = self.schema.find_quantity("age"), self.schema.find("sex")
        if age is None or sex is None:
            raise ValueError(f"schema must have an age and a sex, got {self.schema.names}.")
        self._age, self._sex = age, sex

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read the values and add ``clinical`` and ``clinical_values`` to a copy of ``data``."""
        sample = dict(data)
        key = self.keys[0]
        study_id = sample.get("study_id")
        values = parse_clinical_values(
            read_clinical(sample.get(key), None if study_id is None else str(study_id)),
            self.schema,
            measured=sample.get("kidney_shape"),
            header=((sample.get("slice_selection") or {}).get("image") or {}).get("header"),
            codings=self.codings,
        )
        for feature in self.schema.features:
            if feature.required and feature.name not in values.used:
                raise InputRefused(
                    "CLINICAL_REQUIRED_MISSING",
                    f'"{feature.name}" is missing, and the result cannot do without it.',
                    f'Give "{feature.name}" ({feature.meaning}).',
                )
        age_years = float(values.used[self._age.name])
        refuse_children(age_years)
        uses_mask = "kidney mask" in values.sources.values()
        sample[key] = values.vector(with_missing_indicators=self.with_missing_indicators)
        sample["clinical_values"] = {
            "used": values.described(),
            "missing": values.missing,
            "findings": values.findings + list(sample.get("kidney_shape_findings", ()) if uses_mask else ()),
            "age_years": age_years,
            "is_female": values.used[self._sex.name] == "female",
            "schema": self.schema.name,
            "schema_sha256": self.schema.sha256,
        }
        return sample


def _has_unit_of(raw: Any, quantity: str) -> bool:
    unit = (
        raw.get("unit")
        if isinstance(raw, Mapping)
        else raw.strip(" \t+-.0123456789")
        if isinstance(raw, str)
        else ""
    )
    return isinstance(unit, str) and canonical_unit(unit, quantity) is not None


def _apply_formulas(
    values: ClinicalValues, columns: Mapping[str, str], formulas: Mapping[str, tuple[str, Any]]
) -> None:
    """Fill log creatinine from creatinine, urea nitrogen from urea, BMI from height and weight."""
    numbers: dict[str, float] = {}
    for how in (_CREATININE, _UREA, _HEIGHT, _WEIGHT):
        if how.quantity in formulas:
            numbers[how.quantity], findings = read_number(*formulas[how.quantity], how)
            values.findings += findings
    for quantity, target in (("creatinine", "log_creatinine"), ("urea", "urea_nitrogen")):
        feature = values.schema.find_quantity(target)
        if feature is None or quantity not in numbers:
            continue
        if feature.name in values.used:
            raise _twice(columns[feature.name], columns[quantity])
        if quantity == "creatinine":
            number = math.log(numbers[quantity])
            how_so = f"the natural logarithm of {numbers[quantity]:.4g} mg/dL"
        else:
            number = numbers[quantity] * _NITROGEN_MG_DL_PER_UREA_MMOL_L
            how_so = f"{number:.4g} mg/dL, the nitrogen of {numbers[quantity]:.4g} mmol/L urea"
        values.findings.append(Finding(code="CLINICAL_COMPUTED", message=f'"{feature.name}" is {how_so}.'))
        values.put(feature, number, "user")
    bmi = values.schema.find_quantity("body_mass_index")
    if bmi is None or not {"height", "weight"} & numbers.keys():
        return
    if bmi.name in values.used or not {"height", "weight"} <= numbers.keys():
        why = "the body mass index is given" if bmi.name in values.used else "the other of the two is missing"
        given = " and ".join(f'"{columns[n]}"' for n in ("height", "weight") if n in numbers)
        values.findings.append(Finding(code="CLINICAL_NOT_USED", message=f"{given} was not used: {why}."))
        return
    number = numbers["weight"] / (numbers["height"] / 100.0) ** 2
    if not bmi.minimum <= number <= bmi.maximum:
        raise InputRefused(
            "CLINICAL_OUT_OF_RANGE",
            f'"{columns["weight"]}" and "{columns["height"]}" make a body mass index of {number:.4g} kg/m2.',
            "Check both values and their units.",
        )
    values.put(bmi, number, "user")
    shown = f'"{bmi.name}" {number:.4g} kg/m2 was computed from height and weight.'
    values.findings.append(Finding(code="CLINICAL_COMPUTED", message=shown))


def _take_from_mask(values: ClinicalValues, measured: Mapping[str, float]) -> None:
    kept = []
    for feature in values.schema.features:
        number = measured.get(feature.name)
        if feature.source != "computed" or number is None or math.isnan(number):
            continue
        if feature.name in values.used:
            kept.append(feature.name)
        elif feature.minimum <= number <= feature.maximum:
            values.put(feature, float(number), "kidney mask")
        else:
            raise InputRefused(
                "CLINICAL_OUT_OF_RANGE",
                f'"{feature.name}" measured on the mask is {number:.4g} {feature.unit}, '
                f"outside {feature.minimum:.4g} to {feature.maximum:.4g}.",
                "Check the segmentation and its voxel size.",
            )
    if kept:
        shown = f"Given values were used instead of those measured on the mask: {', '.join(kept)}."
        values.findings.append(Finding(code="CLINICAL_GIVEN_OVER_MEASURED", message=shown))


def _take_from_header(values: ClinicalValues, header: Mapping[str, Any]) -> None:
    """Fill up what nobody gave, and tell where the header says something else than people."""
    found, findings = header_values(values.schema, header)
    for fact in found:
        name = fact.feature.name
        known = values.used.get(name)
        if known is None:
            values.put(fact.feature, fact.value, "image header")
            message = f'"{name}" was taken from the image header ({fact.written_as}).'
            values.findings.append(Finding(code="CLINICAL_FROM_HEADER", message=message))
        elif fact.contradicts(known):
            message = (
                f'"{name}" of the clinical values and of the image header ({fact.written_as}) differ; '
                "the clinical value was used. Check that both belong to one person."
            )
            values.findings.append(Finding(code="CLINICAL_HEADER_CONFLICT", message=message))
    values.findings += findings


def _unknown(column: str, schema: ClinicalSchema) -> InputRefused:
    message = f'"{column}" is not a clinical value of {schema.name}.'
    plain = plain_name(column)
    if plain in _ANSWERS:
        remedy = (
            "It is the answer or tells it, and the model would look better than it is: leave it out. "
            "A datalist may carry it beside the clinical values, as a target."
        )
        return InputRefused("CLINICAL_UNKNOWN_COLUMN", message, remedy)
    known = {plain_name(n): f.name for f in schema.features for n in (f.name, *f.aliases)}
    known |= {n: n for n, (fills, _) in _FORMULAS.items() if schema.find_quantity(fills) is not None}
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.6)
    by_people = ", ".join(f.name for f in schema.features if f.source == "user")
    remedy = f'Did you mean "{known[close[0]]}"?' if close else f"Known names: {by_people}."
    return InputRefused(
        "CLINICAL_UNKNOWN_COLUMN", message, f"{remedy} Leave out what the model does not read."
    )


def _twice(first: str, second: str) -> InputRefused:
    return InputRefused(
        "CLINICAL_GIVEN_TWICE",
        f'"{first}" and "{second}" give the same clinical value.',
        "Keep one of the two.",
    )
