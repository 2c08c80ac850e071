"""Lesion results made by hand, with a label and without one, and a photograph with a spot that decided."""

from __future__ import annotations

import dataclasses

import numpy as np

from shared_nets.types import Finding, LesionResult, Provenance

STATEMENTS = (
    "The model puts every lesion into the classes named here. A low number does not rule out more.",
    "Of lesions like those in the validation split of DermaMNIST, about 90% have their class in the set.",
)
UNLIKE = Finding(
    code="ABSTAIN_OUT_OF_DISTRIBUTION",
    message="The image is unlike those that the model learned from (distance 90.1, the limit is 60.5).",
)
PROVENANCE = Provenance(
    bundle="mambaderm_classification",
    bundle_version="0.1.0",
    config_sha256="a" * 64,
    weights_sha256={"model": "b" * 64},
    packages={"monai": "1.6.1"},
    image={"source": "photograph", "shape": [40, 60]},
    mask={},
    repairs=(Finding(code="EXIF_TURNED", message="The photograph was turned upright."),),
    thresholds={"temperature": 1.25},
)


def lesion_result(**changes) -> LesionResult:
    """Make a result whose label is a naevus."""
    result = LesionResult(
        study_id="mole_1",
        label="nv",
        class_probabilities={
            "akiec": 0.021, "bcc": 0.034, "bkl": 0.09, "df": 0.002, "mel": 0.201, "nv": 0.648, "vasc": 0.004,
        },
        malignancy=0.256,
        malignant_classes=("mel", "bcc", "akiec"),
        prediction_set=("nv", "mel"),
        coverage=0.9,
        ood_score=14.25,
        ood_limit=60.5,
        abstentions=(),
        metadata_used={"age": {"value": 55.0, "unit": "a", "source": "age"}},
        metadata_missing=("site",),
        warnings=(Finding(code="IMAGE_SMALL", message="The photograph has few pixels."),),
        statements=STATEMENTS,
        provenance=PROVENANCE,
    )  # fmt: skip
    return dataclasses.replace(result, **changes)


def abstaining_result(**changes) -> LesionResult:
    """Make a result without a label, as the image is unlike those of the training."""
    return lesion_result(
        **{"label": None, "abstentions": (UNLIKE,), "ood_score": 90.1, "prediction_set": ("nv",), **changes}
    )


def uncalibrated_result(**changes) -> LesionResult:
    """Make a result of a bundle without a calibration."""
    nothing = {"coverage": None, "ood_score": None, "ood_limit": None}
    return lesion_result(**{**nothing, "prediction_set": ("nv",), "metadata_used": {}, **changes})


def photograph() -> tuple[np.ndarray, np.ndarray]:
    """Give a photograph of 40 × 60 pixels, grey 200, and a map whose upper left corner mattered by 0.3."""
    saliency = np.zeros((40, 60), dtype=np.float32)
    saliency[5:15, 5:15] = 0.3
    return np.full((3, 40, 60), 200, dtype=np.uint8), saliency
