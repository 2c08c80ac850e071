"""What a FHIR report says of a skin lesion: the class that a model gives it, and how sure it is.

A class is an answer of a model and no diagnosis: it stands in a preliminary observation whose code says so,
never in a condition.
"""

from __future__ import annotations

from shared_nets.types import LesionResult
from shared_nets.writers.fhir_terms import (
    HL7,
    SNOMED_CT,
    Json,
    Observed,
    ReportContent,
    coded,
    coding,
    concept,
    local,
    probability_component,
    quantity,
)
from shared_nets.writers.lesion_words import (
    CLASS_CONCEPTS,
    abstention_in_words,
    class_in_words,
    classes_in_words,
    malignancy_in_words,
    set_in_words,
)

_SKIN = (SNOMED_CT, "39937001", "Skin structure")
_BY_PHOTOGRAPH = "Estimated by a neural network from a photograph of the skin."
_BY_BOTH = "Estimated by a neural network from a photograph of the skin and what was said of the person."


def lesion_report(result: LesionResult) -> ReportContent:
    """Write what is particular to a lesion result."""
    method = _BY_BOTH if result.metadata_used else _BY_PHOTOGRAPH
    skin = concept(*_SKIN)
    return ReportContent(
        title="Automated classification of a skin lesion from a photograph, research use only",
        observations={
            "lesion-class": Observed(
                code=coded(
                    [local("lesion-class-estimate")], "Most probable class of the skin lesion, by a model"
                ),
                value=_class(result),
                method=method,
                notes=[*(f"{one.code}: {one.message}" for one in result.abstentions), set_in_words(result)],
                body_site=skin,
                components=_components(result),
            ),
            "malignancy": Observed(
                code=coded(
                    [local("malignant-class-probability")],
                    "Probability of a malignant class, by a model",
                ),
                value={"valueQuantity": quantity(result.malignancy, "1", digits=3)},
                method=method,
                notes=[malignancy_in_words(result)],
                body_site=skin,
                derived_from=["lesion-class"],
            ),
        },
    )


def _class(result: LesionResult) -> Json:
    if result.label is None:
        unknown = coding(f"{HL7}/data-absent-reason", "unknown", "Unknown")
        return {"dataAbsentReason": coded([unknown], f"The model abstains. {abstention_in_words(result)}")}
    name = class_in_words(result.label)
    known = [coding(SNOMED_CT, *CLASS_CONCEPTS[result.label])] if result.label in CLASS_CONCEPTS else []
    return {"valueCodeableConcept": coded([local(f"class-{result.label}", name), *known], name)}


def _components(result: LesionResult) -> list[Json]:
    found = [
        probability_component(f"class-{name}", f"Probability of {class_in_words(name)}", probability)
        for name, probability in result.class_probabilities.items()
    ]
    found.append(
        {
            "code": coded([local("prediction-set")], "Prediction set"),
            "valueString": classes_in_words(result.prediction_set),
        }
    )
    numbers = (
        ("prediction-set-coverage", "Coverage of the prediction set", result.coverage, 100.0, "%"),
        ("ood-distance", "Distance from the training images", result.ood_score, 1.0, "1"),
        ("ood-distance-limit", "Distance from which on the model abstains", result.ood_limit, 1.0, "1"),
    )
    found += [
        {"code": coded([local(code)], words), "valueQuantity": quantity(factor * value, unit, digits=2)}
        for code, words, value, factor, unit in numbers
        if value is not None
    ]
    return found
