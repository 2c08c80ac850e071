"""A synthetic task for photograph and metadata together: shall this lesion be excised? By two open rules.

DermaMNIST has real photographs with real diagnoses, and no metadata. Here every photograph gets a made-up
person, and an answer that follows from diagnosis, age and site. It takes both to know it: a photograph says
nothing of its person, and a person, drawn without a look at the photograph, says nothing of the diagnosis. So
the task tells whether a network joins the two, and nothing else. People, answers and all figures on them are
synthetic; the rules are no advice.

1. What is malignant (melanoma, basal cell carcinoma, actinic keratosis) is excised.
2. A naevus is excised from the age of 60 where skin always sees the sun: on head, neck, arms and hands. In
   the elderly, melanoma is tied to sunlight over many years, and is found late. (That a naevus should be
   taken for one, these sites and the number 60 are made up.)
3. Nothing else is excised.

The rules were picked from several so that photograph and person both count; what they yield says nothing of
how often either counts in a clinic.

Shape letters: N images.

Reference:
    Rule 2: Regionala cancercentrum i samverkan, "Vårdprogram malignt melanom" (Swedish national programme of
    care), 2018, appendix 3: melanoma of the elderly lies elsewhere, and is tied to sunlight over many years.
    The shares of ages, sexes and sites are counts of the table ``HAM10000_metadata``, of P. Tschandl,
    C. Rosendahl, H. Kittler, "The HAM10000 dataset", Scientific Data 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shared_nets.data.ham10000 import CLASS_NAMES, MALIGNANT_CLASSES

#: Images of HAM10000 by age in years; 57 of the 10,015 have none.
AGE_COUNTS: dict[int, int] = {
    0: 39, 5: 86, 10: 41, 15: 77, 20: 169, 25: 247, 30: 464, 35: 753, 40: 985, 45: 1299, 50: 1187, 55: 1009,
    60: 803, 65: 731, 70: 756, 75: 618, 80: 404, 85: 290,
}  # fmt: skip
#: By sex; 57 have none.
SEX_COUNTS: dict[str, int] = {"male": 5406, "female": 4552}
#: By site; 234 have none.
SITE_COUNTS: dict[str, int] = {
    "back": 2192, "lower extremity": 2077, "trunk": 1404, "upper extremity": 1118, "abdomen": 1022,
    "face": 745, "chest": 407, "foot": 319, "neck": 168, "scalp": 128, "hand": 90, "ear": 56, "genital": 48,
    "acral": 7,
}  # fmt: skip
#: Sites of rule 2.
SUNNY_SITES = frozenset({"face", "scalp", "ear", "neck", "upper extremity", "hand"})
#: Age in years from which rule 2 holds.
OLD_AGE = 60


@dataclass(frozen=True)
class LesionTask:
    """Made-up people and answers for some photographs.

    Args:
        clinical: what is told of each person: ``age`` in years, ``sex`` and ``localization`` in the words of
            HAM10000; withheld values are absent. N long.
        target: the answer, with some turned round, ``(N,)`` bool.
        by_rule: the answer before, ``(N,)`` bool.
    """

    clinical: list[dict[str, Any]]
    target: npt.NDArray[np.bool_]
    by_rule: npt.NDArray[np.bool_]


def is_excised(diagnosis: str, *, age_years: float, site: str) -> bool:
    """Answer by the rules at the head of this file.

    Args:
        diagnosis: one of :data:`shared_nets.data.ham10000.CLASS_NAMES`.
        age_years: age of the person.
        site: one of :data:`SITE_COUNTS`.

    Raises:
        ValueError: there is no such diagnosis or site.
    """
    if diagnosis not in CLASS_NAMES:
        raise ValueError(f"diagnosis must be one of {CLASS_NAMES}, got {diagnosis!r}.")
    if site not in SITE_COUNTS:
        raise ValueError(f"site must be one of {tuple(SITE_COUNTS)}, got {site!r}.")
    if diagnosis in MALIGNANT_CLASSES:
        return True
    return diagnosis == "nv" and age_years >= OLD_AGE and site in SUNNY_SITES


def draw_lesion_task(
    labels: npt.NDArray[np.int64],
    *,
    seed: int | Sequence[int],
    turned_share: float = 0.03,
    withheld_share: float = 0.1,
) -> LesionTask:
    """Give every photograph a person and an answer.

    Args:
        labels: diagnosis of each photograph, a number in :data:`shared_nets.data.ham10000.CLASS_NAMES`,
            ``(N,)``. The answers depend on it, the people do not.
        seed: of everything that is drawn.
        turned_share: share of answers that are turned round, so that nobody can be perfect.
        withheld_share: share of values that are not told, each drawn by itself. Answers follow from the
            values that somebody has, told or not.

    Returns:
        The task.

    Raises:
        ValueError: a share does not lie between 0 and 1.
    """
    for name, share in (("turned_share", turned_share), ("withheld_share", withheld_share)):
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"{name} must lie between 0 and 1, got {share}.")
    rng = np.random.default_rng(seed)
    counts: dict[str, Mapping[Any, int]] = {"age": AGE_COUNTS, "sex": SEX_COUNTS, "localization": SITE_COUNTS}
    columns = [_drawn(rng, count, len(labels)) for count in counts.values()]
    people = [dict(zip(counts, values, strict=True)) for values in zip(*columns, strict=True)]
    is_told = rng.random((len(labels), len(counts))) >= withheld_share
    is_turned = rng.random(len(labels)) < turned_share
    by_rule = np.array(
        [
            is_excised(CLASS_NAMES[label], age_years=person["age"], site=person["localization"])
            for label, person in zip(labels, people, strict=True)
        ],
        dtype=bool,
    )
    clinical = [
        {name: value for (name, value), told in zip(person.items(), row, strict=True) if told}
        for person, row in zip(people, is_told, strict=True)
    ]
    return LesionTask(clinical=clinical, target=by_rule ^ is_turned, by_rule=by_rule)


def _drawn(rng: np.random.Generator, counts: Mapping[Any, int], number: int) -> list[Any]:
    shares = np.array(list(counts.values()), dtype=np.float64)
    values = list(counts)
    return [values[i] for i in rng.choice(len(values), size=number, p=shares / shares.sum())]
