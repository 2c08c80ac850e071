"""From the logits of a lesion network to the frozen result: a label, or the reason why none is given.

Shape letters: K classes, E embedding, H, W rows and columns of the photograph.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from shared_nets.transforms.lesion_calibration import (
    FloatArray,
    calibrated_probabilities,
    conformal_set,
    mahalanobis_score,
)
from shared_nets.types import EMPTY_PROVENANCE, Finding, LesionCalibration, LesionResult, SourceImage

STATEMENTS = (
    "The model puts every lesion into the classes named here. "
    "A low number does not rule out a malignant lesion.",
    "One photograph does not show how a lesion changes, feels or differs from the person's other lesions.",
)
#: Warnings about an image that leave no label standing, unless the configuration names others.
ABSTAIN_ON = ("IMAGE_BLURRED", "IMAGE_DARK", "IMAGE_BRIGHT", "IMAGE_NOT_SKIN", "LESION_NOT_SEEN")
#: What a reader's meta data say of an image that belongs into the provenance.
_FACTS = ("source", "study_uid", "series_uid", "sop_uids", "modality", "header")


class LesionResultd(MapTransform):
    """Build the frozen :class:`LesionResult` from the prediction and what preprocessing learned.

    Reads the prediction, and where they are there ``embedding``, ``photo`` (with the reader's meta data),
    ``image_findings``, ``metadata_used``, ``metadata_missing`` and ``metadata_findings``. Writes ``result``,
    and ``source_image`` for the writers of DICOM. Provenance of the bundle itself is filled in by the handler
    that knows it.

    Args:
        keys: key of the prediction: logits ``(K,)``; a single logit is that of the second of two classes.
        calibration: what was fitted on validation images. Without one, probabilities are the network's own,
            the prediction set is the most probable class alone, and the warning ``CALIBRATION_MISSING`` is
            given.
        class_names: of the logits, in their order.
        malignant_classes: which of them are malignant, at least one.
        calibrated_on: words for the images of the calibration: ``the validation split of DermaMNIST``.
        abstain_on: codes of warnings of reader or gate that leave no label standing.
        statements: further sentences about what the weights can and cannot show.
        thresholds: numbers that decided, for the provenance; those of the calibration are added. Where the
            calibration was made with others, the warning ``CALIBRATION_OTHER_SETTINGS`` is given.
        output_key: where to write the result.

    Raises:
        ValueError: the classes of weights, calibration and configuration do not fit each other.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        *,
        calibration: LesionCalibration | None,
        class_names: Sequence[str],
        malignant_classes: Sequence[str],
        calibrated_on: str = "the calibration images",
        abstain_on: Sequence[str] = ABSTAIN_ON,
        statements: Sequence[str] = (),
        thresholds: Mapping[str, float | str | None] | None = None,
        output_key: str = "result",
    ) -> None:
        super().__init__(keys)
        self.class_names, self.malignant_classes = tuple(class_names), tuple(malignant_classes)
        if len(set(self.class_names)) != len(self.class_names) or len(self.class_names) < 2:
            raise ValueError(f"class_names must be two or more different names, got {self.class_names}.")
        if not self.malignant_classes or not set(self.malignant_classes) <= set(self.class_names):
            raise ValueError(f"malignant_classes must be some of class_names, got {self.malignant_classes}.")
        if calibration is not None and tuple(calibration.class_names) != self.class_names:
            raise ValueError(
                f"class_names must be those of the calibration, {calibration.class_names}, "
                f"got {self.class_names}."
            )
        self.calibration = calibration
        self.abstain_on = frozenset(abstain_on)
        self.statements = (*STATEMENTS, *_calibration_statement(calibration, calibrated_on), *statements)
        self.warnings = _other_settings(calibration, thresholds or {})
        self.thresholds = {**(thresholds or {}), **_calibration_numbers(calibration)}
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the keys to a copy of ``data``."""
        d = dict(data)
        fitted = self.calibration
        logits = torch.as_tensor(d[self.first_key(d)]).detach().double().cpu().numpy()
        probabilities = calibrated_probabilities(logits, fitted.temperature if fitted else 1.0)  # (K,)
        if probabilities.shape != (len(self.class_names),):
            raise ValueError(
                f"pred must hold a logit for each of {len(self.class_names)} classes, got {logits.shape}."
            )
        by_class = {name: float(p) for name, p in zip(self.class_names, probabilities, strict=True)}
        likely = self.class_names[int(probabilities.argmax())]
        chosen = conformal_set(probabilities, _quantiles(fitted, len(self.class_names)))
        score = _ood_score(fitted, d.get("embedding"))
        meta = _meta_of(d)
        image_findings = (*_findings(meta.get("warnings")), *_findings(d.get("image_findings")))
        abstentions = (
            *_low_confidence(fitted, by_class[likely]),
            *_out_of_distribution(fitted, score),
            *_poor_image(image_findings, self.abstain_on),
        )
        warnings = (
            *image_findings,
            *_findings(d.get("metadata_findings")),
            *_calibration_warnings(fitted, score),
            *_malignant_in_set(likely, [self.class_names[k] for k in chosen], self.malignant_classes),
            *self.warnings,
        )
        d["source_image"] = _source_image(meta, d.get("photo"))
        d[self.output_key] = LesionResult(
            study_id=str(d.get("study_id", "study")),
            label=None if abstentions else likely,
            class_probabilities=by_class,
            malignancy=min(1.0, sum(by_class[name] for name in self.malignant_classes)),
            malignant_classes=self.malignant_classes,
            prediction_set=tuple(self.class_names[k] for k in chosen),
            coverage=fitted.coverage if fitted else None,
            ood_score=score,
            ood_limit=fitted.ood_limit if fitted and score is not None else None,
            abstentions=abstentions,
            metadata_used={str(name): dict(entry) for name, entry in (d.get("metadata_used") or {}).items()},
            metadata_missing=tuple(d.get("metadata_missing") or ()),
            warnings=tuple(dict.fromkeys(warnings)),
            statements=self.statements,
            provenance=replace(
                EMPTY_PROVENANCE,
                image=_image_facts(meta, d.get("photo")),
                repairs=tuple(dict.fromkeys(_findings(meta.get("repairs")))),
                thresholds=self.thresholds,
            ),
        )
        return d


def _calibration_statement(fitted: LesionCalibration | None, calibrated_on: str) -> tuple[str, ...]:
    if fitted is None:
        return ()
    always = [
        name
        for name, quantile in zip(fitted.class_names, fitted.conformal_quantiles, strict=True)
        if quantile >= 1.0
    ]
    return (
        f"Of the lesions of each class that are like those in {calibrated_on} ({fitted.num_calibration} "
        f"images), about {fitted.coverage:.0%} have their class in the set, and of those given a probability "
        "of 70% about 70 in 100 are of that class; for other lesions, cameras and people neither is known.",
        *_always_in_set(always),
    )


def _always_in_set(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (
        f"Every set holds {', '.join(names)}: there were too few images to learn when that can be left out.",
    )


def _quantiles(fitted: LesionCalibration | None, num_classes: int) -> tuple[float, ...]:
    """Give those of the calibration; without one, those at which the most probable class stands alone."""
    return fitted.conformal_quantiles if fitted else (-1.0,) * num_classes


def _calibration_numbers(fitted: LesionCalibration | None) -> dict[str, float | str | None]:
    if fitted is None:
        return {}
    names = ("temperature", "coverage", "num_calibration", "ood_limit", "min_confidence")
    quantiles = zip(fitted.class_names, fitted.conformal_quantiles, strict=True)
    return {name: getattr(fitted, name) for name in names} | {
        f"conformal_quantile_{name}": quantile for name, quantile in quantiles
    }


def _calibration_warnings(fitted: LesionCalibration | None, score: float | None) -> tuple[Finding, ...]:
    if fitted is None:
        message = (
            "No calibration is there: the probabilities are the network's own and mostly too sure, the set "
            "is the most probable class alone, and nothing checks whether the image is like those of the "
            "training."
        )
        return (Finding(code="CALIBRATION_MISSING", message=message),)
    if score is None:
        message = "It was not checked whether the image is like those that the model learned from."
        return (Finding(code="OOD_NOT_CHECKED", message=message),)
    return ()


def _other_settings(fitted: LesionCalibration | None, settings: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Say with which settings a calibration was made that are others now."""
    made_with = fitted.made_with if fitted else {}
    other = [
        f"{name} {value}, now {settings[name]}"
        for name, value in made_with.items()
        if name in settings and settings[name] != value
    ]
    if not other:
        return ()
    message = (
        f"The calibration was made with other settings ({'; '.join(other)}), so probabilities, set and "
        "limits hold less well."
    )
    return (Finding(code="CALIBRATION_OTHER_SETTINGS", message=message),)


def _ood_score(fitted: LesionCalibration | None, embedding: Any) -> float | None:
    if fitted is None or embedding is None:
        return None
    point = torch.as_tensor(embedding).detach().double().cpu().numpy()
    return mahalanobis_score(point, fitted.ood_means, fitted.ood_precision)


def _low_confidence(fitted: LesionCalibration | None, probability: float) -> tuple[Finding, ...]:
    if fitted is None or probability >= fitted.min_confidence:
        return ()
    message = (
        f"The most probable class has a probability of {probability:.1%} only; the model names a class from "
        f"{fitted.min_confidence:.1%} on."
    )
    return (Finding(code="ABSTAIN_LOW_CONFIDENCE", message=message),)


def _out_of_distribution(fitted: LesionCalibration | None, score: float | None) -> tuple[Finding, ...]:
    if fitted is None or score is None or score <= fitted.ood_limit:
        return ()
    message = (
        f"The image is unlike those that the model learned from (distance {score:.1f}, the limit is "
        f"{fitted.ood_limit:.1f}), so its numbers mean little."
    )
    return (Finding(code="ABSTAIN_OUT_OF_DISTRIBUTION", message=message),)


def _malignant_in_set(likely: str, chosen: Sequence[str], malignant: Sequence[str]) -> tuple[Finding, ...]:
    """A likely class that is benign must not hide that a malignant one cannot be left out."""
    possible = [name for name in chosen if name in malignant]
    if likely in malignant or not possible:
        return ()
    message = (
        f"The likeliest class is benign, but {', '.join(possible)} cannot be left out at the stated coverage."
    )
    return (Finding(code="MALIGNANT_IN_SET", message=message),)


def _poor_image(findings: Sequence[Finding], abstain_on: frozenset[str]) -> tuple[Finding, ...]:
    poor = [finding for finding in findings if finding.code in abstain_on]
    if not poor:
        return ()
    message = f"The image is not good enough for a label: {' '.join(finding.message for finding in poor)}"
    return (Finding(code="ABSTAIN_IMAGE_QUALITY", message=message),)


def _findings(noted: Any) -> tuple[Finding, ...]:
    """Take findings as such or as the dictionaries that meta data may hold."""
    return tuple(
        note if isinstance(note, Finding) else Finding(code=note["code"], message=note["message"])
        for note in noted or ()
    )


def _meta_of(data: Mapping[Hashable, Any]) -> Mapping[str, Any]:
    """Find what the reader said of the photograph, on it or on what was made from it."""
    for key in ("photo", "image"):
        value = data.get(key)
        if isinstance(value, MetaTensor):
            return value.meta
    return data.get("image_meta_dict") or {}


def _image_facts(meta: Mapping[str, Any], photo: Any) -> dict[str, Any]:
    facts = {name: meta[name] for name in _FACTS if meta.get(name)}
    if photo is not None:
        facts["shape"] = [int(side) for side in photo.shape[-2:]]
    return facts


def _source_image(meta: Mapping[str, Any], photo: Any) -> SourceImage:
    height, width = (0, 0) if photo is None else photo.shape[-2:]
    identity: FloatArray = np.eye(4)
    return SourceImage(
        files=tuple(meta.get("files") or ()),
        frame_numbers=tuple(meta.get("frame_numbers") or ()),
        shape=(int(width), int(height), 1),
        affine=identity,
        is_resampled=bool(meta.get("is_resampled")),
    )
