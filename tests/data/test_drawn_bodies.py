"""Drawn abdomens have what they are drawn for: kidneys beside the spine, muscle, bowel, air around."""

from __future__ import annotations

import numpy as np
import pytest

from shared_nets.data.body_changes import LEFT_KIDNEY, RIGHT_KIDNEY
from shared_nets.data.drawn_bodies import draw_body


@pytest.fixture(scope="module")
def bodies():
    return [draw_body(np.random.default_rng(seed)) for seed in range(6)]


def test_the_seed_decides_what_is_drawn():
    first, again, other = (draw_body(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first.hu, again.hu)
    assert np.array_equal(first.labels, again.labels)
    assert first.hu.shape != other.hu.shape or not np.array_equal(first.hu, other.hu)


def test_the_right_kidney_lies_right_of_the_spine_and_the_left_one_left(bodies):
    for body in bodies:
        spine = np.argwhere((body.labels == 29) & (body.hu > 120))[:, 0].mean()
        right, left = (np.argwhere(body.labels == n)[:, 0].mean() for n in (RIGHT_KIDNEY, LEFT_KIDNEY))
        assert left < spine - 8
        assert right > spine + 8


def test_kidneys_have_a_plausible_size(bodies):
    for body in bodies:
        for number in (RIGHT_KIDNEY, LEFT_KIDNEY):
            volume_ml = np.count_nonzero(body.labels == number) * 0.027
            assert (
                60 < volume_ml < 250
            )  # 4/3 π · 27 · 27 · (42 to 60) mm³ is 128 to 183 mL, less what covers it


def test_air_lies_around_fat_and_muscle(bodies):
    for body in bodies:
        assert body.hu[0].max() < -700
        assert body.hu[-1].max() < -700
        inside = body.hu[body.hu > -300]
        assert 0.1 < ((inside > -160) & (inside < -40)).mean() < 0.9
        assert ((inside > 0) & (inside < 110)).mean() > 0.1
