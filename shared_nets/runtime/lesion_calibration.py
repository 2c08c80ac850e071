"""Fit a lesion classifier's calibration on its validation images, and write it with a report of the fit.

Shape letters: N images, K classes, E embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine, Events
from sklearn.model_selection import KFold

from shared_nets.metrics.calibration_error import expected_calibration_error
from shared_nets.metrics.conformal_quantile import ALWAYS_IN_SET, conformal_quantiles
from shared_nets.metrics.decision_figures import answer_figures, decision_figures
from shared_nets.metrics.out_of_distribution import fit_class_gaussians
from shared_nets.metrics.selective_accuracy import confidence_for_accuracy
from shared_nets.metrics.temperature_scaling import fit_temperature
from shared_nets.refusals import InputRefused
from shared_nets.runtime.checks import CALIBRATED_WEIGHTS, file_sha256
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
IntArray = npt.NDArray[np.int64]

CALIBRATION_FILE, REPORT_FILE = "calibration.npz", "calibration.json"


class LesionOutputs:
    """Handler: keep logits, label and embedding of every image that an evaluator has seen.

    Attach it to a :class:`shared_nets.engines.study_evaluator.StudyEvaluator` whose outputs have ``pred``,
    ``label`` (a class, or a target whose first number is the class) and ``embedding``. Refused studies are
    counted and left out. A new run of the evaluator starts anew.

    Args:
        split: take only the items whose ``split`` is this; ``None`` takes all.
    """

    def __init__(self, *, split: str | None = None) -> None:
        self.split = split
        self._rows: list[tuple[FloatArray, int, FloatArray]] = []
        self.num_refused = 0

    def attach(self, engine: Engine) -> None:
        """Listen to the evaluator."""
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._take)

    def __len__(self) -> int:
        """Images kept."""
        return len(self._rows)

    def arrays(self) -> tuple[FloatArray, IntArray, FloatArray]:
        """Give logits ``(N, K)``, labels ``(N,)`` and embeddings ``(N, E)``, in the order seen.

        Raises:
            ValueError: no image was seen.
        """
        if not self._rows:
            of_split = "" if self.split is None else f" of the split {self.split}"
            raise ValueError(f"the evaluator must have seen images{of_split}, got none.")
        logits, labels, embeddings = zip(*self._rows, strict=True)
        return np.stack(logits), np.array(labels, dtype=np.int64), np.stack(embeddings)

    def _reset(self, engine: Engine) -> None:
        self._rows, self.num_refused = [], 0

    def _take(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        outputs: Any = engine.state.output
        for item, output in zip(batch, outputs, strict=True):
            if self.split is not None and item.get("split") != self.split:
                continue
            if isinstance(output.get("refusal"), InputRefused):
                self.num_refused += 1
                continue
            missing = {"pred", "label", "embedding"} - set(output)
            if missing:
                raise ValueError(f"output must hold pred, label and embedding, lacks {sorted(missing)}.")
            label = int(torch.as_tensor(output["label"]).reshape(-1)[0])
            self._rows.append((_vector(output, "pred"), label, _vector(output, "embedding")))


class Calibrator:
    """Handler: fit everything on the outputs of one evaluator over the training and validation images.

    The class means of embeddings are of the training images, not augmented; all else is fitted on the
    validation images. When the evaluator has ended, ``calibration.npz`` and the report ``calibration.json``
    are written; the same images and weights give the same bytes.

    One parameter, the temperature, is fitted to the very labels that the quantiles are. That bends the
    exchangeability behind the coverage a little; the coverage on test images shows how little.

    Args:
        class_names: of the logits, in their order.
        malignant_classes: which of them are malignant, for the report.
        output_dir: folder for the two files; ``None`` writes none.
        ckpt_path: the weights, which the calibration is bound to; ``None`` leaves it unbound.
        made_with: settings that the calibration holds for, by their name in the configuration.
        coverage: share of the images of each class whose prediction sets should hold it.
        accuracy: share of right answers wanted among the images on which the model does not abstain.
        ood_percentile: share of the validation images, in percent, that lie within the limit of distance.
        num_folds: folds of the cross-fitting in the report.
        splits: names of the training and of the validation images: ``split`` of their items.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        malignant_classes: Sequence[str],
        output_dir: str | Path | None = None,
        ckpt_path: str | Path | None = None,
        made_with: Mapping[str, str | float | bool | None] | None = None,
        coverage: float = 0.9,
        accuracy: float = 0.9,
        ood_percentile: float = 99.0,
        num_folds: int = 10,
        splits: tuple[str, str] = ("training", "validation"),
    ) -> None:
        self.class_names = tuple(class_names)
        self.malignant = [self.class_names.index(name) for name in malignant_classes]
        self.output_dir = Path(output_dir) if output_dir is not None else None
        self.ckpt_path = Path(ckpt_path) if ckpt_path is not None else None
        self.made_with = dict(made_with or {})
        self.coverage, self.accuracy, self.ood_percentile = coverage, accuracy, ood_percentile
        self.num_folds = num_folds
        self.training, self.validation = (LesionOutputs(split=split) for split in splits)

    def attach(self, engine: Engine) -> None:
        """Listen to the evaluator."""
        self.training.attach(engine)
        self.validation.attach(engine)
        engine.add_event_handler(Events.COMPLETED, self._completed)

    def fit(self) -> tuple[LesionCalibration, dict[str, Any]]:
        """Fit temperature, quantiles, distances and limits.

        Returns:
            The calibration, and its report: likelihood and calibration error without and with the temperature
            on the validation images it was fitted on; the quantile of each class with its number of images,
            and which classes are in every set; and, as ``cross_fitted``, what it does to images it was not
            fitted on: in turn, everything is fitted without a fold of the validation images and judged on it.
            The coverage there is near the promised one by construction of the quantiles; only other images,
            such as the test split, show more.

        Raises:
            ValueError: the evaluator has not run, the classes do not fit, or a fit has no answer.
        """
        raw, learned_labels, learned = self.training.arrays()
        if (num_classes := class_logits(raw).shape[1]) != len(self.class_names):
            raise ValueError(f"class_names must be {num_classes} names, got {len(self.class_names)}.")
        means, precision = fit_class_gaussians(learned, learned_labels, num_classes=len(self.class_names))
        raw, labels, embeddings = self.validation.arrays()
        distances = np.array([mahalanobis_score(embedding, means, precision) for embedding in embeddings])
        seen = _Seen(class_logits(raw), labels, distances)
        part = self._part(seen)
        bound = {} if self.ckpt_path is None else {CALIBRATED_WEIGHTS: file_sha256(self.ckpt_path)}
        calibration = LesionCalibration(
            temperature=part.temperature,
            conformal_quantiles=part.quantiles,
            coverage=self.coverage,
            num_calibration=int(seen.labels.size),
            ood_means=means,
            ood_precision=precision,
            ood_limit=part.ood_limit,
            min_confidence=part.min_confidence,
            class_names=self.class_names,
            made_with={**bound, **self.made_with},
        )
        return calibration, self._report(seen, part)

    def _completed(self, engine: Engine) -> None:
        calibration, report = self.fit()
        logger.info("calibrated: %s", report)
        if self.output_dir is not None:
            write_atomically(self.output_dir / REPORT_FILE, to_json_bytes(report))
            write_atomically(self.output_dir / CALIBRATION_FILE, calibration_bytes(calibration))

    def _part(self, seen: _Seen) -> _Part:
        """Fit what is fitted on validation images."""
        temperature, _, _ = fit_temperature(seen.logits, seen.labels)
        p = calibrated_probabilities(seen.logits, temperature)  # (N, K)
        return _Part(
            temperature=temperature,
            quantiles=conformal_quantiles(
                1.0 - p[np.arange(seen.labels.size), seen.labels], seen.labels,
                num_classes=len(self.class_names), coverage=self.coverage,
            ),
            min_confidence=confidence_for_accuracy(
                p.max(axis=1), p.argmax(axis=1) == seen.labels, accuracy=self.accuracy
            ),
            ood_limit=float(np.percentile(seen.distances, self.ood_percentile, method="higher")),
        )  # fmt: skip

    def _report(self, seen: _Seen, part: _Part) -> dict[str, Any]:
        counts = np.bincount(seen.labels, minlength=len(self.class_names)).tolist()
        quantiles = dict(zip(self.class_names, part.quantiles, strict=True))
        _, nll_before, nll_after = fit_temperature(seen.logits, seen.labels)
        return {
            "num_training": len(self.training),
            "num_calibration": int(seen.labels.size),
            "num_calibration_by_class": dict(zip(self.class_names, counts, strict=True)),
            "num_refused": self.training.num_refused + self.validation.num_refused,
            "made_with": self.made_with,
            "temperature": part.temperature,
            "nll_before": nll_before,
            "nll_after": nll_after,
            "ece_before": _ece(seen, 1.0),
            "ece_after": _ece(seen, part.temperature),
            "coverage": self.coverage,
            "conformal_quantiles": quantiles,
            "always_in_set": [name for name, q in quantiles.items() if q >= ALWAYS_IN_SET],
            "accuracy_wanted": self.accuracy,
            "min_confidence": part.min_confidence,
            "ood_percentile": self.ood_percentile,
            "ood_limit": part.ood_limit,
            "cross_fitted": self._cross_fitted(seen),
        }

    def _cross_fitted(self, seen: _Seen) -> dict[str, float | None]:
        """Judge each fold of the validation images by what is fitted on the others."""
        num = seen.labels.size
        p, in_set = np.zeros_like(seen.logits), np.zeros(seen.logits.shape, dtype=bool)
        is_beyond, is_unsure = np.zeros(num, dtype=bool), np.zeros(num, dtype=bool)
        for others, fold in KFold(self.num_folds, shuffle=True, random_state=0).split(seen.labels):
            part = self._part(_Seen(*(values[others] for values in seen)))
            p[fold] = calibrated_probabilities(seen.logits[fold], part.temperature)
            for n in fold:
                in_set[n, list(conformal_set(p[n], part.quantiles))] = True
            is_beyond[fold] = seen.distances[fold] > part.ood_limit
            is_unsure[fold] = p[fold].max(axis=1) < part.min_confidence
        is_silent = is_beyond | is_unsure
        figures = answer_figures(
            is_beyond=is_beyond, is_abstained=is_silent, reasons={"low_confidence": is_unsure}
        ) | decision_figures(
            labels=seen.labels, likely=p.argmax(axis=1), in_set=in_set, is_abstained=is_silent,
            class_names=self.class_names, malignant=self.malignant,
        )  # fmt: skip
        is_right = p.argmax(axis=1) == seen.labels
        values = {
            "nll": float(-np.log(p[np.arange(num), seen.labels]).mean()),
            "ece": expected_calibration_error(p.max(axis=1), is_right),
            **{name: figure(np.ones(num)) for name, figure in figures.items()},
        }
        return {name: None if np.isnan(value) else value for name, value in values.items()}


class _Seen(NamedTuple):
    """Validation images: logits ``(N, K)``, labels ``(N,)``, distances from the nearest class ``(N,)``."""

    logits: FloatArray
    labels: IntArray
    distances: FloatArray


class _Part(NamedTuple):
    """What of a calibration is fitted on validation images."""

    temperature: float
    quantiles: tuple[float, ...]
    min_confidence: float
    ood_limit: float


def _ece(seen: _Seen, temperature: float) -> float:
    p = calibrated_probabilities(seen.logits, temperature)
    return expected_calibration_error(p.max(axis=1), p.argmax(axis=1) == seen.labels)


def _vector(output: Mapping[str, Any], key: str) -> FloatArray:
    return torch.as_tensor(output[key]).detach().double().cpu().reshape(-1).numpy()
