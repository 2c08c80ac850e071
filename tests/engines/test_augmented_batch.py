"""Batches are augmented, normalised and mixed; a step draws the same whenever it is made."""

from __future__ import annotations

import pytest
import torch

from shared_nets.engines.augmented_batch import AugmentedBatch


class Nothing:
    """An augmentation that changes nothing, and remembers the steps."""

    def __init__(self):
        self.step = 0
        self.steps = []

    def __call__(self, images):
        self.steps.append(self.step)
        return images


@pytest.fixture
def batch():
    images = torch.zeros(2, 3, 2, 2)
    images[1] = 1.0
    return {"image": images, "label": torch.tensor([0, 2]), "metadata": torch.tensor([[1.0], [2.0]])}


def test_images_are_normalised_after_the_augmentation(batch):
    prepare = AugmentedBatch(
        augmentation=Nothing(), mean=[0.5, 0.0, 0.0], std=[0.25, 1.0, 2.0], num_classes=3
    )
    images, targets, further, extra = prepare(batch, "cpu")
    assert images[0, :, 0, 0].tolist() == [-2.0, 0.0, 0.0]
    assert images[1, :, 0, 0].tolist() == [2.0, 1.0, 0.5]
    assert targets.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert (further, extra) == ((), {})


def test_images_and_labels_are_mixed_in_one_proportion(batch):
    prepare = AugmentedBatch(
        augmentation=Nothing(), mean=[0.0] * 3, std=[1.0] * 3, num_classes=3, mixup_alpha=1.0, seed=3
    )
    for _ in range(5):
        images, targets, _, _ = prepare(batch, "cpu")
        assert torch.allclose(images[:, 0, 0, 0], targets[:, 2], atol=1e-6)  # image value = share of class 2
        assert torch.allclose(targets.sum(dim=1), torch.ones(2))


def test_a_resumed_step_is_the_same(batch):
    whole, parts = (
        AugmentedBatch(
            augmentation=Nothing(), mean=[0.0] * 3, std=[1.0] * 3, num_classes=3, mixup_alpha=0.4, seed=1
        )
        for _ in range(2)
    )
    drawn = [whole(batch, "cpu")[0] for _ in range(4)]
    parts.load_state_dict({"step": 2})
    assert torch.equal(parts(batch, "cpu")[0], drawn[2])
    assert parts.augmentation.steps == [2]
    assert whole.state_dict() == {"step": 4}


def test_extra_inputs_travel_by_keyword_and_are_never_mixed(batch):
    prepare = AugmentedBatch(
        augmentation=Nothing(), mean=[0.0], std=[1.0], num_classes=3, extra_keys={"metadata": "metadata"}
    )
    assert prepare(batch, "cpu")[3]["metadata"].tolist() == [[1.0], [2.0]]
    with pytest.raises(ValueError, match="mixup_alpha must be 0 with extra_keys"):
        AugmentedBatch(
            augmentation=Nothing(),
            mean=[0.0],
            std=[1.0],
            num_classes=3,
            mixup_alpha=0.2,
            extra_keys={"metadata": "metadata"},
        )
