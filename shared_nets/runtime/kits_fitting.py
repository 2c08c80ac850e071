"""Fit the CKD network to a cohort: the one way in which weights are made, for release and for evaluation.

Shape letters: N people, F clinical columns, M image features, T embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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

RECIPE = FittingRecipe(learning_rate=1e-3, max_steps=300, check_every=50)
LOSS = CKDLoss(regression_loss="smooth_l1_reciprocal", beta=0.15)
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Inputs:
    """Which inputs a model gets.

    Args:
        uses_image: whether the image branch is used.
        schema: name of the clinical schema; ``None`` for no clinical values.
        trunk_weight: weight of the trunk's image features in the head.
        geometry_weight: weight of the computed image features in the head.
    """

    uses_image: bool
    schema: str | None
    trunk_weight: float = 1.0
    geometry_weight: float = 1.0


#: What is compared: both branches, each alone, and with measured kidney shape among the clinical values.
VARIANTS: Mapping[str, Inputs] = {
    "clinical": Inputs(False, "KITS"),
    "clinical and shape": Inputs(False, "KITS_WITH_SHAPE"),
    "image": Inputs(True, None),
    "image and shape": Inputs(True, "KIDNEY_SHAPE"),
    "both": Inputs(True, "KITS"),
    "both and shape": Inputs(True, "KITS_WITH_SHAPE"),
    "image, trunk alone": Inputs(True, None, 1.0, 0.0),
    "image, geometry alone": Inputs(True, None, 0.0, 1.0),
    "both, trunk alone": Inputs(True, "KITS", 1.0, 0.0),
    "both, geometry alone": Inputs(True, "KITS", 0.0, 1.0),
    "both and shape, geometry alone": Inputs(True, "KITS_WITH_SHAPE", 0.0, 1.0),
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


def fit_network(
    network: CKDFusion, people: People, *, inputs: Inputs, seed: int, recipe: FittingRecipe = RECIPE
) -> dict[str, Any]:
    """Fit adapter, head, and residual quantiles, in place.

    Args:
        network: from :func:`new_network`.
        people: training people; their clinical embeddings are out of fold.
        inputs: which inputs the network gets.
        seed: of the fit.
        recipe: how the head is fitted.

    Returns:
        What was chosen: steps, weight decay and loss of people left out.
    """
    network.feature_weights[: network.trunk_features] = inputs.trunk_weight
    network.feature_weights[network.trunk_features :] = inputs.geometry_weight
    if people.clinical is not None:
        adapt_to_clinical(network, people.clinical)
    seen = seen_by(network, people, inputs.uses_image)
    fit = fit_head(network, seen, LOSS, recipe=recipe, seed=seed)
    observed, is_bound = people.target[:, 0], people.target[:, 1] > 0.5
    residuals = (observed - fit.left_out_logits[:, 0]).double().numpy()
    levels = np.linspace(0.0, 1.0, NUM_QUANTILES)
    quantiles = quantiles_below_bounds(residuals, is_bound.numpy(), levels)
    network.set_residual_quantiles(torch.from_numpy(np.maximum.accumulate(quantiles)).float())
    network.eval()
    return {
        "steps": fit.steps,
        "weight_decay": fit.weight_decay,
        "left_out_loss": round(fit.left_out_loss, 5),
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
