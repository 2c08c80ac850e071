"""The picture: it decodes, shows the mask, repeats to the byte, and no text leaves it or covers another."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from shared_nets.types import Estimate, Finding
from shared_nets.writers.ckd_picture import ckd_picture

SIZE = (792, 1364)  # 7.2 × 12.4 inches at 110 dots


def decoded(png: bytes) -> np.ndarray:
    """Red, green and blue of a PNG, 0 to 255."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return np.round(imread(io.BytesIO(png), format="png")[..., :3] * 255).astype(int)


def near(picture: np.ndarray, colour: str) -> np.ndarray:
    """Where the colour lies within 12 of ``colour`` in every channel."""
    wanted = [int(colour[i : i + 2], 16) for i in (0, 2, 4)]
    return np.abs(picture - wanted).max(axis=-1) <= 12


def count(picture: np.ndarray, colour: str) -> int:
    """Pixels near a colour."""
    return int(near(picture, colour).sum())


def over(grey: int, colour: str, share: float) -> str:
    """A colour laid over grey, both sRGB as they stand."""
    parts = (int(colour[i : i + 2], 16) for i in (0, 2, 4))
    return "".join(f"{round(share * part + (1 - share) * grey):02x}" for part in parts)


@pytest.mark.parametrize("with_ct", [True, False], ids=["ct", "mask-only"])
def test_kidney_tumour_and_cyst_are_coloured_in_proportion_to_their_size(make_result, make_slices, with_ct):
    picture = decoded(ckd_picture(make_result(), make_slices(1, with_ct=with_ct)))
    assert picture.shape == (*SIZE, 3)
    # 40 HU is the middle of the window: grey 128; without a CT the ground is black
    grey, share = (128, 0.30) if with_ct else (0, 0.9)
    kidney, tumour, cyst = (count(picture, over(grey, c, share)) for c in ("ffb000", "dc267f", "648fff"))
    # blocks of 150, 130 and 300 pixels; contours and letters cover some of their edges
    assert kidney > 8000
    assert tumour / kidney == pytest.approx(130 / 150, rel=0.05)
    assert cyst / kidney == pytest.approx(300 / 150, rel=0.05)


@pytest.mark.parametrize(
    ("spacing_mm", "width_by_height"),
    [pytest.param((0.8, 0.8), 3.0, id="square"), pytest.param((1.6, 0.8), 1.5, id="rows-twice-as-far-apart")],
)
def test_pixels_are_drawn_in_their_true_proportions(make_result, make_slices, spacing_mm, width_by_height):
    (shown,) = make_slices(1, with_ct=False)
    picture = decoded(ckd_picture(make_result(), [{**shown, "pixel_spacing_mm": spacing_mm}]))
    cyst = near(picture, over(0, "648fff", 0.9))  # 30 columns by 10 rows
    assert cyst.sum(axis=1).max() / cyst.sum(axis=0).max() == pytest.approx(width_by_height, rel=0.05)


def test_as_many_slices_are_drawn_as_there_are_up_to_four(make_result, make_slices):
    grey = [count(decoded(ckd_picture(make_result(), make_slices(number))), "808080") for number in range(6)]
    per_slice = grey[1] - grey[0]  # without slices some edges of letters are of that grey
    assert per_slice > 30000
    assert [round((g - grey[0]) / per_slice, 1) for g in grey] == [0, 1, 2, 3, 4, 4]


def test_equal_input_gives_equal_bytes(make_result, make_slices):
    assert ckd_picture(make_result(), make_slices(2)) == ckd_picture(make_result(), make_slices(2))


def test_the_file_names_neither_program_nor_date(make_result):
    png = ckd_picture(make_result(), [])
    assert b"matplotlib" not in png.lower()
    assert b"tIME" not in png
    assert b"tEXt" not in png


@pytest.fixture
def drawn(monkeypatch):
    """Give ``drawn(result, slices) -> [(text, box)]``: every text and where it stands, in pixels."""

    def draw(result, slices):
        figures = []
        savefig = Figure.savefig
        monkeypatch.setattr(
            Figure, "savefig", lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k))
        )
        ckd_picture(result, slices)
        (figure,) = figures
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        return [(text.get_text(), text.get_window_extent()) for text in texts if _is_drawn(text)]

    return draw


def _is_drawn(text: Text) -> bool:
    """Tick labels exist but are not drawn where the axes are off."""
    return text.axes is None or text in text.axes.texts


def test_the_numbers_are_written_out(make_result, make_slices, drawn):
    words = [text for text, _ in drawn(make_result(), make_slices(1))]
    for expected in (
        "G3a",
        "1.35",
        "0.95 – 1.90  (90%)",
        "54",
        "36 – 82  (90%)",
        "25%",
        "50%",
        "z -120.0 mm",
    ):
        assert expected in words
    assert "CKD staging · case_00001" in words
    (notice,) = [text for text in words if text.startswith("Research use only. Not a medical device.")]
    assert notice.endswith("ckd_staging_classification 0.1.0 · weights 0123456789ab")
    (warnings,) = [text for text in words if text.startswith("inputs missing: 2")]
    assert warnings.endswith("⚠ The contrast phase is not known.")


def test_right_and_left_stand_at_the_edges_of_the_picture_in_radiological_order(
    make_result, make_slices, drawn
):
    boxes = dict(drawn(make_result(), make_slices(1)))
    assert boxes["R"].x1 < boxes["L"].x0


def test_only_labels_that_a_slice_shows_are_named(make_result, make_slices, drawn):
    (shown,) = make_slices(1)
    shown["labels"] = np.where(shown["labels"] == 1, 1, 0)
    words = [text for text, _ in drawn(make_result(), [shown])]
    assert "kidney" in words
    assert "tumour" not in words
    assert "cyst" not in words


def test_a_classification_says_that_no_number_was_estimated(make_result, make_slices, drawn):
    words = [text for text, _ in drawn(make_result(creatinine=None, egfr=None), make_slices(1))]
    assert "creatinine: not estimated by this network" in words
    assert "eGFR: not estimated by this network" in words


LONG = (
    "The slices of a_series$with$dollars_and_a_name_that_goes_on_without_any_white_space_at_all_for_longer_"
    "than_one_line_can_hold lie at irregular distances. " + "WWWW " * 60
)
CROWDED = {
    "study_id": "case_" + "0123456789-" * 20,
    "stage": "G3b",
    "stage_probabilities": {"G1": 0.0, "G2": 0.0, "G3a": 0.0, "G3b": 1.0, "G4": 0.0, "G5": 0.0},
    "creatinine": Estimate(value=12.35, low=10.95, high=21.9, level=0.95, unit="mg/dL"),
    "egfr": Estimate(value=154.2, low=136.1, high=181.9, level=0.95, unit="mL/min/{1.73_m2}"),
}
ONE_LINE = "A warning of one line."


@pytest.mark.parametrize(
    ("messages", "last_line"),
    [
        pytest.param([LONG] * 12, "… and 10 more in result.json", id="many-long"),
        pytest.param([ONE_LINE] * 12, "… and 4 more in result.json", id="many-short"),
        pytest.param([ONE_LINE] * 8, f"⚠ {ONE_LINE}", id="just-enough"),
        pytest.param([LONG], None, id="one-long"),
    ],
)
@pytest.mark.parametrize("spacing_mm", [(0.8, 0.8), (2.5, 0.8), (0.7, 1.0)], ids=["square", "narrow", "wide"])
def test_no_text_leaves_the_picture_or_covers_another(
    make_result, make_slices, drawn, messages, last_line, spacing_mm
):
    slices = [{**shown, "pixel_spacing_mm": spacing_mm} for shown in make_slices(4)]
    result = make_result(
        **CROWDED,
        warnings=tuple(Finding(code=f"W{n}", message=text) for n, text in enumerate(messages)),
        provenance=dataclasses.replace(make_result().provenance, bundle="a_bundle_of_a_long_name_" * 5),
    )
    texts = drawn(result, slices)
    height, width = SIZE
    outside = [t for t, box in texts if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]
    assert outside == []
    covered = [(a, b) for (a, box), (b, other) in itertools.combinations(texts, 2) if _overlap(box, other)]
    assert covered == []
    (warnings,) = [text for text, _ in texts if text.startswith("inputs missing")]
    assert warnings.splitlines()[1].startswith("⚠ ")  # even a very long one is not left out
    if last_line is not None:
        assert warnings.splitlines()[-1] == last_line


def _overlap(a, b) -> bool:
    return a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1


def test_a_dollar_sign_is_no_formula(make_result, drawn):
    words = drawn(make_result(warnings=(Finding(code="W", message=r"a$\notatexcommand$b"),)), [])
    assert any(r"⚠ a$\notatexcommand$b" in text for text, _ in words)
