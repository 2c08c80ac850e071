"""Training behind a kept trunk: it learns what takes both, leaves the trunk alone, and can be repeated."""

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from shared_nets.nets.mambaderm import MambaDerm
from shared_nets.runtime.lesion_fusion import FusionRecipe, fit_fusion, fused_logits, tokens_of
from shared_nets.transforms.lesion_schema import lesion_schema

NUM = 400
RECIPE = FusionRecipe(max_epochs=12, batch_size=50, learning_rate=3e-3)


def make(seed=0, **overrides):
    torch.manual_seed(seed)
    size = {
        "num_classes": 1, "img_size": 8, "stem_dims": (8,), "stem_depths": (1,), "stem_strides": (4,),
        "embed_dim": 16, "depth": 1, "d_state": 4, "metadata_schema": lesion_schema("dermoscopy_clinic"),
    }  # fmt: skip
    network = MambaDerm(**{**size, **overrides}).eval()
    if network.tabular_encoder is not None:
        network.tabular_encoder.set_statistics([50.0], [20.0])
    return network


@pytest.fixture(scope="module")
def puzzle():
    """Bright or dark images, old or young people; yes where an image is bright and a person old."""
    rng = np.random.default_rng(0)
    is_bright, is_old = rng.random((2, NUM)) < 0.5
    images = (
        rng.integers(0, 40, (NUM, 8, 8, 3), dtype=np.uint8) + np.uint8(200) * is_bright[:, None, None, None]
    )
    rows = torch.zeros(NUM, 3)
    rows[:, 0] = torch.from_numpy(np.where(is_old, 70.0, 30.0) + rng.uniform(-9, 9, NUM)).float()
    return images.astype(np.uint8), rows, torch.from_numpy(is_bright & is_old)


def test_kept_tokens_give_what_the_network_says_of_the_images(puzzle):
    images, rows, _ = puzzle
    network = make()
    tokens = tokens_of(network, images[:7], lambda x: 2 * x - 1, batch_size=3)
    assert tokens.shape == (7, 2, 4, 16)
    x = 2 * torch.from_numpy(images[:7]).permute(0, 3, 1, 2).float() / 255 - 1
    kept = fused_logits(network, tokens, rows[:7], batch_size=4)
    np.testing.assert_allclose(kept, network(x, rows[:7])[:, 0].detach(), atol=0.02)  # bfloat16 tokens
    nothing = fused_logits(network, tokens, None)
    np.testing.assert_allclose(nothing, network(x)[:, 0].detach(), atol=0.02)


def test_what_takes_both_is_learned_from_both_only(puzzle):
    images, rows, target = puzzle
    network, image_alone = make(modality_dropout_rate=0.3), make(metadata_schema=None)
    tokens = tokens_of(network, images, lambda x: 2 * x - 1)
    own_tokens = tokens_of(image_alone, images, lambda x: 2 * x - 1)
    train, test = slice(0, 300), slice(300, NUM)
    fit_fusion(network, [tokens[train]], rows[train], target[train], recipe=RECIPE, seed=0)
    fit_fusion(image_alone, [own_tokens[train]], None, target[train], recipe=RECIPE, seed=0)
    auc = {
        "both": roc_auc_score(target[test], fused_logits(network, tokens[test], rows[test])),
        "dropped": roc_auc_score(target[test], fused_logits(network, tokens[test], None)),
        "image": roc_auc_score(target[test], fused_logits(image_alone, own_tokens[test], None)),
    }
    assert auc["both"] > 0.98
    # whoever sees brightness alone ranks the bright half first: half of it is wrong, AUC is about 5/6
    assert auc["image"] == pytest.approx(5 / 6, abs=0.06)
    assert auc["dropped"] == pytest.approx(auc["image"], abs=0.06)


def test_the_trunk_stays_as_it_is(puzzle):
    images, rows, target = puzzle
    network = make()
    before = copy.deepcopy(network.state_dict())
    tokens = tokens_of(network, images, lambda x: x)
    one = FusionRecipe(max_epochs=1, batch_size=100)
    fit_fusion(network, [tokens], rows, target, recipe=one, seed=0)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(("tabular_encoder.", "fusion.", "classifier.")) for name in changed)
    assert not network.training


def test_a_seed_gives_the_same_weights_and_leaves_the_random_state_alone(puzzle):
    images, rows, target = puzzle
    tokens = tokens_of(make(), images[:60], lambda x: x)
    one = FusionRecipe(max_epochs=1, batch_size=20)
    networks = [make() for _ in range(3)]
    state = torch.random.get_rng_state()
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        fit_fusion(network, [tokens], rows[:60], target[:60], recipe=one, seed=seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    first, second, other = (network.classifier[0].weight for network in networks)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_every_epoch_takes_the_next_view(puzzle, monkeypatch):
    _, rows, target = puzzle
    network = make()
    seen = []
    fuse = network.fuse
    monkeypatch.setattr(network, "fuse", lambda t, m: (seen.append(t.local.mean().item()), fuse(t, m))[1])
    views = [torch.full((4, 2, 4, 16), value) for value in (1.0, 2.0)]
    fit_fusion(network, views, rows[:4], target[:4], recipe=FusionRecipe(max_epochs=3), seed=0)
    assert seen == [1.0, 2.0, 1.0]


def test_what_does_not_fit_is_refused(puzzle):
    _, rows, target = puzzle
    tokens = torch.zeros(4, 2, 4, 16)
    with pytest.raises(ValueError, match="network must have one class, got 2"):
        fit_fusion(make(num_classes=2), [tokens], rows[:4], target[:4], recipe=RECIPE, seed=0)
    with pytest.raises(ValueError, match="views must hold tokens"):
        fit_fusion(make(), [], rows[:4], target[:4], recipe=RECIPE, seed=0)
