import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from shared_nets.transforms.dermoscopy_artefacts import (
    add_vignette,
    downscale,
    draw_hairs,
    draw_ruler,
    relight,
)
from shared_nets.transforms.dermoscopy_augmentation import (
    RandCoarseCodingd,
    RandColourJitterd,
    RandHaird,
    RandIlluminantd,
    RandRulerd,
    RandVignetted,
)

ALL = (RandColourJitterd, RandIlluminantd, RandHaird, RandVignetted, RandRulerd, RandCoarseCodingd)


def photo(height=60, width=80):
    grid = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0))
    colours = torch.tensor([0.8, 0.6, 0.5])[:, None, None] + 0.2 * (grid - 0.5)
    big = torch.nn.functional.interpolate(colours[None], size=(height, width), mode="bilinear")[0]
    return (big * 255).to(torch.uint8)


@pytest.mark.parametrize("transform", ALL)
def test_each_changes_the_image_within_its_type_and_the_same_way_for_the_same_state(transform):
    item = {"image": photo(), "other": "kept"}
    first, again, next_one = (transform(prob=1.0) for _ in range(3))
    first.set_random_state(seed=1)
    again.set_random_state(seed=1)
    next_one.set_random_state(seed=2)
    out = first(item)
    assert out["image"].dtype == torch.uint8
    assert out["image"].shape == item["image"].shape
    assert not torch.equal(out["image"], item["image"])
    assert torch.equal(again(item)["image"], out["image"])
    assert not torch.equal(next_one(item)["image"], out["image"])
    assert torch.equal(item["image"], photo())
    assert out["other"] == "kept"


@pytest.mark.parametrize("transform", ALL)
def test_each_leaves_the_image_alone_where_the_dice_say_so(transform):
    item = {"image": photo()}
    assert transform(prob=0.0)(item)["image"] is item["image"]


@pytest.mark.parametrize("transform", ALL)
def test_floating_images_stay_within_0_and_1_and_keep_their_meta_data(transform):
    image = MetaTensor(photo().float() / 255, meta={"source": "photograph"})
    change = transform(prob=1.0)
    change.set_random_state(seed=0)
    out = change({"image": image})["image"]
    assert out.dtype == torch.float32
    assert 0.0 <= float(out.min()) <= float(out.max()) <= 1.0
    assert out.meta["source"] == "photograph"


def test_a_composition_hands_its_random_state_on():
    chain = Compose([RandHaird(prob=0.5), RandColourJitterd(prob=0.5)])
    runs = []
    for _ in range(2):
        chain.set_random_state(seed=7)
        runs.append([chain({"image": photo()})["image"] for _ in range(4)])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_hairs_are_dark_and_cover_a_small_part():
    clean = torch.full((3, 200, 300), 0.8)
    hairy = draw_hairs(clean, num_hairs=5, width=0.01, rng=np.random.RandomState(0))
    covered = (clean - hairy).amax(dim=0) > 0.2
    assert 0.005 < float(covered.float().mean()) < 0.15
    assert float((hairy - clean).max()) <= 1e-6


def test_ruler_marks_lie_along_one_edge_only_and_repeat():
    clean = torch.full((3, 200, 200), 0.8)
    seen = set()
    for seed in range(20):
        marks = (draw_ruler(clean, rng=np.random.RandomState(seed)) - clean).abs().amax(dim=0) > 0.1
        rows, columns = torch.nonzero(marks).float().mean(dim=0) - 100
        assert max(abs(float(rows)), abs(float(columns))) > 50
        assert not bool(marks[60:140, 60:140].any())
        seen.add((abs(float(rows)) > abs(float(columns)), float(rows + columns) > 0))
    assert len(seen) == 4


def test_a_vignette_darkens_the_corners_and_leaves_the_middle():
    out = add_vignette(torch.full((3, 90, 120), 0.8), radius=0.8, softness=0.05)
    assert float(out[0, 45, 60]) == pytest.approx(0.8, abs=1e-4)
    assert float(out[0, 0, 0]) < 0.01
    assert torch.allclose(out, out.flip(-1))


def test_light_multiplies_each_channel_and_lost_detail_keeps_the_mean():
    image = photo().float() / 255
    torch.testing.assert_close(relight(image, (0.5, 1.0, 0.25))[2], image[2] * 0.25)
    coarse = downscale(image, 0.5)
    torch.testing.assert_close(coarse.mean(dim=(1, 2)), image.mean(dim=(1, 2)), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandHaird(prob=1.5), "prob must lie within"),
        (lambda: RandHaird(max_hairs=0), "max_hairs must be at least 1"),
        (lambda: RandColourJitterd(hue=-0.1), "hue must lie within"),
        (lambda: RandVignetted(radius=(1.0, 0.5)), "radius must be two positive numbers that rise"),
        (lambda: RandCoarseCodingd(quality=(0, 90)), "quality must rise within"),
        (lambda: RandRulerd(prob=1.0)({"image": torch.zeros(1, 8, 8)}), r"images must be \(3, H, W\)"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
