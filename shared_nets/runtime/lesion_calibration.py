"""Fit a lesion classifier's calibration on its validation images, and write it beside the weights.

Shape letters: N images, K classes, E embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine, Events

from shared_nets.metrics.calibration_error import expected_calibration_error
from shared_nets.metrics.conformal_quantile import conformal_quantile
from shared_nets.metrics.out_of_distribution import fit_class_gaussians
from shared_nets.metrics.selective_accuracy import confidence_for_accuracy
from shared_nets.metrics.temperature_scaling import fit_temperature
from shared_nets.refusals import InputRefused
from shared_nets.transforms.calibration_file import calibration_bytes
from shared_nets.transforms.lesion_calibration import (
    calibrated_probabilities,
    class_logits,
    conformal_set,
    mahalanobis_score,
)
from shared_nets.types import LesionCalibration
from shared_nets.writers.atomic_file import write_atomically
from shared_nets.writers.result_json import to_json_bytes

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]


class LesionOutputs:
    """Handler: keep logits, label and embedding of every image that an evaluator has seen.

    Attach it to an evaluator whose output is a list of dictionaries (:class:`StudyEvaluator`, or MONAI's with
    ``decollate``) with ``pred``, ``label`` (a class, or a target whose first number is the class) and
    ``embedding``. Refused studies are counted and left out. A new run of the evaluator starts anew.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[FloatArray, int, FloatArray]] = []
        self.num_refused = 0

    def attach(self, engine: Engine) -> None:
        """Listen to the evaluator."""
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._take)

    def __len__(self) -> int:
        """Images kept."""
        return len(self._rows)

    def arrays(self) -> tuple[FloatArray, npt.NDArray[np.int64], FloatArray]:
        """Give logits ``(N, K)``, labels ``(N,)`` and embeddings ``(N, E)``, in the order seen.

        Raises:
            ValueError: no image was seen.
        """
        if not self._rows:
            raise ValueError("the evaluator must be run before a calibration is fitted, got no image.")
        logits, labels, embeddings = zip(*self._rows, strict=True)
        return np.stack(logits), np.array(labels, dtype=np.int64), np.stack(embeddings)

    def _reset(self, engine: Engine) -> None:
        self._rows, self.num_refused = [], 0

    def _take(self, engine: Engine) -> None:
        outputs: Any = engine.state.output
        for output in outputs:
            if isinstance(output.get("refusal"), InputRefused):
                self.num_refused += 1
                continue
            missing = {"pred", "label", "embedding"} - set(output)
            if missing:
                raise ValueError(f"output must hold pred, label and embedding, lacks {sorted(missing)}.")
            label = int(torch.as_tensor(output["label"]).reshape(-1)[0])
            self._rows.append((_vector(output, "pred"), label, _vector(output, "embedding")))


class Calibrator(LesionOutputs):
    """Handler of the evaluator over the validation images; :meth:`write` fits everything once it has run.

    One parameter is fitted to the validation labels before the quantile is (the temperature). That bends the
    exchangeability behind the coverage a little; the coverage on test images shows how little.

    Args:
        class_names: of the logits, in their order.
        training: the images that the network learned from, as another evaluator has seen them without
            augmentation.
        coverage: share of images whose true class the prediction sets should hold.
        accuracy: share of right answers wanted among the images on which the model does not abstain.
        ood_percentile: share of the validation images, in percent, that lie within the limit of distance.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        training: LesionOutputs,
        coverage: float = 0.9,
        accuracy: float = 0.9,
        ood_percentile: float = 99.0,
    ) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.training = training
        self.coverage = coverage
        self.accuracy = accuracy
        self.ood_percentile = ood_percentile

    def fit(self) -> tuple[LesionCalibration, dict[str, float]]:
        """Fit temperature, quantile, distances and limits.

        Returns:
            The calibration, and figures of the fit on the same validation images: likelihood and calibration
            error without and with the temperature, size of the sets, share of images that keep an answer.

        Raises:
            ValueError: an evaluator has not run, the classes do not fit, or a fit has no answer.
        """
        raw, labels, embeddings = self.arrays()
        logits = class_logits(raw)  # (N, K)
        if logits.shape[1] != len(self.class_names):
            raise ValueError(f"class_names must be {logits.shape[1]} names, got {len(self.class_names)}.")
        temperature, nll_before, nll_after = fit_temperature(logits, labels)
        probabilities = calibrated_probabilities(logits, temperature)  # (N, K)
        plain = calibrated_probabilities(logits, 1.0)
        confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        quantile = conformal_quantile(
            1.0 - probabilities[np.arange(labels.size), labels], coverage=self.coverage
        )
        _, learned_labels, learned = self.training.arrays()
        means, precision = fit_class_gaussians(learned, learned_labels, num_classes=len(self.class_names))
        distances = [mahalanobis_score(embedding, means, precision) for embedding in embeddings]
        min_confidence = confidence_for_accuracy(confidence, is_right, accuracy=self.accuracy)
        calibration = LesionCalibration(
            temperature=temperature,
            conformal_quantile=quantile,
            coverage=self.coverage,
            num_calibration=int(labels.size),
            ood_means=means,
            ood_precision=precision,
            ood_limit=float(np.percentile(distances, self.ood_percentile, method="higher")),
            min_confidence=min_confidence,
            class_names=self.class_names,
        )
        figures = {
            "temperature": temperature,
            "nll_before": nll_before,
            "nll_after": nll_after,
            "ece_before": expected_calibration_error(plain.max(axis=1), is_right),
            "ece_after": expected_calibration_error(confidence, is_right),
            "mean_set_size": float(np.mean([len(conformal_set(p, quantile)) for p in probabilities])),
            "kept_share": float(np.mean(confidence >= min_confidence)),
            "kept_accuracy": float(np.mean(is_right[confidence >= min_confidence])),
            "num_calibration": float(labels.size),
            "num_training": float(learned_labels.size),
            "num_refused": float(self.num_refused),
        }
        return calibration, figures

    def write(self, path: str | Path, report_path: str | Path | None = None) -> Path:
        """Fit, and write the calibration; the same images and weights give the same bytes.

        Args:
            path: of the ``.npz`` file.
            report_path: of a JSON file for the figures of the fit; ``None`` writes none.

        Returns:
            ``path``.

        Raises:
            ValueError: see :meth:`fit`.
        """
        calibration, figures = self.fit()
        logger.info("calibrated on %d images: %s", calibration.num_calibration, figures)
        if report_path is not None:
            write_atomically(report_path, to_json_bytes(figures))
        return write_atomically(path, calibration_bytes(calibration))


def _vector(output: Mapping[str, Any], key: str) -> FloatArray:
    return torch.as_tensor(output[key]).detach().double().cpu().reshape(-1).numpy()
