"""What a lesion network is told beside the photograph: numbers, categories, and what is kept from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared_nets.transforms.clinical_schema import ClinicalFeature, ClinicalSchema, plain_name

_FOLDER = Path(__file__).parent / "schemas"
#: Schemas by name; each has a file.
LESION_SCHEMAS = ("isic2024", "dermoscopy_clinic")


@dataclass(frozen=True, kw_only=True)
class LesionSchema:
    """The metadata of a lesion network, in the order of its input row.

    A row holds the numbers, NaN where missing, then a number for each category: the place of its word in the
    vocabulary, counted from 1, and 0 where it is missing or unknown.

    Args:
        values: numbers first, then categories.
        synonyms: word of the vocabulary by what people may write for it, by name of the category.
        ignored: names or patterns of columns that are not read, and why.
        id_columns: columns that say which picture is meant.

    Raises:
        ValueError: a number follows a category, or a synonym stands for no word or for two.
    """

    values: ClinicalSchema
    synonyms: Mapping[str, Mapping[str, str]]
    ignored: Mapping[str, str]
    id_columns: tuple[str, ...]

    def __post_init__(self) -> None:
        kinds = [feature.kind for feature in self.values.features]
        if kinds != ["continuous"] * self.num_numbers + ["categorical"] * len(self.category_sizes):
            raise ValueError(f"values must be numbers followed by categories, got {kinds}.")
        for name, words in self.synonyms.items():
            strange = sorted(set(words.values()) - set(self.values[name].categories))
            if strange:
                raise ValueError(f"synonyms of {name} must stand for words of its vocabulary, got {strange}.")

    @property
    def name(self) -> str:
        """Name, for messages and provenance."""
        return self.values.name

    @property
    def names(self) -> tuple[str, ...]:
        """Names, in the order of the row."""
        return self.values.names

    @property
    def num_numbers(self) -> int:
        """How many numbers a row starts with."""
        return sum(feature.kind == "continuous" for feature in self.values.features)

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """How many values each category has, unknown among them."""
        return tuple(1 + len(f.categories) for f in self.values.features if f.kind == "categorical")

    @property
    def sha256(self) -> str:
        """Hash of everything that gives a row its meaning; prose, aliases and synonyms are left out."""
        return self.values.sha256

    def reason_to_ignore(self, column: str) -> str | None:
        """Say why a column is not read.

        Args:
            column: name in any spelling.

        Returns:
            The reason; ``None`` for a column that is not left out on purpose.
        """
        plain = plain_name(column)
        return next((why for pattern, why in self.ignored.items() if fnmatchcase(plain, pattern)), None)

    def word(self, feature: ClinicalFeature, text: str) -> str | None:
        """Find the word of a vocabulary that somebody meant.

        Args:
            feature: the category.
            text: what was written, in any spelling.

        Returns:
            The word; ``None`` where the vocabulary has none for it.
        """
        plain = plain_name(text)
        spellings = {plain_name(word): word for word in feature.categories}
        return spellings.get(plain) or self.synonyms.get(feature.name, {}).get(plain)

    def encode(self, values: Mapping[str, float | str | None]) -> npt.NDArray[np.float32]:
        """Build the input row.

        Args:
            values: number in its unit or word of the vocabulary, by name; absent names are missing.

        Returns:
            The row, ``(F,)`` float32.

        Raises:
            ValueError: a name is not in the schema, or a value not allowed.
        """
        row = self.values.encode(values)
        row[self.num_numbers :] = np.nan_to_num(row[self.num_numbers :] + 1.0, nan=0.0)
        return row


@cache
def lesion_schema(name: str) -> LesionSchema:
    """Give a schema by name, for configurations.

    Args:
        name: ``isic2024`` (34 numbers and 6 categories of the ISIC 2024 challenge) or ``dermoscopy_clinic``
            (age, sex and site).

    Returns:
        The schema.

    Raises:
        ValueError: there is no such schema.
    """
    if name not in LESION_SCHEMAS:
        raise ValueError(f"name must be one of {LESION_SCHEMAS}, got {name!r}.")
    return lesion_schema_from_json(_FOLDER / f"{name}.json")


def lesion_schema_or_none(name: str | None) -> LesionSchema | None:
    """Give a schema by name, and none for a network that looks at the image alone.

    Args:
        name: as for :func:`lesion_schema`; or ``None``.

    Returns:
        The schema, or ``None``.

    Raises:
        ValueError: there is no such schema.
    """
    return None if name is None else lesion_schema(name)


def lesion_schema_from_json(path: str | Path) -> LesionSchema:
    """Read a schema from a file.

    Args:
        path: JSON object with ``name``; ``numbers``, each with arguments of :class:`ClinicalFeature`;
            ``categories``, each with ``name``, ``meaning``, ``aliases``, ``values`` and ``synonyms`` by
            value; ``ignored``, each with ``columns`` and ``reason``; and ``id_columns``.

    Returns:
        The schema.
    """
    content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    numbers = tuple(ClinicalFeature(**row) for row in content["numbers"])
    categories = tuple(
        ClinicalFeature(
            name=row["name"],
            unit="",
            minimum=0,
            maximum=len(row["values"]) - 1,
            kind="categorical",
            categories=tuple(row["values"]),
            meaning=row["meaning"],
            aliases=tuple(row["aliases"]),
            quantity="word",
        )
        for row in content["categories"]
    )
    return LesionSchema(
        values=ClinicalSchema(content["name"], numbers + categories),
        synonyms={row["name"]: _by_spelling(row["synonyms"]) for row in content["categories"]},
        ignored={column: row["reason"] for row in content["ignored"] for column in row["columns"]},
        id_columns=tuple(content["id_columns"]),
    )


def _by_spelling(synonyms: Mapping[str, list[str]]) -> dict[str, str]:
    pairs = [(plain_name(spelling), word) for word, spellings in synonyms.items() for spelling in spellings]
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"synonyms must each stand for one word, got {sorted(s for s, _ in pairs)}.")
    return dict(pairs)
