"""Fit what tells images unlike the training images from those like them.

Shape letters: N images, K classes, E embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.covariance import LedoitWolf


class ClassGaussians(NamedTuple):
    """A normal distribution of embeddings for each class, all of one shape.

    ``means`` are ``(K, E)`` and ``precision``, the inverse of the common covariance, is ``(E, E)``, both
    float32.
    """

    means: npt.NDArray[np.float32]
    precision: npt.NDArray[np.float32]


def fit_class_gaussians(
    embeddings: npt.ArrayLike, labels: npt.ArrayLike, *, num_classes: int
) -> ClassGaussians:
    """Describe the training images by a mean for each class and one covariance.

    The covariance is of the distances from the class means, and is drawn towards a sphere by as much as
    Ledoit and Wolf find best: a rare class has fewer images than the embedding has directions. An image lies
    as far off as the nearest mean does (:func:`shared_nets.transforms.lesion_calibration.mahalanobis_score`).
    The limit of that belongs on images that the network did not learn from, which lie further off.

    Noise, blanks, negatives and X-rays lie far off. Energy and the highest probability do not tell these from
    lesions (a network is sure of what it never saw), nor does the distance relative to that from all images
    together. An embedding that is a mean over places does not notice a lesion in pieces.

    Args:
        embeddings: of the training images, not augmented, ``(N, E)``.
        labels: class of each, ``(N,)``.
        num_classes: K.

    Returns:
        Means and precision.

    Raises:
        ValueError: the shapes do not fit, a class has no image, or an embedding is not finite.

    Reference:
        K. Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial
        Attacks", NeurIPS 2018, equation 1; O. Ledoit, M. Wolf, "A well-conditioned estimator for
        large-dimensional covariance matrices", J Multivariate Analysis 2004.
    """
    points, label = np.asarray(embeddings, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if points.ndim != 2 or label.shape != points.shape[:1]:
        raise ValueError(f"labels must have shape {points.shape[:1]} for (N, E), got {label.shape}.")
    if not np.isfinite(points).all():
        raise ValueError("embeddings must be finite, got NaN or infinity.")
    counts = np.bincount(label, minlength=num_classes)
    if counts.size != num_classes or (counts == 0).any():
        raise ValueError(f"labels must hold every class of {num_classes}, got counts {counts.tolist()}.")
    means = np.stack([points[label == k].mean(axis=0) for k in range(num_classes)])  # (K, E)
    precision = LedoitWolf(assume_centered=True).fit(points - means[label]).precision_  # (E, E)
    precision = (precision + precision.T) / 2.0
    return ClassGaussians(means.astype(np.float32), precision.astype(np.float32))
