"""The picture of a kidney result says what was found, on which side, and what is missing."""

import io

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from shared_nets.writers.kidney_picture import LABELS, kidney_picture


def words_of(monkeypatch, result, slices) -> list[str]:
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1]
    )
    kidney_picture(result, slices)
    return [text.get_text() for text in figures[0].findobj(Text)]


def test_both_kidneys_are_named_with_their_sizes(make_kidney_result, make_slices, monkeypatch):
    words = words_of(monkeypatch, make_kidney_result(), make_slices(2))
    assert "151 mL" in words
    assert "163 mL, cut off" in words
    assert "108 mm long   142 HU on average" in words
    assert "315 mL" in words


def test_a_missing_kidney_is_said_to_be_missing(make_kidney_result, make_slices, monkeypatch):
    right = {"right": make_kidney_result().kidneys["right"]}
    words = words_of(monkeypatch, make_kidney_result(kidneys=right), make_slices(1))
    assert words.count("not found") == 1


def test_right_and_left_have_their_colours(make_kidney_result, make_slices):
    picture = imread(io.BytesIO(kidney_picture(make_kidney_result(), make_slices(1, with_ct=False))))
    for _, colour in (LABELS[1], LABELS[2]):
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255 * 0.9
        assert (np.abs(picture[..., :3] - wanted).max(axis=2) < 0.03).sum() > 500


def test_equal_results_give_equal_bytes(make_kidney_result, make_slices):
    assert kidney_picture(make_kidney_result(), make_slices(4)) == kidney_picture(
        make_kidney_result(), make_slices(4)
    )
