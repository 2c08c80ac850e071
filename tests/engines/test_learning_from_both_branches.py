"""People whose kidney volume and age tell their eGFR: each branch must learn, and both together no less."""

import numpy as np
import pytest
import torch

from shared_nets.engines.fusion_fitting import FittingRecipe, People, adapt_to_clinical, fit_head
from shared_nets.losses.ckd_loss import CKDLoss
from shared_nets.nets.ckd_fusion import ckd_fusion_small
from shared_nets.transforms.ckd_epi import creatinine_from_egfr, egfr_from_creatinine, stage_index

SLICES, SIZE, MM = 8, 64, 5.0
NUM_TRAIN = 90
RECIPE = FittingRecipe(weight_decays=(1.0,), max_steps=80)


def ellipsoid_slices(scale):
    """Two ellipsoid kidneys, ``scale`` times 25 × 20 × 55 mm."""
    places = torch.linspace(-50, 50, SLICES)
    z, y, x = torch.meshgrid(places, *[(torch.arange(SIZE) - SIZE / 2 + 0.5) * MM] * 2, indexing="ij")
    inside = [
        ((x - shift) / 25).square() + (y / 20).square() + (z / 55).square() <= scale**2 for shift in (-60, 60)
    ]
    return (inside[0] | inside[1]).float(), places


@pytest.fixture(scope="module")
def explained():
    rng = np.random.default_rng(0)
    n = 140
    volume, age = rng.normal(0, 1, n), rng.uniform(30, 80, n)
    egfr = np.clip(75 + 9 * volume - 0.4 * (age - 55) + rng.normal(0, 6, n), 12, 140)
    female = rng.random(n) < 0.5
    offset = np.log(creatinine_from_egfr(75.0, age, female))
    creatinine = np.log(creatinine_from_egfr(egfr, age, female))
    pictures, places = zip(*(ellipsoid_slices(np.exp(0.12 * v)) for v in volume), strict=True)
    valid = torch.ones(n, SLICES, dtype=torch.bool)
    clinical = torch.from_numpy(np.stack([(age - 55) / 15, female, rng.normal(0, 1, n)], axis=1)).float()
    target = torch.from_numpy(
        np.stack([creatinine, np.zeros(n), stage_index(egfr), age, female], axis=1)
    ).float()

    def r2(uses_image, uses_clinical):
        torch.manual_seed(0)
        tiny = {"img_size": SIZE, "embed_dim": 16, "depth": 1, "num_heads": 2}
        net = ckd_fusion_small(backbone=tiny, clinical_dim=3, num_members=10, image_features=4)
        net.geometry.pixel_size_mm = MM
        images, positions = torch.stack(pictures), torch.stack(places)
        net.geometry.set_knots(
            net.geometry.measures(images[:NUM_TRAIN], valid[:NUM_TRAIN], positions[:NUM_TRAIN])
        )
        net.eval()
        with torch.no_grad():
            features = net.encode_image(images, valid if uses_image else ~valid, positions)
        people = People(
            features, clinical if uses_clinical else None, torch.from_numpy(offset).float(), target
        )
        train, test = torch.arange(NUM_TRAIN), torch.arange(NUM_TRAIN, n)
        if uses_clinical:
            adapt_to_clinical(net, clinical[train])
        fit_head(net, people.at(train), CKDLoss(), recipe=RECIPE, seed=0)
        known = people.at(test)
        with torch.no_grad():
            logits = net.fuse(known.image_features, known.clinical, known.log_creatinine_offset)
        predicted = egfr_from_creatinine(logits[:, 0].exp().numpy(), age[test], female[test])
        observed = egfr[test]
        return 1 - np.square(predicted - observed).sum() / np.square(observed - observed.mean()).sum()

    return {"image": r2(True, False), "clinical": r2(False, True), "both": r2(True, True)}


def test_the_image_alone_tells_something(explained):
    assert explained["image"] > 0.2


def test_the_clinical_values_alone_tell_something(explained):
    assert explained["clinical"] > 0.1


def test_both_together_tell_more_than_each(explained):
    assert explained["both"] >= max(explained["image"], explained["clinical"])
