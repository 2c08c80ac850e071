"""A result as people read it: its numbers with their units, and the sizes of the kidneys one by one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Literal

from shared_nets.types import CKDResult, Estimate, KidneyResult, LesionResult, StudyResult
from shared_nets.writers.lesion_words import label_in_words, lesion_in_words, probability_in_words

#: UCUM units as people write them.
UNIT_WORDS = {"mL/min/{1.73_m2}": "mL/min/1.73 m²", "[hnsf'U]": "HU", "1": ""}
#: eGFR of each KDIGO G stage, mL/min/1.73 m².
STAGE_RANGES = {
    "G1": "≥ 90",
    "G2": "60–89",
    "G3a": "45–59",
    "G3b": "30–44",
    "G4": "15–29",
    "G5": "< 15",
}
_UNIT_OF_SUFFIX = {"_ml": "mL", "_mm": "mm"}


@dataclass(frozen=True, kw_only=True)
class KidneyMeasure:
    """One size of one part of the kidneys.

    Args:
        name: local code, stable; the name in ``result.json`` with hyphens, without its unit.
        side: the patient's side; ``None`` for both together.
        tissue: what was measured.
        quantity: what about it.
        value: the number.
        unit: UCUM unit.
        is_cut_off: whether the kidney reaches the edge of the scan; ``None`` where the result does not say so
            of a single kidney.
    """

    name: str
    side: Literal["right", "left"] | None
    tissue: str
    quantity: str
    value: float
    unit: str
    is_cut_off: bool | None

    @property
    def words(self) -> str:
        """Name it for people: ``Right kidney volume``."""
        return self.name.replace("-", " ").capitalize()


def kidney_measures(result: CKDResult | KidneyResult) -> tuple[KidneyMeasure, ...]:
    """List the sizes that a result holds.

    A tumour or cyst of no size is left out: a mask without labels for them looks the same as one in which
    there are none.

    Args:
        result: the result.

    Returns:
        The measures in the order of the result.

    Raises:
        ValueError: a CKD result holds a size whose name does not end in its unit.
    """
    if isinstance(result, CKDResult):
        found = [_named_measure(name, value) for name, value in result.kidney_measurements.items()]
        return tuple(measure for measure in found if measure.tissue == "kidney" or measure.value > 0)
    return _sided_measures(result)


def unit_in_words(unit: str) -> str:
    """Write a UCUM unit for people."""
    return UNIT_WORDS.get(unit, unit)


def interval_in_words(estimate: Estimate, *, digits: int) -> str:
    """Write an interval: ``90 % interval 0.91 to 1.67``."""
    return f"{estimate.level:.0%} interval {estimate.low:.{digits}f} to {estimate.high:.{digits}f}"


def estimate_in_words(estimate: Estimate, *, digits: int) -> str:
    """Write an estimate with unit and interval: ``1.17 mg/dL (90% interval 0.91 to 1.67)``."""
    number = f"{estimate.value:.{digits}f} {unit_in_words(estimate.unit)}"
    return f"{number} ({interval_in_words(estimate, digits=digits)})"


@singledispatch
def result_in_words(result: StudyResult) -> str:
    """Say in a sentence or a few what a result says.

    Args:
        result: the result.

    Returns:
        Words that call an estimate an estimate.
    """
    raise TypeError(f"result must be of a kind that has words, got {type(result).__name__}.")


@result_in_words.register
def _(result: CKDResult) -> str:
    probability = f"probability {result.stage_probabilities[result.stage]:.0%}"
    parts = [f"Estimated KDIGO GFR category {result.stage} ({probability})"]
    if result.egfr is not None:
        parts.append(f"eGFR {estimate_in_words(result.egfr, digits=0)}")
    if result.creatinine is not None:
        parts.append(f"creatinine, estimated, {estimate_in_words(result.creatinine, digits=2)}")
    return "; ".join(parts) + "."


@result_in_words.register
def _(result: KidneyResult) -> str:
    if not result.kidneys:
        return "No kidney was found."
    found = [
        f"{side} {kidney.volume_ml:.0f} mL{', cut off by the edge of the scan' if kidney.is_cut_off else ''}"
        for side, kidney in result.kidneys.items()
    ]
    return f"Kidney volumes: {'; '.join(found)}; together {result.total_volume_ml:.0f} mL."


@result_in_words.register
def _(result: LesionResult) -> str:
    return lesion_in_words(result)


@singledispatch
def result_in_one_line(result: StudyResult) -> str:
    """Say what a result says in as few words as a log has room for.

    Args:
        result: the result.

    Returns:
        One line.
    """
    raise TypeError(f"result must be of a kind that has words, got {type(result).__name__}.")


@result_in_one_line.register
def _(result: CKDResult) -> str:
    if result.creatinine is None or result.egfr is None:
        return f"KDIGO {result.stage}"
    return (
        f"creatinine {result.creatinine.value:.2f} mg/dL "
        f"({result.creatinine.low:.2f}–{result.creatinine.high:.2f}), "
        f"eGFR {result.egfr.value:.0f} ({result.egfr.low:.0f}–{result.egfr.high:.0f}), KDIGO {result.stage}"
    )


@result_in_one_line.register
def _(result: KidneyResult) -> str:
    found = ", ".join(f"{side} {kidney.volume_ml:.0f} mL" for side, kidney in result.kidneys.items())
    return f"kidneys: {found or 'none'}"


@result_in_one_line.register
def _(result: LesionResult) -> str:
    why = "".join(f", {finding.code}" for finding in result.abstentions)
    classes = ", ".join(result.prediction_set)
    malignancy = probability_in_words(result.malignancy)
    return f"{label_in_words(result)}{why}; malignant class {malignancy}, set: {classes}"


def _named_measure(name: str, value: float) -> KidneyMeasure:
    suffix = name[-3:]
    if suffix not in _UNIT_OF_SUFFIX:
        raise ValueError(f"a kidney measurement must end in one of {sorted(_UNIT_OF_SUFFIX)}, got {name!r}.")
    words = name[:-3].split("_")  # [right|left] tissue quantity
    side: Literal["right", "left"] | None = None
    if words[0] == "right" or words[0] == "left":
        side = "right" if words[0] == "right" else "left"
        words = words[1:]
    return KidneyMeasure(
        name=name[:-3].replace("_", "-"),
        side=side,
        tissue=" ".join(words[:-1]),
        quantity=words[-1],
        value=value,
        unit=_UNIT_OF_SUFFIX[suffix],
        is_cut_off=None,
    )


def _sided_measures(result: KidneyResult) -> tuple[KidneyMeasure, ...]:
    found = []
    sides: tuple[Literal["right", "left"], ...] = ("right", "left")
    for side in sides:
        kidney = result.kidneys.get(side)
        if kidney is None:
            continue
        numbers = (("volume", kidney.volume_ml, "mL"), ("length", kidney.length_mm, "mm"))
        density = () if kidney.mean_hu is None else (("density", kidney.mean_hu, "[hnsf'U]"),)
        for quantity, value, unit in (*numbers, *density):
            found.append(
                KidneyMeasure(
                    name=f"{side}-kidney-{quantity}",
                    side=side,
                    tissue="kidney",
                    quantity=quantity,
                    value=value,
                    unit=unit,
                    is_cut_off=kidney.is_cut_off,
                )
            )
    if found:
        found.append(
            KidneyMeasure(
                name="kidney-volume",
                side=None,
                tissue="kidney",
                quantity="volume",
                value=result.total_volume_ml,
                unit="mL",
                is_cut_off=None,
            )
        )
    return tuple(found)
