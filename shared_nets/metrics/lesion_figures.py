"""The figures of a lesion classifier, over its classes and over malignancy.

Shape letters: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shared_nets.metrics.bootstrap import WeightedFigure
from shared_nets.metrics.calibration_error import brier_score, expected_calibration_error
from shared_nets.metrics.threshold_curve import ThresholdCurve

FloatArray = npt.NDArray[np.float64]


def lesion_figures(
    probabilities: FloatArray,
    labels: npt.NDArray[np.int64],
    malignant: Sequence[int],
    *,
    min_tpr: float = 0.8,
    specificity: float = 0.9,
    sensitivity: float = 0.9,
) -> dict[str, WeightedFigure]:
    """Prepare every figure as a function of how much each image weighs.

    ``auc`` is the mean over the classes of one class against the rest and ``accuracy`` that of the most
    probable class, both as MedMNIST evaluates; a class that no image has makes ``auc`` NaN rather than a mean
    over fewer. ``malignancy_…`` are of the summed probability of the malignant classes.

    Args:
        probabilities: ``(N, K)``, adding up to 1.
        labels: class of each image, ``(N,)``.
        malignant: numbers of the malignant classes.
        min_tpr: sensitivity above which ``malignancy_pauc`` is taken.
        specificity: at which ``malignancy_sensitivity`` is taken.
        sensitivity: at which ``malignancy_specificity`` is taken.

    Returns:
        Function of weights ``(N,)`` by name.
    """
    num_classes = probabilities.shape[1]
    classes = range(num_classes)
    predicted = probabilities.argmax(axis=1)  # (N,)
    is_right = predicted == labels
    is_malignant = np.isin(labels, list(malignant))
    malignancy = np.clip(probabilities[:, list(malignant)].sum(axis=1), 0.0, 1.0)  # (N,)
    curves = [ThresholdCurve(labels == k, probabilities[:, k]) for k in classes]
    curve = ThresholdCurve(is_malignant, malignancy)

    def balanced_accuracy(weights: FloatArray) -> float:
        total = np.bincount(labels, weights, num_classes)
        right = np.bincount(labels, weights * is_right, num_classes)
        return float(np.mean(right[total > 0] / total[total > 0])) if weights.any() else float("nan")

    return {
        "auc": lambda w: float(np.mean([one.auc(w) for one in curves])),
        "accuracy": lambda w: float(np.average(is_right, weights=w)),
        "balanced_accuracy": balanced_accuracy,
        "average_precision": lambda w: float(np.mean([one.average_precision(w) for one in curves])),
        "ece": lambda w: expected_calibration_error(probabilities.max(axis=1), is_right, w),
        "brier": lambda w: brier_score(probabilities, labels, w),
        "malignancy_auc": curve.auc,
        "malignancy_pauc": lambda w: curve.partial_auc(w, min_tpr=min_tpr),
        "malignancy_average_precision": curve.average_precision,
        "malignancy_sensitivity": lambda w: curve.sensitivity_at(specificity, w),
        "malignancy_specificity": lambda w: curve.specificity_at(sensitivity, w),
        "malignancy_ece": lambda w: expected_calibration_error(malignancy, is_malignant, w),
        "malignancy_brier": lambda w: brier_score(malignancy, is_malignant, w),
    }
