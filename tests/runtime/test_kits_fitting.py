"""A candidate is chosen by people that its members left out, and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shared_nets.engines.fusion_fitting import FittingRecipe, People
from shared_nets.nets.ckd_fusion import ckd_fusion_small
from shared_nets.runtime.kits_fitting import Variant, fit_best, predict

RECIPE = FittingRecipe(learning_rate=1e-2, max_steps=100, check_every=50)
TRUNK, GEOMETRY = (1.0, 0.0), (0.0, 1.0)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ckd_fusion_small(image_branch_is_frozen=True)


def people_whose_creatinine_is_in(network, part: str, number: int = 60) -> People:
    """Random image features; one of the trunk, or one of the geometry, is the answer."""
    features = torch.from_numpy(
        np.random.default_rng(0).uniform(-1, 1, (number, len(network.feature_weights)))
    )
    column = 0 if part == "trunk" else network.trunk_features
    target = torch.zeros(number, 5)
    target[:, 0] = 0.5 * features[:, column]
    return People(features.float(), None, torch.zeros(number), target)


@pytest.mark.parametrize(("part", "weights"), [("trunk", TRUNK), ("geometry", GEOMETRY)])
def test_the_part_of_the_image_that_holds_the_answer_is_chosen(network, part, weights):
    people = people_whose_creatinine_is_in(network, part)
    fitted, settings, facts = fit_best(
        network, people, Variant(True, None, [TRUNK, GEOMETRY]), seed=0, recipe=RECIPE
    )
    assert (settings.trunk_weight, settings.geometry_weight) == weights
    assert facts["left_out_mse"] < 0.03  # 1 / creatinine varies by about 0.3² = 0.09
    error = predict(fitted, people, uses_image=True).log_creatinine - people.target[:, 0].numpy()
    assert np.abs(error).mean() < 0.12


def test_what_is_tried_disturbs_neither_the_network_nor_what_is_chosen(network):
    people = people_whose_creatinine_is_in(network, "trunk")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    alone, among = (
        fit_best(network, people, Variant(True, None, parts), seed=0, recipe=RECIPE).network.state_dict()
        for parts in ([TRUNK], [GEOMETRY, TRUNK])
    )
    assert all(torch.equal(alone[name], among[name]) for name in alone)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_without_an_image_only_loss_and_weight_decay_are_chosen():
    _, (parts, losses, weight_decays) = Variant(False, "KITS").alternatives()
    assert (parts, losses) == ([], [{"loss": "log"}])
    assert weight_decays == [{"weight_decay": 0.3}, {"weight_decay": 3.0}]
    assert len(Variant(True, "KITS").alternatives()[1][0]) == 2
