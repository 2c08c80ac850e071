"""Which clinical values a network reads: names, units, ranges, order, and a hash that goes with weights."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared_nets.transforms.clinical_units import UNITS

KINDS = ("continuous", "binary", "categorical")
SOURCES = ("user", "computed")
_PROSE = ("meaning", "aliases")  # may change without the vector changing


def plain_name(name: str) -> str:
    """Reduce a column name to what is compared: no case, blanks, hyphens or dots.

    Args:
        name: a name as somebody wrote it.

    Returns:
        The name in lower case with underscores.
    """
    return "_".join(name.strip().casefold().replace("-", " ").replace(".", " ").replace("_", " ").split())


@dataclass(frozen=True, kw_only=True)
class ClinicalFeature:
    """One number of the vector.

    Args:
        name: name, as results print it.
        unit: unit of the number in the vector; empty for words.
        minimum: lowest allowed number.
        maximum: highest allowed number.
        kind: ``continuous``, ``binary`` or ``categorical``.
        categories: words of a binary or categorical value; the vector holds a word's place in this list.
        meaning: what it is, for people.
        required: whether a study without it is refused.
        aliases: other names under which people may give it.
        source: ``user``, or ``computed`` where the mask tells it.
        quantity: what is measured, a key of :data:`clinical_units.UNITS`.

    Raises:
        ValueError: the description contradicts itself.
    """

    name: str
    unit: str
    minimum: float
    maximum: float
    kind: str = "continuous"
    categories: tuple[str, ...] = ()
    meaning: str = ""
    required: bool = False
    aliases: tuple[str, ...] = ()
    source: str = "user"
    quantity: str = "number"

    def __post_init__(self) -> None:
        object.__setattr__(self, "categories", tuple(self.categories))
        object.__setattr__(self, "aliases", tuple(self.aliases))
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {self.kind!r} for {self.name}.")
        if self.source not in SOURCES:
            raise ValueError(f"source must be one of {SOURCES}, got {self.source!r} for {self.name}.")
        if not self.minimum < self.maximum:
            raise ValueError(f"minimum must be below maximum, got {self.minimum} and {self.maximum}.")
        if self.quantity not in UNITS:
            raise ValueError(f"quantity must be one of {sorted(UNITS)}, got {self.quantity!r}.")
        if self.kind == "continuous" and self.unit != next(iter(UNITS[self.quantity]), None):
            raise ValueError(f"unit must be the first unit of {self.quantity}, got {self.unit!r}.")
        wanted = {"continuous": (0, 0), "binary": (2, 2), "categorical": (2, math.inf)}[self.kind]
        if not wanted[0] <= len(self.categories) <= wanted[1]:
            raise ValueError(f"categories must fit a {self.kind} value, got {self.categories}.")

    def encode(self, value: float | str | None) -> float:
        """Give the number that stands for a value in the vector.

        Args:
            value: number in the feature's unit, word of :attr:`categories`, or ``None`` where it is missing.

        Returns:
            The number; NaN where it is missing.

        Raises:
            ValueError: the word is not one of the categories, or the number is out of range.
        """
        if value is None:
            return float("nan")
        if isinstance(value, str):
            if value not in self.categories:
                raise ValueError(f"{self.name} must be one of {self.categories}, got {value!r}.")
            return float(self.categories.index(value))
        if not math.isnan(value) and not self.minimum <= value <= self.maximum:
            raise ValueError(f"{self.name} must lie in {self.minimum} to {self.maximum}, got {value}.")
        return float(value)


@dataclass(frozen=True)
class ClinicalSchema:
    """The clinical values of a network, in the order of its input vector.

    Args:
        name: name, for messages and provenance.
        features: what stands where.

    Raises:
        ValueError: a name or alias means two features.
    """

    name: str
    features: tuple[ClinicalFeature, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        spellings = [s for f in self.features for s in {plain_name(n) for n in (f.name, *f.aliases)}]
        twice = sorted({s for s in spellings if spellings.count(s) > 1})
        if twice:
            raise ValueError(f"features must have names of their own, got {twice} twice.")

    @property
    def names(self) -> tuple[str, ...]:
        """Names, in the order of the vector."""
        return tuple(feature.name for feature in self.features)

    @property
    def sha256(self) -> str:
        """Hash of everything that gives the vector its meaning; prose and aliases are left out."""
        rows = [{k: v for k, v in asdict(f).items() if k not in _PROSE} for f in self.features]
        for row in rows:
            row["minimum"], row["maximum"] = float(row["minimum"]), float(row["maximum"])
        text = json.dumps(
            {"name": self.name, "features": rows}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, name: str) -> ClinicalFeature:
        feature = self.find(name)
        if feature is None:
            raise KeyError(f"name must be one of {self.names}, got {name!r}.")
        return feature

    def find(self, name: str) -> ClinicalFeature | None:
        """Find a feature by its name or an alias.

        Args:
            name: name in any spelling.

        Returns:
            The feature, or ``None``.
        """
        plain = plain_name(name)
        for feature in self.features:
            if plain in {plain_name(n) for n in (feature.name, *feature.aliases)}:
                return feature
        return None

    def find_quantity(self, quantity: str) -> ClinicalFeature | None:
        """Find the first feature that measures a quantity.

        Args:
            quantity: a key of :data:`clinical_units.UNITS`.

        Returns:
            The feature, or ``None``.
        """
        return next((feature for feature in self.features if feature.quantity == quantity), None)

    def encode(self, values: Mapping[str, float | str | None]) -> npt.NDArray[np.float32]:
        """Build the input vector.

        Args:
            values: number in the feature's unit or word of its categories, by name; absent names are missing.

        Returns:
            The vector, ``(F,)`` float32, NaN where a value is missing.

        Raises:
            ValueError: a name is not in the schema, or a value not allowed.
        """
        unknown = sorted(set(values) - set(self.names))
        if unknown:
            raise ValueError(f"values must be named as in the schema {self.name}, got {unknown}.")
        return np.array([f.encode(values.get(f.name)) for f in self.features], dtype=np.float32)

    def without(self, *names: str) -> ClinicalSchema:
        """Drop features, for an ablation.

        Args:
            names: names of features to drop.

        Returns:
            A schema with another name and another hash.
        """
        dropped = {self[name].name for name in names}
        if not dropped:
            return self
        kept = tuple(f for f in self.features if f.name not in dropped)
        return ClinicalSchema(f"{self.name} without {', '.join(n for n in self.names if n in dropped)}", kept)

    def plus(self, other: ClinicalSchema, *, name: str, only: Sequence[str] | None = None) -> ClinicalSchema:
        """Append the features of another schema.

        Args:
            other: whose features follow.
            name: name of the whole.
            only: names of the features to take, in the order of ``other``; by default all.

        Returns:
            A new schema.
        """
        wanted = other.names if only is None else {other[n].name for n in only}
        return ClinicalSchema(name, self.features + tuple(f for f in other.features if f.name in wanted))


def schema_from_json(path: str | Path) -> ClinicalSchema:
    """Read a schema from a file.

    Args:
        path: JSON object with ``name`` and ``features``, each with the arguments of :class:`ClinicalFeature`.

    Returns:
        The schema.
    """
    content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return ClinicalSchema(content["name"], tuple(ClinicalFeature(**row) for row in content["features"]))


def clinical_schema(name: str, without: Sequence[str] = ()) -> ClinicalSchema:
    """Give a schema by name, for configurations.

    Args:
        name: ``CKD_23``, ``KITS`` or ``KITS_WITH_SHAPE``.
        without: names of features to drop.

    Returns:
        The schema.

    Raises:
        ValueError: there is no such schema.
    """
    if name not in SCHEMAS:
        raise ValueError(f"name must be one of {sorted(SCHEMAS)}, got {name!r}.")
    return SCHEMAS[name].without(*without)


def _built_in(file_name: str) -> ClinicalSchema:
    return schema_from_json(Path(__file__).parent / "schemas" / file_name)


#: Every feature that :mod:`kidney_shape` measures; the first twelve end the 23-value table, in its order.
KIDNEY_SHAPE = _built_in("kidney_shape.json")
#: The 23 values of the published creatinine model, in its order.
CKD_23 = _built_in("ckd_clinical.json").plus(KIDNEY_SHAPE, name="CKD_23", only=KIDNEY_SHAPE.names[:12])
#: What is known of a KiTS23 patient before the operation; kidney disease is left out, as it is the answer.
KITS = _built_in("kits_clinical.json")
#: The same with every shape feature.
KITS_WITH_SHAPE = KITS.plus(KIDNEY_SHAPE, name="KITS_WITH_SHAPE")
SCHEMAS: dict[str, ClinicalSchema] = {s.name: s for s in (CKD_23, KITS, KITS_WITH_SHAPE)}
