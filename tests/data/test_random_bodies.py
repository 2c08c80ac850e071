"""Random bodies are what the seed says, and their label is where their kidneys are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shared_nets.data.body_changes import Body, BodyChanges, KidneyPair, random_body
from shared_nets.data.random_bodies import RandomBodies
from shared_nets.refusals import InputRefused

#: Nothing is changed but what a test switches on.
NOTHING = {
    "replace_kidneys": 0.0, "remove_kidney": 0.0, "redraw_densities": 0.0, "add_blobs": 0.0, "blur": 0.0,
    "cut_field": 0.0, "max_turn_degrees": 0.0, "max_stretch": 0.0, "max_noise_hu": 0.0,
}  # fmt: skip


def make_body(name="one") -> Body:
    """A box of soft tissue in air with two kidneys of 200 HU and a spine."""
    hu = np.full((60, 50, 60), -1000, dtype=np.int16)
    labels = np.zeros(hu.shape, dtype=np.uint8)
    hu[5:55, 5:45] = 40
    for number, x in ((2, 40), (3, 12)):
        labels[x : x + 8, 15:23, 20:40] = number
    labels[26:34, 8:16] = 29  # a vertebra
    hu[labels == 29] = 500
    hu[(labels == 2) | (labels == 3)] = 200
    return Body(name=name, hu=hu, labels=labels, spacing_mm=3.0)


def make_pair() -> KidneyPair:
    """Balls of 12 mm, the left one half tumour, with a cyst."""
    places = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij"), -1) - 9.5
    ball = (np.square(places).sum(-1) <= 64).astype(np.uint8)
    left = ball.copy()
    left[:10] *= 2
    left[9:11, 9:11, 9:11] = 3
    return KidneyPair(right=ball, left=left, spacing_mm=1.5)


@pytest.fixture
def folder(tmp_path):
    """As ``tools.build_kidney_bodies`` writes it: bodies one and two, and one pair of kidneys."""
    for name in ("one", "two"):
        body = make_body(name)
        np.savez(tmp_path / f"body_{name}.npz", hu=body.hu, labels=body.labels, spacing_mm=body.spacing_mm)
    pair = make_pair()
    np.savez(tmp_path / "kidneys_a.npz", right=pair.right, left=pair.left, spacing_mm=pair.spacing_mm)
    return tmp_path


def draw(seed: int, pair: KidneyPair | None = None, **changes) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return random_body(make_body(), pair, size=48, changes=BodyChanges(**{**NOTHING, **changes}), rng=rng)


def test_samples_follow_from_seed_epoch_and_number(folder):
    first, again = RandomBodies(folder, size=32), RandomBodies(folder, size=32)
    assert torch.equal(first[3]["image"], again[3]["image"])
    assert not torch.equal(first[3]["image"], first[4]["image"])
    again.set_epoch(1)
    assert not torch.equal(first[3]["image"], again[3]["image"])
    assert not torch.equal(first[3]["image"], RandomBodies(folder, size=32, seed=1)[3]["image"])


def test_a_sample_is_scaled_and_has_a_label_of_zeros_and_ones(folder):
    sample = RandomBodies(folder, size=32)[0]
    assert sample["image"].shape == sample["label"].shape == (1, 32, 32, 32)
    assert 0.0 <= float(sample["image"].min()) < float(sample["image"].max()) <= 1.0
    assert set(sample["label"].unique().tolist()) <= {0.0, 1.0}


def test_a_scan_that_is_left_out_does_not_take_part(folder):
    assert [body.name for body in RandomBodies(folder, leave_out=["two"]).bodies] == ["one"]
    with pytest.raises(InputRefused, match="no body"):
        RandomBodies(folder, leave_out=["one", "two"])


def test_without_changes_kidney_is_where_the_density_of_kidney_is():
    hu, kidney = draw(1)
    inside = kidney & (torch.nn.functional.avg_pool3d(kidney.float()[None, None], 3, 1, 1)[0, 0] == 1)
    assert inside.sum() > 500
    assert (hu[inside] - 200).abs().max() < 60  # shift and scale of the scanner
    assert not kidney[hu < 60].any() or kidney[hu < 60].float().mean() < 0.01


def test_other_kidneys_take_the_place_of_the_old_ones():
    for seed in range(4):
        hu, kidney = draw(seed, make_pair(), replace_kidneys=1.0)
        # the balls hold 2 · 2.1 mL at 1.5 mm; the boxes that were there, 2 · 34.6 mL
        assert 0 < int(kidney.sum()) * 0.027 < 20
        assert (hu > 120).logical_and(~kidney).sum() < hu.numel() * 0.1


def test_a_cyst_is_no_kidney_and_a_tumour_is():
    pair = make_pair()
    only_cyst = KidneyPair(right=pair.right * 3, left=pair.left * 0 + 3, spacing_mm=1.5)
    only_tumour = KidneyPair(right=pair.right * 2, left=pair.right * 2, spacing_mm=1.5)
    assert int(draw(0, only_cyst, replace_kidneys=1.0)[1].sum()) == 0
    assert int(draw(0, only_tumour, replace_kidneys=1.0)[1].sum()) > 0


def test_removed_kidneys_leave_fat():
    hu, kidney = draw(1, remove_kidney=1.0)
    assert int(kidney.sum()) == 0
    assert float((hu > 150).float().mean()) < 0.06  # the spine alone


def test_beyond_a_cut_lies_nothing():
    hu, kidney = draw(1, cut_field=1.0)
    gone = hu == -1024.0
    assert gone.any()
    assert not (kidney & gone).any()


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputRefused, match="build_kidney_bodies"):
        RandomBodies(tmp_path / "nothing")
