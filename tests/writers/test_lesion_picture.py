"""The picture of a lesion: the photograph as it is, where the network looked, every class, and abstention."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from shared_nets.types import Finding
from shared_nets.writers.lesion_picture import LOOKED, MALIGNANT, OTHER, lesion_picture
from tests.writers.lesion_results import abstaining_result, lesion_result, photograph, uncalibrated_result


@pytest.fixture
def words_of(monkeypatch):
    """Give ``words_of(result, saliency=True) -> list of texts`` of the picture, lines joined."""

    def read(result, *, with_saliency=True):
        figures = []
        save = Figure.savefig
        monkeypatch.setattr(
            Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1]
        )
        photo, saliency = photograph()
        lesion_picture(result, photo, saliency if with_saliency else None)
        return [text.get_text().replace("\n", " ") for text in figures[0].findobj(Text)]

    return read


def pixels_of(png: bytes) -> np.ndarray:
    return np.round(imread(io.BytesIO(png), format="png")[..., :3] * 255).astype(int)


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def test_every_class_has_its_full_name_and_its_number(words_of):
    words = words_of(lesion_result())
    for name, number in (
        ("actinic keratosis / Bowen's disease", "0.02"),
        ("basal cell carcinoma", "0.03"),
        ("benign keratosis-like lesion", "0.09"),
        ("dermatofibroma", "< 0.01"),
        ("melanoma", "0.20"),
        ("melanocytic naevus", "0.65"),
        ("vascular lesion", "< 0.01"),
    ):
        assert words[words.index(name) + 1] == number
    assert words[words.index("probability of a malignant class") + 1] == "0.26"
    assert words[words.index("prediction set, 90% coverage") + 1] == "melanocytic naevus, melanoma"
    assert "⚠ The photograph has few pixels." in words
    assert any(text.startswith("Research use only.") for text in words)


def test_an_abstention_stands_where_the_label_would(words_of):
    words = words_of(abstaining_result())
    assert words[words.index("the model abstains") + 1 : words.index("the model abstains") + 3] == [
        "No label given",
        "The image is unlike those that the model learned from (distance 90.1, the limit is 60.5).",
    ]
    assert "Melanocytic naevus" not in words


def test_the_map_says_what_it_shows(words_of):
    assert "covering the marked place lowers the probability of melanocytic naevus by up to 0.30" in (
        words_of(lesion_result())
    )
    assert not any("covering" in text for text in words_of(lesion_result(), with_saliency=False))


def test_a_map_without_a_place_that_matters_marks_none():
    photo, saliency = photograph()
    flat = pixels_of(lesion_picture(lesion_result(), photo, saliency / 100))
    assert not (np.abs(flat - rgb(LOOKED)).max(axis=-1) < 8).any()


def test_the_photograph_is_shown_as_it_is_and_beside_it_where_the_network_looked():
    photo, saliency = photograph()
    pixels = pixels_of(lesion_picture(lesion_result(), photo, saliency))
    assert (pixels[130:360, 30:400] == 200).all()  # the left photograph
    marked = (np.abs(pixels - rgb(LOOKED)).max(axis=-1) < 8).nonzero()
    assert len(marked[0]) > 50
    assert marked[1].min() > 440  # the contour is on the right one,
    assert marked[1].max() < 650  # in its upper left corner
    assert marked[0].max() < 300


def test_bars_of_malignant_classes_have_a_colour_of_their_own():
    pixels = pixels_of(lesion_picture(lesion_result(), None))
    malignant, other = ((pixels == rgb(colour)).all(axis=-1) for colour in (MALIGNANT, OTHER))
    lengths = [mask.sum(axis=1).max() for mask in (malignant, other)]
    assert lengths[1] / lengths[0] == pytest.approx(0.648 / 0.201, rel=0.03)


def test_names_and_reasons_that_are_too_long_are_cut_and_nothing_breaks():
    long = {f"class_{'x' * 60}_{number}": 1 / 12 for number in range(12)}
    name = next(iter(long))
    result = abstaining_result(
        class_probabilities=long,
        malignant_classes=(name,),
        prediction_set=tuple(long),
        abstentions=tuple(Finding(code=f"ABSTAIN_{n}", message="why " * 60) for n in range(3)),
        warnings=tuple(Finding(code=f"W{n}", message="warn " * 60) for n in range(9)),
        study_id="s" * 200,
    )
    assert pixels_of(lesion_picture(result, *photograph())).shape == (792, 1364, 3)


@pytest.mark.parametrize(
    "shape", [pytest.param((3, 1, 1), id="one pixel"), pytest.param((3, 30, 2500), id="a strip")]
)
def test_photographs_of_any_shape_are_drawn(shape):
    saliency = np.linspace(0, 0.5, shape[1] * shape[2], dtype=np.float32).reshape(shape[1:])
    png = lesion_picture(uncalibrated_result(), np.full(shape, 120, dtype=np.uint8), saliency)
    assert pixels_of(png).shape == (792, 1364, 3)


def test_a_map_of_another_photograph_is_an_error():
    photo, saliency = photograph()
    with pytest.raises(ValueError, match=r"saliency must be \(40, 60\) as the photograph is"):
        lesion_picture(lesion_result(), photo, saliency.T)


def test_equal_results_give_equal_bytes():
    first, second = (lesion_picture(lesion_result(), *photograph()) for _ in range(2))
    assert first == second
