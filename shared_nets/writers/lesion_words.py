"""A lesion result as people read it: classes by their full names, and probabilities that claim no more."""

from __future__ import annotations

from collections.abc import Iterable

from shared_nets.types import LesionResult

#: Full names of the classes of the public data sets (HAM10000, DermaMNIST; ISIC 2024 has the last two).
CLASS_NAMES = {
    "akiec": "actinic keratosis / Bowen's disease",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis-like lesion",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic naevus",
    "vasc": "vascular lesion",
    "benign": "benign lesion",
    "malignant": "malignant lesion",
}
#: SNOMED CT concept of a class, only where it is known to be all of the class: actinic keratosis and Bowen's
#: disease are two, and what is "keratosis-like" or "vascular" is many. They are morphologic abnormalities,
#: what a lesion looks like, and not disorders, which people have.
CLASS_CONCEPTS = {
    "mel": ("2092003", "Malignant melanoma"),
    "bcc": ("1338007", "Basal cell carcinoma"),
}
NO_LABEL = "No label given"


def class_in_words(name: str) -> str:
    """Write the name of a class in full; one that is not known here stays as it is."""
    return CLASS_NAMES.get(name, name.replace("_", " "))


def classes_in_words(names: Iterable[str]) -> str:
    """Write names of classes in full, one after the other."""
    return ", ".join(class_in_words(name) for name in names)


def probability_in_words(probability: float) -> str:
    """Write a probability with two digits, and never as nothing or as certainty."""
    if probability < 0.005:
        return "less than 0.01"
    return "more than 0.99" if probability >= 0.995 else f"{probability:.2f}"


def probability_in_digits(probability: float) -> str:
    """Write the same for a table."""
    return probability_in_words(probability).replace("less than", "<").replace("more than", ">")


def label_in_words(result: LesionResult) -> str:
    """Write the label, or that there is none, with a capital."""
    if result.label is None:
        return NO_LABEL
    words = class_in_words(result.label)
    return words[:1].upper() + words[1:]


def likely_class(result: LesionResult) -> str:
    """Give the most probable class, also where the model gives no label."""
    return max(result.class_probabilities, key=lambda name: result.class_probabilities[name])


def malignancy_in_words(result: LesionResult) -> str:
    """Say in a sentence how probable the malignant classes are together, and which these are."""
    return (
        f"The model gives {probability_in_words(result.malignancy)} that this lesion is of a malignant class "
        f"({classes_in_words(result.malignant_classes)})."
    )


def set_in_words(result: LesionResult) -> str:
    """Say in a sentence which classes the prediction set holds, and what that means."""
    classes = classes_in_words(result.prediction_set)
    if result.coverage is None:
        return f"Prediction set, not calibrated: {classes}."
    return (
        f"Prediction set, made to hold the class of {result.coverage:.0%} of the lesions of each class, "
        f"where they are like those of the calibration: {classes}."
    )


def abstention_in_words(result: LesionResult) -> str:
    """Say why no label is given; nothing where there is one."""
    return " ".join(finding.message for finding in result.abstentions)


def lesion_in_words(result: LesionResult) -> str:
    """Say in a few sentences what a result says."""
    if result.label is None:
        first = f"{NO_LABEL}. {abstention_in_words(result)}"
    else:
        probability = probability_in_words(result.class_probabilities[result.label])
        first = f"Most probable class {class_in_words(result.label)} (probability {probability})."
    return f"{first} {malignancy_in_words(result)} {set_in_words(result)}"
