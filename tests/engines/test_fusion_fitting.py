import math

import pytest
import torch
from torch import nn

from shared_nets.engines.fusion_fitting import FittingRecipe, People, adapt_to_clinical, fit_head
from shared_nets.losses.ckd_loss import CKDLoss
from shared_nets.nets.ckd_fusion import CKDFusion

RECIPE = FittingRecipe(weight_decays=(0.3,), max_steps=60, learning_rate=1e-2)


def network(clinical_dim=4, **overrides):
    torch.manual_seed(0)
    sizes = {"embed_dim": 4, "image_features": 3, "clinical_dim": clinical_dim, "clinical_features": 4}
    return CKDFusion(backbone=nn.Identity(), num_members=5, **{**sizes, **overrides})


def people(size=120, seed=0):
    """The image tells half of log creatinine, the clinical values the other half."""
    generator = torch.Generator().manual_seed(seed)
    image, clinical = (torch.randn(size, n, generator=generator) for n in (3, 4))
    truth = 0.2 * image[:, 0] + 0.2 * clinical[:, 1] + 0.05 * torch.randn(size, generator=generator)
    target = torch.stack([0.1 + truth, *torch.zeros(2, size)], dim=1)
    return People(image, clinical, torch.full((size,), 0.1), target)


def explained(net, known, clinical=True):
    with torch.no_grad():
        out = net.fuse(
            known.image_features, known.clinical if clinical else None, known.log_creatinine_offset
        )
    truth = known.target[:, 0]
    return 1 - float((out[:, 0] - truth).square().sum() / (truth - truth.mean()).square().sum())


def test_new_people_are_predicted_from_both_branches():
    net, known = network(), people()
    adapt_to_clinical(net, known.clinical)
    fit_head(net, known, CKDLoss(), recipe=RECIPE, seed=0)
    both = explained(net, people(seed=1))
    image_only = network()
    fit_head(image_only, known._replace(clinical=None), CKDLoss(), recipe=RECIPE, seed=0)
    alone = explained(image_only, people(seed=1), clinical=False)
    assert both > 0.8
    assert 0.2 < alone < both


def test_same_seed_gives_the_same_weights():
    nets = [network(), network()]
    for net in nets:
        fit_head(net, people(), CKDLoss(), recipe=RECIPE, seed=3)
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_nothing_but_the_head_changes():
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fit_head(net, people(), CKDLoss(), recipe=RECIPE, seed=0)
    changed = {n.split(".")[0] for n, value in net.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {"head"}


def test_left_out_predictions_do_not_know_their_target():
    known = people()
    first = fit_head(
        network(), known, CKDLoss(), recipe=FittingRecipe(weight_decays=(0.3,), max_steps=10), seed=0
    )
    target = known.target.clone()
    target[0, 0] += 3.0
    recipe = FittingRecipe(weight_decays=(0.3,), max_steps=10)
    second = fit_head(network(), known._replace(target=target), CKDLoss(), recipe=recipe, seed=0)
    assert torch.equal(first.left_out_logits[0], second.left_out_logits[0])
    assert not torch.equal(first.left_out_logits[1:], second.left_out_logits[1:])


def test_the_adapter_whitens_and_keeps_the_leading_directions():
    net = network(clinical_dim=6)
    generator = torch.Generator().manual_seed(0)
    clinical = torch.randn(200, 2, generator=generator) @ torch.randn(2, 6, generator=generator) + 5.0
    adapt_to_clinical(net, clinical)
    with torch.no_grad():
        adapted = net.clinical_adapter((clinical - net.clinical_mean) / net.clinical_std)
    assert adapted.mean(dim=0).abs().max() < 1e-5
    assert adapted[:, 0].std().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(adapted[:, 2:], torch.zeros(200, 2))  # two directions hold everything


def test_bounds_are_learned_as_bounds():
    known = people()
    target = known.target.clone()
    target[:, 0], target[:, 1] = math.log(5.0), 1.0  # everyone's creatinine is at most 5
    fit = fit_head(network(), known._replace(target=target), CKDLoss(), recipe=RECIPE, seed=0)
    assert fit.left_out_loss == 0.0


def test_ordinal_stages_are_refused():
    net = network(mode="multitask", stage_head="ordinal")
    with pytest.raises(ValueError, match="stage_head must be 'softmax'"):
        fit_head(net, people(), CKDLoss(mode="multitask"), recipe=RECIPE, seed=0)
