"""Fit the CKD network to a cohort: the one way in which weights are made, for release and for evaluation.

What a model is given and how it learns is chosen inside the training people, by those that the members of the
head leave out: whoever is tested has no say in it.

Shape letters: N people, F clinical columns, M image features, T embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shared_nets.engines.fusion_fitting import FittingRecipe, People, adapt_to_clinical, fit_head
from shared_nets.losses.ckd_loss import CKDLoss
from shared_nets.metrics.censored_quantiles import quantiles_below_bounds
from shared_nets.nets.ckd_fusion import NUM_QUANTILES, CKDFusion, ckd_fusion_small

RECIPE = FittingRecipe(learning_rate=1e-3, max_steps=200, check_every=50)
#: Losses to choose from: errors count as they do in log creatinine, or as they do in eGFR.
LOSSES: Mapping[str, CKDLoss] = {
    "log": CKDLoss(regression_loss="smooth_l1_log", beta=0.15),
    "reciprocal": CKDLoss(regression_loss="smooth_l1_reciprocal", beta=0.15),
}
FloatArray = npt.NDArray[np.float64]


WEIGHT_DECAYS = (1.0, 0.3, 3.0)
#: Weights of trunk and geometry in the head.
IMAGE_PARTS = ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0))


@dataclass(frozen=True)
class Settings:
    """What a model is given, and how it learns.

    Args:
        uses_image: whether the image branch is used.
        schema: name of the clinical schema; ``None`` for no clinical values.
        trunk_weight: weight of the trunk's image features in the head.
        geometry_weight: weight of the computed image features in the head.
        loss: one of :data:`LOSSES`.
        weight_decay: of AdamW.
    """

    uses_image: bool
    schema: str | None
    trunk_weight: float = 1.0
    geometry_weight: float = 1.0
    loss: str = "reciprocal"
    weight_decay: float = WEIGHT_DECAYS[0]


@dataclass(frozen=True)
class Variant:
    """What is compared: inputs that are fixed, and parts of the image branch that are chosen from.

    Args:
        uses_image: whether the image branch is used.
        schema: name of the clinical schema; ``None`` for no clinical values.
        image_parts: weights of trunk and geometry to choose from.
    """

    uses_image: bool
    schema: str | None
    image_parts: Sequence[tuple[float, float]] = IMAGE_PARTS

    def alternatives(self) -> tuple[Settings, Sequence[Sequence[dict[str, Any]]]]:
        """Give the settings to start from, and what is then tried, one setting after the other."""
        first, *others = self.image_parts if self.uses_image else IMAGE_PARTS[:1]
        start = Settings(self.uses_image, self.schema, *first)
        return start, (
            [{"trunk_weight": trunk, "geometry_weight": geometry} for trunk, geometry in others],
            [{"loss": loss} for loss in LOSSES if loss != start.loss],
            [{"weight_decay": weight_decay} for weight_decay in WEIGHT_DECAYS[1:]],
        )


#: Both branches, each alone, and with measured kidney shape among the clinical values; then parts of the
#: image branch by themselves.
VARIANTS: dict[str, Variant] = {
    "clinical": Variant(False, "KITS"),
    "clinical and shape": Variant(False, "KITS_WITH_SHAPE"),
    "image": Variant(True, None),
    "image and shape": Variant(True, "KIDNEY_SHAPE"),
    "both": Variant(True, "KITS"),
    "both and shape": Variant(True, "KITS_WITH_SHAPE"),
    "both, trunk alone": Variant(True, "KITS", [(1.0, 0.0)]),
    "both, geometry alone": Variant(True, "KITS", [(0.0, 1.0)]),
    "both, trunk and geometry": Variant(True, "KITS", [(1.0, 1.0)]),
}


class Prediction(NamedTuple):
    """Log creatinine of people, and the ends of their 90 % interval, ``(n,)`` each."""

    log_creatinine: FloatArray
    log_low: FloatArray
    log_high: FloatArray


def new_network(image_branch: str | Path | Mapping[str, Tensor], seed: int = 0) -> CKDFusion:
    """Build the embedded network with a pretrained image branch, which stays as it is.

    Args:
        image_branch: weights that ``tools.pretrain_kidney_trunk`` wrote, or their path.
        seed: of the rest.

    Returns:
        The network.

    Raises:
        ValueError: the weights are not those of the image branch.
    """
    weights = (
        torch.load(image_branch, weights_only=True) if isinstance(image_branch, str | Path) else image_branch
    )
    torch.manual_seed(seed)
    network = ckd_fusion_small(image_branch_is_frozen=True)
    missing, unexpected = network.load_state_dict(dict(weights), strict=False)
    left = [
        k
        for k in missing
        if k.startswith(("backbone.", "slice_projection.", "position_", "image_adapter.", "geometry."))
    ]
    if left or unexpected:
        raise ValueError(
            f"image_branch must hold the image branch, got missing {left}, unknown {unexpected}."
        )
    return network


def scaled_features(network: CKDFusion, trunk: Tensor, measures: Tensor, train: Tensor) -> Tensor:
    """Rank the measures of everyone among the training people, whom the network's geometry keeps.

    Args:
        network: network with a geometry; its scale is set.
        trunk: the trunk's image features of everyone, ``(N, M)``.
        measures: the geometry's measures of everyone, ``(N, G)``.
        train: indices of the training people.

    Returns:
        Image features, ``(N, M + G)``.
    """
    if network.geometry is None:
        raise ValueError("network must have a geometry, got none.")
    network.geometry.set_knots(measures[train])
    return torch.cat([trunk, network.geometry.ranks(measures)], dim=1)


class BestFit(NamedTuple):
    """The fit that was chosen: the network, its settings, and what :func:`fit_network` says of it."""

    network: CKDFusion
    settings: Settings
    facts: dict[str, Any]


def fit_best(
    network: CKDFusion, people: People, variant: Variant, *, seed: int, recipe: FittingRecipe | None = None
) -> BestFit:
    """Choose the settings by which left-out people are predicted best: one setting after the other.

    Args:
        network: from :func:`new_network`; it stays as it is.
        people: training people; their clinical embeddings are out of fold.
        variant: what to choose from.
        seed: of the fits.
        recipe: how a head is fitted; :data:`RECIPE` by default.

    Returns:
        The chosen fit.
    """

    def fit(settings: Settings) -> BestFit:
        fitted = copy.deepcopy(network)
        facts = fit_network(fitted, people, settings=settings, seed=seed, recipe=recipe or RECIPE)
        return BestFit(fitted, settings, facts)

    start, steps = variant.alternatives()
    best = fit(start)
    for changes in steps:
        tried = [best, *(fit(replace(best.settings, **change)) for change in changes)]
        best = min(tried, key=lambda one: one.facts["left_out_mse"])
    return best


def fit_network(
    network: CKDFusion, people: People, *, settings: Settings, seed: int, recipe: FittingRecipe
) -> dict[str, Any]:
    """Fit adapter, head, and residual quantiles, in place.

    Args:
        network: from :func:`new_network`.
        people: training people; their clinical embeddings are out of fold.
        settings: what the network gets, and how it learns.
        seed: of the fit.
        recipe: how the head is fitted.

    Returns:
        The number of steps that was chosen, and the mean square error of left-out people, 1 / creatinine,
        (dL/mg)²: it runs nearly straight with eGFR, and is the same scale for every loss.
    """
    network.feature_weights[: network.trunk_features] = settings.trunk_weight
    network.feature_weights[network.trunk_features :] = settings.geometry_weight
    if people.clinical is not None:
        adapt_to_clinical(network, people.clinical)
    seen = seen_by(network, people, settings.uses_image)
    recipe = replace(recipe, weight_decays=(settings.weight_decay,))
    fit = fit_head(network, seen, LOSSES[settings.loss], recipe=recipe, seed=seed)
    observed, is_bound = people.target[:, 0], people.target[:, 1] > 0.5
    predicted = fit.left_out_logits[:, 0]
    residuals = (observed - predicted).double().numpy()
    levels = np.linspace(0.0, 1.0, NUM_QUANTILES)
    quantiles = quantiles_below_bounds(residuals, is_bound.numpy(), levels)
    network.set_residual_quantiles(torch.from_numpy(np.maximum.accumulate(quantiles)).float())
    network.eval()
    at_most = torch.where(is_bound, torch.maximum(predicted, observed), predicted)  # below a bound is right
    return {
        "steps": fit.steps,
        "left_out_mse": float((torch.exp(-at_most) - torch.exp(-observed)).square().mean()),
    }


def predict(network: CKDFusion, people: People, *, uses_image: bool) -> Prediction:
    """Predict people from their vectors.

    Args:
        network: fitted network.
        people: people; their targets are not used.
        uses_image: as in the fit.

    Returns:
        The prediction.
    """
    network.eval()
    seen = seen_by(network, people, uses_image)
    with torch.no_grad():
        logits = network.fuse(seen.image_features, seen.clinical, seen.log_creatinine_offset)
        interval = network.predict_interval(logits)
    return Prediction(*(part.double().numpy() for part in interval))


def seen_by(network: CKDFusion, people: People, uses_image: bool) -> People:
    """Give people as a model without an image sees them."""
    if uses_image:
        return people
    nothing = network.null_image.detach().expand(len(people.target), -1)
    return people._replace(image_features=nothing)
