"""Shapes of the data that travels between the parts: items, and the frozen results that writers read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from shared_nets.refusals import InputRefused

RESEARCH_USE_ONLY = "Research use only. Not a medical device. Not for diagnosis or treatment."


class CKDStudy(TypedDict, total=False):
    """One study as a datalist names it, before anything is read.

    Keys: ``study_id`` names the output folder; ``image`` path of a CT series or volume; ``mask`` path of a
    kidney mask; ``clinical`` path of a JSON or CSV file, or the values themselves; where the answer is known
    ``egfr_ml_min`` (mL/min/1.73 m²) and ``egfr_is_lower_bound``.
    """

    study_id: str
    image: Any
    mask: Any
    clinical: Any
    egfr_ml_min: float
    egfr_is_lower_bound: bool


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A warning or a repair: a stable code and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its unit and its prediction interval.

    Args:
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        level: share of people whose true value the interval should hold, 0 to 1.
        unit: UCUM unit.
    """

    value: float
    low: float
    high: float
    level: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class KidneySlices:
    """Which slices the network saw, and how much kidney they show.

    Args:
        indices: slice numbers along the volume's slice axis, one a network slice.
        positions_mm: where they lie along the slice normal, mm, in the coordinates of the scanner.
        is_valid: false where a short study repeats a slice.
        areas_mm2: kidney cross-section of each, mm².
        num_kidney_slices: slices of the volume that show kidney at all.
        sop_instance_uids: of the slices, where the source is DICOM.
    """

    indices: tuple[int, ...]
    positions_mm: tuple[float, ...]
    is_valid: tuple[bool, ...]
    areas_mm2: tuple[float, ...]
    num_kidney_slices: int
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a result comes from, enough to make it again.

    Args:
        bundle: name of the bundle.
        bundle_version: its version.
        config_sha256: sha256 of the configuration as it was run, paths of the study left out.
        weights_sha256: sha256 of every weight file, by its name.
        packages: version of every library that takes part.
        image: source kind, UIDs, shape and spacing of the image; empty without one.
        mask: source and label set of the mask.
        repairs: what the readers repaired.
        thresholds: numbers that decide, by name.
    """

    bundle: str
    bundle_version: str
    config_sha256: str
    weights_sha256: dict[str, str]
    packages: dict[str, str]
    image: dict[str, Any]
    mask: dict[str, Any]
    repairs: tuple[Finding, ...]
    thresholds: dict[str, float | str | None]


#: What a transform starts from; the handler fills in the bundle's part.
EMPTY_PROVENANCE = Provenance(
    bundle="",
    bundle_version="",
    config_sha256="",
    weights_sha256={},
    packages={},
    image={},
    mask={},
    repairs=(),
    thresholds={},
)


@dataclass(frozen=True, kw_only=True)
class CKDResult:
    """What the CKD bundle says of one study; every form (JSON, picture) is written from this.

    Args:
        study_id: name of the study.
        creatinine: baseline serum creatinine, mg/dL; ``None`` from a network that only classifies.
        egfr: CKD-EPI 2021, mL/min/1.73 m²; ``None`` likewise.
        stage: KDIGO G stage of the estimate.
        stage_probabilities: probability of each KDIGO G stage; they add up to 1.
        slices: the slices used.
        clinical_used: clinical value by name, each ``{"value", "unit", "source"}``.
        clinical_missing: names of the schema that nobody supplied.
        kidney_measurements: sizes measured from the mask, by name with their unit; inputs only where
            ``clinical_used`` names them too.
        warnings: what a reader of the result must know.
        statements: what no result of this kind can show.
        provenance: where it comes from.
    """

    study_id: str
    creatinine: Estimate | None
    egfr: Estimate | None
    stage: str
    stage_probabilities: dict[str, float]
    slices: KidneySlices
    clinical_used: dict[str, dict[str, Any]]
    clinical_missing: tuple[str, ...]
    kidney_measurements: dict[str, float]
    warnings: tuple[Finding, ...]
    statements: tuple[str, ...]
    provenance: Provenance
    notice: str = RESEARCH_USE_ONLY


@dataclass(frozen=True, kw_only=True)
class KidneyMeasurement:
    """One kidney of a mask.

    Args:
        volume_ml: volume, mL; of the visible part where the kidney is cut off.
        length_mm: longest extent, mm; likewise.
        mean_hu: mean density, HU; ``None`` without a CT.
        is_cut_off: whether it reaches the edge of the scan.
    """

    volume_ml: float
    length_mm: float
    mean_hu: float | None
    is_cut_off: bool


@dataclass(frozen=True, kw_only=True)
class KidneyResult:
    """What the kidney segmentation says of one study.

    Args:
        study_id: name of the study.
        kidneys: by ``"right"`` and ``"left"``; a kidney that was not found is left out.
        total_volume_ml: of all kidneys found, mL.
        warnings: what a reader of the result must know.
        statements: what no result of this kind can show.
        provenance: where it comes from.
    """

    study_id: str
    kidneys: dict[str, KidneyMeasurement]
    total_volume_ml: float
    warnings: tuple[Finding, ...]
    statements: tuple[str, ...]
    provenance: Provenance
    notice: str = RESEARCH_USE_ONLY


@dataclass(frozen=True, kw_only=True)
class LesionResult:
    """What the skin lesion bundle says of one photograph.

    Args:
        study_id: name of the study.
        label: the most probable class; ``None`` where the model abstains.
        class_probabilities: probability of each class, in the order of the network; they add up to 1.
        malignancy: probability of all malignant classes together.
        malignant_classes: which classes those are.
        prediction_set: conformal set of classes, falling in probability, never empty.
        coverage: share of the lesions of each class, like those of the calibration, whose class such a set
            holds; ``None`` without a calibration.
        ood_score: squared distance of the embedding from the nearest class; ``None`` where it is not known.
        ood_limit: score above which an image counts as unlike the training images; ``None`` likewise.
        abstentions: why no label is given; empty where there is one.
        metadata_used: metadata by name, each ``{"value", "unit", "source"}``.
        metadata_missing: names of the schema that nobody supplied.
        warnings: what a reader of the result must know.
        statements: what no result of this kind can show.
        provenance: where it comes from.
    """

    study_id: str
    label: str | None
    class_probabilities: dict[str, float]
    malignancy: float
    malignant_classes: tuple[str, ...]
    prediction_set: tuple[str, ...]
    coverage: float | None
    ood_score: float | None
    ood_limit: float | None
    abstentions: tuple[Finding, ...]
    metadata_used: dict[str, dict[str, Any]]
    metadata_missing: tuple[str, ...]
    warnings: tuple[Finding, ...]
    statements: tuple[str, ...]
    provenance: Provenance
    notice: str = RESEARCH_USE_ONLY


#: What a run can end in. All have ``study_id, warnings, statements, provenance, notice``.
StudyResult = CKDResult | KidneyResult | LesionResult


@dataclass(frozen=True, kw_only=True, eq=False)
class LesionCalibration:
    """What was fitted on validation images so that a lesion classifier says how sure it is.

    Shape letters: K classes, E embedding.

    Args:
        temperature: logits are divided by it before the softmax.
        conformal_quantiles: of each class, K of them; a class whose conformal score is at most its own is in
            the prediction set, so that one at 1 always is.
        coverage: share of the images of each class whose set should hold that class, 0 to 1.
        num_calibration: validation images that all of this was fitted on.
        ood_means: mean embedding of each class over the training images, ``(K, E)`` float32.
        ood_precision: inverse of the covariance that the classes share, ``(E, E)`` float32, symmetric.
        ood_limit: squared distance beyond which an image is unlike the training images.
        min_confidence: calibrated probability of the most probable class below which the model abstains.
        class_names: in the order of the logits, K of them.
        made_with: settings that it holds for, by their name in the configuration, and ``weights_sha256``.
    """

    temperature: float
    conformal_quantiles: tuple[float, ...]
    coverage: float
    num_calibration: int
    ood_means: npt.NDArray[np.float32]
    ood_precision: npt.NDArray[np.float32]
    ood_limit: float
    min_confidence: float
    class_names: tuple[str, ...]
    made_with: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """The image that a result was computed from, as far as files written beside the result must know it.

    Nothing here names a person: a writer that must carry names over reads them from ``files`` itself.

    Args:
        files: DICOM file of each slice along the third axis (one file several times when it is multi-frame);
            empty where the source is not DICOM.
        frame_numbers: number of each slice within its file, from 1; as long as ``files``.
        shape: voxels, I, J, K.
        affine: voxel index → RAS mm, ``(4, 4)``.
        is_resampled: whether the grid is not that of the files (a tilted gantry was straightened).
    """

    files: tuple[str, ...]
    frame_numbers: tuple[int, ...]
    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    is_resampled: bool = False

    @property
    def is_dicom(self) -> bool:
        """Whether DICOM objects that refer to the source can be written."""
        return bool(self.files)


@dataclass(frozen=True, kw_only=True)
class KidneyMask:
    """The kidneys that a result was computed from, on the grid of the source image, cut to their box.

    Args:
        labels: 1 right kidney, 2 left kidney, 3 a kidney whose side cannot be told, ``(H, W, D)`` uint8.
        offset: where the box starts in the whole grid, in voxels.
        shape: voxels of the whole grid, I, J, K.
        affine: voxel index of the whole grid → RAS mm, ``(4, 4)``.
        made_by: ``automatic`` where this software drew it, ``supplied`` where it came with the study.
        algorithm_name: name of what drew it; empty for the bundle that the result is of.
        algorithm_version: its version; empty where nobody knows.
    """

    labels: npt.NDArray[np.uint8]
    offset: tuple[int, int, int]
    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    made_by: Literal["automatic", "supplied"]
    algorithm_name: str
    algorithm_version: str

    def whole(self) -> npt.NDArray[np.uint8]:
        """Give the labels on the whole grid, ``(I, J, K)``."""
        out = np.zeros(self.shape, dtype=np.uint8)
        box = tuple(slice(o, o + n) for o, n in zip(self.offset, self.labels.shape, strict=True))
        out[box] = self.labels
        return out


#: Names of the numbers of :class:`KidneyMask`.
KIDNEY_SIDES: dict[int, str] = {1: "right kidney", 2: "left kidney", 3: "kidney, side unknown"}


@dataclass(frozen=True, kw_only=True)
class StudyOutcome:
    """The end of one study: a result with its files, or a refusal with its file; never both.

    Args:
        study_id: name of the study.
        result: the result; ``None`` when the study was refused.
        refusal: why it was refused; ``None`` when there is a result.
        files: what was written, by kind.
    """

    study_id: str
    result: StudyResult | None
    refusal: InputRefused | None
    files: dict[str, str]
