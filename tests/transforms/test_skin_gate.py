import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from scipy import ndimage
from skimage import data
from skimage.color import lab2rgb
from sklearn.datasets import load_sample_image

from shared_nets.data.photograph_reader import open_photograph
from shared_nets.refusals import InputRefused
from shared_nets.transforms.dermoscopy_artefacts import add_vignette, draw_hairs
from shared_nets.transforms.skin_gate import SkinGated, SkinLimits, skin_findings
from shared_nets.transforms.skin_measures import measure_skin

LIGHT, BROWN = (72.0, 15.0, 18.0), (38.0, 15.0, 18.0)


def lesion(height=300, width=400, *, skin=LIGHT, mole=BROWN, noise=2.0):
    """A round lesion on skin, both given in CIELAB, as ``(3, H, W)`` uint8."""
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows - height / 2) ** 2 + (columns - width / 2) ** 2) < (height / 4) ** 2
    lab = np.where(inside[..., None], mole, skin) + np.zeros((height, width, 3))
    lab = ndimage.gaussian_filter(lab, (2, 2, 0))
    lab[..., 0] += np.random.default_rng(0).normal(0, noise, (height, width))
    return to_bytes(torch.from_numpy(lab2rgb(lab)).permute(2, 0, 1))


def to_bytes(image):
    return (image * 255).round().clamp(0, 255).to(torch.uint8)


def tensor_of(pixels):
    pixels = np.asarray(pixels)
    pixels = np.repeat(pixels[..., None], 3, -1) if pixels.ndim == 2 else pixels[..., :3]
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def codes(check):
    return [finding.code for finding in check.findings]


def refusal(photo, **limits):
    found = skin_findings(photo, SkinLimits(**limits)).refusal
    return None if found is None else found.code


@pytest.mark.parametrize(
    ("skin", "mole"),
    [
        pytest.param(LIGHT, BROWN, id="light skin"),
        pytest.param((50.0, 16.0, 24.0), (30.0, 10.0, 10.0), id="brown skin"),
        pytest.param((33.0, 11.0, 14.0), (18.0, 4.0, 4.0), id="black skin"),
        pytest.param((70.0, 14.0, -6.0), (30.0, 10.0, 2.0), id="violet light"),
        pytest.param(LIGHT, (8.0, 0.0, 0.0), id="black lesion"),
        pytest.param(LIGHT, (60.0, 35.0, 20.0), id="red lesion"),
    ],
)
def test_a_lesion_on_skin_of_any_colour_passes_without_a_word(skin, mole):
    check = skin_findings(lesion(skin=skin, mole=mole))
    assert check.refusal is None
    assert check.findings == ()


@pytest.mark.registry
def test_a_real_photograph_of_a_naevus_passes(naevus_photo):
    check = skin_findings(tensor_of(open_photograph(naevus_photo).pixels))
    assert check.refusal is None
    assert codes(check) == []
    assert check.measures.hair_share > 0.005


PICTURES = {
    "astronaut": data.astronaut,
    "cup of coffee": data.coffee,
    "motorcycle": lambda: data.stereo_motorcycle()[0],
    "rocket": data.rocket,
    "stained tissue": data.immunohistochemistry,
    "page of a book": data.page,
    "text": data.text,
    "coins": data.coins,
    "photographer in grey": data.camera,
    "temple": lambda: load_sample_image("china.jpg"),
    "flower": lambda: load_sample_image("flower.jpg"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_something_else_is_refused(name):
    assert refusal(tensor_of(PICTURES[name]())) == "IMAGE_NOT_SKIN"


@pytest.mark.registry
def test_every_slice_of_a_real_ct_is_refused(totalsegmentator_ct):
    import nibabel as nib

    volume = np.asanyarray(nib.load(totalsegmentator_ct).dataobj)
    grey = np.clip((volume + 160.0) / 400.0 * 255.0, 0, 255).astype(np.uint8)
    assert {refusal(tensor_of(grey[:, :, k].T)) for k in range(5, 105, 20)} == {"IMAGE_NOT_SKIN"}


def test_a_grey_copy_of_a_lesion_is_refused_for_its_lack_of_colour():
    grey = lesion().float().mean(dim=0, keepdim=True).repeat(3, 1, 1).to(torch.uint8)
    found = skin_findings(grey).refusal
    assert found.code == "IMAGE_NOT_SKIN"
    assert "hardly any colour (0.0" in found.message


@pytest.mark.parametrize(
    ("photo", "code"),
    [
        pytest.param(torch.zeros(3, 200, 200, dtype=torch.uint8), "IMAGE_DARK", id="black"),
        pytest.param(torch.full((3, 200, 200), 255, dtype=torch.uint8), "IMAGE_BLANK", id="white"),
        pytest.param((lesion() // 8).to(torch.uint8), "IMAGE_DARK", id="far too dark"),
        pytest.param((lesion().int() * 4).clamp(0, 255).to(torch.uint8), "IMAGE_BRIGHT", id="overexposed"),
        pytest.param(lesion(20, 400), "IMAGE_TOO_SMALL", id="a strip"),
    ],
)
def test_an_image_that_shows_next_to_nothing_is_refused(photo, code):
    assert refusal(photo) == code


def out_of_focus(sigma):
    """A lesion on skin with a fine texture, blurred by ``sigma`` pixels at a long side of 512."""
    texture = np.random.default_rng(1).normal(0, 0.1, (384, 512))
    sharp = lesion(384, 512, noise=0.0).float() / 255 + torch.from_numpy(texture[None])
    return to_bytes(torch.from_numpy(ndimage.gaussian_filter(sharp.numpy(), (0, sigma, sigma))))


@pytest.mark.parametrize(("sigma", "answer"), [(1.0, "ok"), (5.0, "warned"), (10.0, "refused")])
def test_an_image_out_of_focus_is_warned_of_and_far_out_of_focus_refused(sigma, answer):
    check = skin_findings(out_of_focus(sigma))
    assert (check.refusal.code if check.refusal else None) == (
        "IMAGE_BLURRED" if answer == "refused" else None
    )
    assert ("IMAGE_BLURRED" in codes(check)) is (answer == "warned")


def test_the_focus_of_a_camera_s_image_is_that_of_its_copy_at_512_pixels():
    small = out_of_focus(4.0)
    large = torch.nn.functional.interpolate(small[None], scale_factor=2, mode="bilinear")[0]
    assert measure_skin(large).blur == pytest.approx(measure_skin(small).blur, abs=0.02)


def test_in_a_small_image_the_focus_is_not_judged_and_that_is_said():
    check = skin_findings(lesion(28, 28))
    assert check.measures.blur is None
    assert codes(check) == ["IMAGE_SMALL"]


def test_skin_without_a_lesion_is_said_to_show_none_also_beside_a_ruler():
    bare = lesion(mole=LIGHT).float() / 255
    bare = bare * torch.linspace(0.95, 1.05, 400)  # light from one side, or it would be blank
    assert codes(skin_findings(to_bytes(bare))) == ["LESION_NOT_SEEN"]
    bare[:, 4:24, ::16] = 0.1  # marks of a ruler along the upper edge
    bare[:, 4:24, 1::16] = 0.1
    assert codes(skin_findings(to_bytes(bare))) == ["LESION_NOT_SEEN"]


def test_black_corners_are_noted_and_change_no_other_measure_much():
    plain = lesion().float() / 255
    round_one = to_bytes(add_vignette(plain, radius=0.7, softness=0.02))
    check = skin_findings(round_one)
    assert codes(check) == ["IMAGE_VIGNETTE"]
    before = measure_skin(to_bytes(plain))
    assert 0.3 < check.measures.surround_share < 0.6
    assert check.measures.hue_spread == pytest.approx(before.hue_spread, abs=1.0)
    assert check.measures.lightest == pytest.approx(before.lightest, abs=1.0)


def test_many_hairs_are_noted():
    hairy = draw_hairs(lesion().float() / 255, num_hairs=25, width=0.01, rng=np.random.RandomState(0))
    assert codes(skin_findings(to_bytes(hairy))) == ["IMAGE_HAIR"]


def test_a_long_image_is_warned_of():
    assert codes(skin_findings(lesion(200, 640))) == ["IMAGE_ASPECT"]
    assert codes(skin_findings(lesion(200, 400))) == []


def test_green_in_part_of_the_image_is_warned_of_and_in_much_of_it_refused():
    photo = lesion()
    photo[:, :30] = torch.tensor([130, 150, 100], dtype=torch.uint8)[:, None, None]
    check = skin_findings(photo)
    assert check.refusal is None
    assert "parts are green, blue or bright yellow (0.1" in check.findings[0].message
    photo[:, :90] = photo[:, :1]
    assert refusal(photo) == "IMAGE_NOT_SKIN"


def test_the_hue_agreement_of_two_opposite_hues_is_small():
    half = torch.zeros(3, 56, 56, dtype=torch.uint8)
    lab = np.array([[60.0, 30.0, 0.0], [60.0, -30.0, 0.0]])
    colours = to_bytes(torch.from_numpy(lab2rgb(lab[None]))[0].T)  # (3, 2)
    half[:, :28], half[:, 28:] = colours[:, :1, None], colours[:, 1:, None]
    found = measure_skin(half)
    assert found.hue_agreement < 0.05
    assert found.hue_spread == pytest.approx(30.0, abs=1.5)
    assert found.foreign_share == pytest.approx(0.5, abs=0.05)


def test_the_transform_adds_findings_and_refuses_by_code():
    photo = MetaTensor(lesion(200, 640), meta={"source": "photograph"})
    out = SkinGated()({"image": photo})
    assert [finding.code for finding in out["image_findings"]] == ["IMAGE_ASPECT"]
    assert out["image"] is photo
    with pytest.raises(InputRefused, match="IMAGE_NOT_SKIN"):
        SkinGated()({"image": tensor_of(data.astronaut())})


def test_where_nothing_is_to_be_refused_the_refusal_becomes_a_warning():
    out = SkinGated(refuses=False)({"image": tensor_of(data.astronaut())})
    assert out["image_findings"][0].code == "IMAGE_NOT_SKIN"
    assert "restless" in out["image_findings"][0].message


def test_limits_can_be_given_as_a_configuration_gives_them():
    gate = SkinGated(limits={"max_aspect": 1.1, "min_side_px": 100, "max_blur": [0.85, 0.9]})
    assert [finding.code for finding in gate({"image": lesion()})["image_findings"]] == ["IMAGE_ASPECT"]
    with pytest.raises(InputRefused, match="IMAGE_TOO_SMALL"):
        gate({"image": lesion(90, 120)})
    assert gate.limits.max_blur == (0.85, 0.9)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_blur": (0.9, 0.5)}, "max_blur must refuse no earlier than it warns"),
        ({"min_chroma": (5.0, 9.0)}, "min_chroma must refuse no earlier than it warns"),
        ({"max_blur": (0.9,)}, "max_blur must be two numbers"),
        ({"min_side_px": -1}, "min_side_px must not be negative"),
    ],
)
def test_limits_out_of_range_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        SkinGated(limits=limits)


@pytest.mark.parametrize("shape", [(1, 200, 200), (3, 200), (3, 0, 200)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"photo must be \(3, H, W\) uint8"):
        skin_findings(torch.zeros(shape, dtype=torch.uint8))


def test_the_answer_is_the_same_for_an_enlarged_copy():
    small = Image.fromarray(lesion(120, 160).permute(1, 2, 0).numpy())
    large = small.resize((640, 480), Image.Resampling.BICUBIC)
    one, other = (measure_skin(tensor_of(picture)) for picture in (small, large))
    for name in ("chroma", "hue_agreement", "hue_spread", "unrest", "contrast", "lightest"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=0.05)
