"""The page: whole in itself, nothing escapes from its texts, and a real browser shows it on a phone."""

import dataclasses
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from shared_nets.types import RESEARCH_USE_ONLY, Finding
from shared_nets.writers.ckd_picture import ckd_picture
from shared_nets.writers.result_page import COLOURS, result_page
from tests.writers.lesion_results import abstaining_result, lesion_result

VOID = {"meta", "img", "wbr", "link", "base", "input", "br", "hr"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PHONE_PIXELS = 360


class Reader(HTMLParser):
    """Reads a page strictly: every tag is closed in order."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def of(self, *names: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture
def png(make_result, make_slices) -> bytes:
    return ckd_picture(make_result(), make_slices(2))


@pytest.fixture
def crowded(make_result):
    """Give a result with everything long that a result may hold."""
    provenance = dataclasses.replace(
        make_result().provenance,
        bundle="a_bundle_of_a_long_name_" * 4,
        image={
            "study_uid": "1." + "2345678901" * 6,
            "header": {"Manufacturer" * 5: "X" * 60},
            "affine": [[0.5] * 4] * 4,
        },
        thresholds={"a_threshold_with_a_very_long_name_indeed": None, "t" * 60: 1.0},
    )
    return make_result(
        study_id="case_" + "0123456789" * 12,
        clinical_used={"v" * 40: {"value": "w" * 80, "unit": "mg/dL", "source": "s" * 80}},
        clinical_missing=("n" * 60, "radiographic_tumour_size_cm"),
        kidney_measurements={"right_kidney_volume_ml": 1234.5, "left_kidney_length_mm": 123.4},
        warnings=tuple(Finding(code="C" * 60, message="m" * n) for n in (20, 200)),
        provenance=provenance,
    )


@pytest.fixture
def browser(tmp_path):
    """Give ``browser(address, *flags) -> stdout`` of a headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome is installed")

    def run(address: str, *flags: str) -> str:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, address]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=True)
        return done.stdout

    return run


@pytest.fixture
def photograph(browser, tmp_path):
    """Give ``photograph(page, width, height, *flags) -> (H, W, 3)``: what a browser shows, 0 to 255."""

    def shoot(page: bytes, width: int, height: int, *flags: str) -> np.ndarray:
        (tmp_path / "page.html").write_bytes(page)
        shot = tmp_path / "shot.png"
        size = f"--window-size={width},{height}"
        browser((tmp_path / "page.html").as_uri(), size, f"--screenshot={shot}", *flags)
        pixels = imread(io.BytesIO(shot.read_bytes()), format="png")[..., :3]
        return np.round(pixels * 255).astype(int)

    return shoot


MEASURE = """
const inside = document.getElementById("frame").contentWindow, page = inside.document;
const all = [...page.body.querySelectorAll("*")], style = e => inside.getComputedStyle(e);
const spills = e => style(e).display !== "inline" && e.scrollWidth > e.clientWidth + 1;
document.getElementById("found").textContent = JSON.stringify({
  window: inside.innerWidth,
  scroll: page.documentElement.scrollWidth,
  left: Math.min(...all.map(e => e.getBoundingClientRect().left)),
  right: Math.max(...all.map(e => e.getBoundingClientRect().right)),
  letters: Math.min(...all.map(e => parseFloat(style(e).fontSize))),
  spilling: all.filter(spills).map(e => e.outerHTML.slice(0, 80)),
  pictures: [...page.images].map(i => i.naturalWidth)});
"""


@pytest.fixture
def measure_on_phone(browser, tmp_path):
    """Give ``measure_on_phone(page) -> dict``: how wide a page is, and its smallest letters, on a phone."""

    def measure(page: bytes) -> dict:
        frame = f'srcdoc="{html.escape(page.decode())}" style="border:0;width:{PHONE_PIXELS}px;height:800px"'
        (tmp_path / "phone.html").write_text(
            f'<!DOCTYPE html><meta charset="utf-8"><pre id="found"></pre><iframe id="frame" {frame}></iframe>'
            f'<script>addEventListener("load", () => {{{MEASURE}}});</script>',
            encoding="utf-8",
        )
        shown = browser((tmp_path / "phone.html").as_uri(), "--dump-dom")
        return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', shown)[1]))

    return measure


def test_a_browser_shows_stage_and_numbers(make_result, png, browser, tmp_path):
    (tmp_path / "page.html").write_bytes(result_page(make_result(), picture_png=png))
    shown = browser((tmp_path / "page.html").as_uri(), "--dump-dom")
    text = Reader(shown.strip().encode()).text
    for words in (
        "G3a (estimated)",
        "1.35 mg/dL",
        "54 mL/min/1.73 m²",
        "90% interval 36 to 82",
        "PHASE_UNKNOWN",
    ):
        assert words in text


@pytest.mark.parametrize("kind", ["crowded", "plain", "kidneys", "lesion", "no label"])
def test_nothing_is_wider_than_a_phone_or_smaller_than_16_pixels(
    make_result, make_kidney_result, crowded, png, measure_on_phone, kind
):
    result = {
        "crowded": crowded, "plain": make_result(), "kidneys": make_kidney_result(),
        "lesion": lesion_result(), "no label": abstaining_result(),
    }[kind]  # fmt: skip
    found = measure_on_phone(result_page(result, picture_png=png))
    assert found["window"] == PHONE_PIXELS
    assert found["scroll"] == PHONE_PIXELS
    assert found["right"] <= PHONE_PIXELS
    assert found["left"] >= 0
    assert found["spilling"] == []
    assert found["letters"] >= 16
    assert found["pictures"] == [1364]  # decoded, and let in by the page's own policy


def test_a_page_that_is_too_wide_for_a_phone_is_found(make_result, png, measure_on_phone):
    page = result_page(make_result(), picture_png=png).replace(b"<h1>", b'<h1 style="width:400px">')
    assert measure_on_phone(page)["scroll"] > PHONE_PIXELS


@pytest.mark.parametrize(
    ("width", "scheme", "flag"),
    [
        pytest.param(PHONE_PIXELS, "light", "--blink-settings=preferredColorScheme=1", id="phone-light"),
        pytest.param(1100, "dark", "--blink-settings=preferredColorScheme=0", id="desktop-dark"),
    ],
)
def test_it_is_drawn_light_or_dark_as_the_reader_likes(make_result, png, photograph, width, scheme, flag):
    pixels = photograph(result_page(make_result(), picture_png=png), width, 900, flag)
    assert pixels.shape == (900, width, 3)
    ground, notice, ink = (_rgb(COLOURS[scheme][name]) for name in ("ground", "notice", "ink"))
    assert (pixels[:, :8] == ground).all()  # the margins are free
    assert (pixels[:, -8:] == ground).all()
    for colour in (notice, ink):
        assert (pixels == colour).all(axis=-1).sum() > 500


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [part / 255 for part in _rgb(colour)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_and_bars_stand_out_as_wcag_asks(scheme):
    assert _contrast("#000000", "#ffffff") == pytest.approx(21.0)
    colours = COLOURS[scheme]
    pairs = (("ink", "ground"), ("faint", "ground"), ("notice-ink", "notice"), ("warning-ink", "warning"))
    assert min(_contrast(colours[ink], colours[ground]) for ink, ground in pairs) >= 4.5
    assert _contrast(colours["bar"], colours["track"]) >= 3.0


def test_the_page_holds_everything_itself_and_runs_nothing(make_result, png):
    page = result_page(make_result(), picture_png=png)
    reader = Reader(page)
    assert reader.of("script", "link", "base", "iframe", "object", "form") == []
    names = {name for _, attributes in reader.tags for name in attributes}
    assert not [name for name in names if name.startswith("on") or name in {"href", "srcset", "action"}]
    assert [image["src"][:22] for image in reader.of("img")] == ["data:image/png;base64,"]
    assert b"url(" not in page
    assert b"@import" not in page
    policy = next(m["content"] for m in reader.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")


def test_the_page_can_be_read_without_seeing_it(make_result, png):
    reader = Reader(result_page(make_result(), picture_png=png))
    assert reader.of("html") == [{"lang": "en"}]
    (image,) = reader.of("img")
    assert "kidneys outlined" in image["alt"]
    assert "G3a" in image["alt"]
    assert len(reader.of("caption")) == len(reader.of("table"))
    assert {header.get("scope") for header in reader.of("th")} == {"col", "row"}
    assert [tag for tag, _ in reader.tags if tag in {"h1", "h2", "h3"}][:2] == ["h1", "h2"]
    assert len(reader.of("h1")) == 1
    metas = {meta["name"]: meta["content"] for meta in reader.of("meta") if "name" in meta}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["color-scheme"] == "light dark"


def test_every_text_of_a_result_stays_text(make_result):
    evil = {name: f"<script>{name}</script>&'\"<img src=x onerror=alert(1)>" for name in map(str, range(16))}
    said = iter(evil.values())
    finding, repair = (Finding(code=next(said), message=next(said)) for _ in range(2))
    provenance = dataclasses.replace(
        make_result().provenance,
        bundle=next(said),
        image={next(said): next(said)},
        packages={next(said): next(said)},
        repairs=(repair,),
    )
    result = make_result(
        study_id=next(said),
        warnings=(finding,),
        statements=(next(said),),
        clinical_used={next(said): {"value": next(said), "unit": next(said), "source": next(said)}},
        clinical_missing=(next(said),),
        provenance=provenance,
    )
    reader = Reader(result_page(result, picture_png=b"x"))
    assert list(said) == []
    assert reader.of("script") == []
    assert len(reader.of("img")) == 1
    assert [name for name, text in evil.items() if text not in reader.text] == []


def test_everything_that_a_reader_must_know_is_there(make_result):
    made, text = make_result().provenance, _spaced(make_result())
    expected = (
        *("CKD staging · case_00001", "not a diagnosis", "90% interval 0.95 to 1.90"),
        *("The contrast phase is not known. PHASE_UNKNOWN", "Slices were sorted by position. SORTED"),
        *("age 67 a age", "Missing (2): hba1c, urea.", "Kidney volume 290.0 mL"),
        "2 slices of the 14 that show kidney, from -120.0 to -90.5 mm",
        *make_result().statements,
        *(made.config_sha256, made.weights_sha256["model"], "ckd_staging_classification 0.1.0"),
        *("monai 1.6.1", "shape [512, 512, 40]", "label_set kits", "min_area_mm2 50.0"),
    )
    assert [words for words in expected if words not in text] == []


def _spaced(result) -> str:
    """The words of the page with a space between cells."""
    page = result_page(result, picture_png=None).replace(b"</t", b" </t").replace(b"<wbr>", b"")
    return Reader(page).text.replace("  ", " ")


def test_the_notice_comes_first_and_last(make_result, make_kidney_result, png):
    for result in (make_result(), make_kidney_result(), lesion_result(), abstaining_result()):
        words = [word for word in Reader(result_page(result, picture_png=png)).words if word.strip()]
        assert words[1] == words[-1] == RESEARCH_USE_ONLY  # the first is the title


def test_the_bar_of_each_stage_is_as_long_as_its_probability(make_result):
    page = result_page(make_result(), picture_png=None).decode()
    assert re.findall(r'class="bar" style="width:([\d.]+)%"', page) == [
        "0.0",
        "25.0",
        "50.0",
        "25.0",
        "0.0",
        "0.0",
    ]
    assert re.findall(r'<tr class="chosen"><th scope="row">(\w+)</th>', page) == ["G3a"]


def test_a_classification_says_that_no_number_was_estimated(make_result):
    text = Reader(result_page(make_result(creatinine=None, egfr=None), picture_png=None)).text
    assert text.count("not estimated by this network") == 2


def test_a_kidney_result_shows_each_kidney_and_what_is_cut_off(make_kidney_result, png):
    text = _spaced(make_kidney_result())
    for words in (
        "Kidney measurement · case_00001",
        "right 151 mL · left 163 mL",
        "Left kidney volume 163.4 mL (visible part; cut off by the edge of the scan)",
        "Right kidney density 142.0 HU",
        "Kidney volume 314.6 mL",
        "The left kidney reaches the lowest slice. KIDNEY_CUT_OFF",
    ):
        assert words in text


def test_a_study_without_kidneys_or_warnings_says_so(make_kidney_result):
    text = _spaced(make_kidney_result(kidneys={}, total_volume_ml=0.0, warnings=()))
    assert "No kidney found" in text
    assert "No warnings." in text


def test_equal_input_gives_equal_bytes(make_result, png):
    assert result_page(make_result(), picture_png=png) == result_page(make_result(), picture_png=bytes(png))


def test_without_a_picture_there_is_no_figure(make_result):
    assert Reader(result_page(make_result(), picture_png=None)).of("img", "figure") == []
