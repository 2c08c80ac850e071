"""From a CT and a mask to network input: equal for every kind of input, and nothing decoded in vain."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from shared_nets.data.ct_reader import CTReader
from shared_nets.data.mask_reader import MaskReader
from shared_nets.data.phantom import make_phantom, write_dicom_series, write_nifti
from shared_nets.refusals import InputRefused
from shared_nets.transforms.load_kidney_slices import LoadKidneySlicesd
from shared_nets.types import Finding


class FakeReader:
    """A CT in memory that remembers which slices were asked for."""

    def __init__(self, hu, affine):
        self.hu, self.affine, self.asked = hu, affine, []

    def read(self, path):
        return SimpleNamespace(
            shape=self.hu.shape,
            affine=self.affine,
            series_uid="1.2.3",
            study_uid="1.2",
            sop_uids=tuple(f"1.2.3.{k}" for k in range(self.hu.shape[2])),
            source="dicom",
            header={"KVP": "120"},
            repairs=(),
            warnings=(),
        )

    def get_data(self, series, slices=None):
        self.asked.append(slices)
        repairs = [{"code": "PADDING_REPLACED", "message": "Padding became air."}]
        return (self.hu if slices is None else self.hu[:, :, slices]), {"repairs": repairs, "warnings": []}


@pytest.fixture(scope="module")
def phantom():
    """Kidneys of 160 and 150 mL in 128 × 128 × 56 voxels of 3 mm."""
    return make_phantom()


@pytest.fixture
def in_memory(phantom):
    """The phantom as loaded volumes."""
    return {
        "image": MetaTensor(torch.from_numpy(phantom.hu)[None], affine=torch.from_numpy(phantom.affine)),
        "mask": MetaTensor(torch.from_numpy(phantom.labels)[None], affine=torch.from_numpy(phantom.affine)),
    }


def loader(**options):
    return LoadKidneySlicesd(
        **{"label_set": "totalsegmentator", "num_slices": 12, "img_size": 64, "window_hu": (-160, 240)}
        | options
    )


def test_a_sample_holds_what_the_network_and_the_result_need(in_memory):
    out = loader()(in_memory)
    assert out["image"].shape == (12, 64, 64)
    assert out["image"].dtype == torch.float32
    assert 0.0 == out["image"].min() < out["image"].max() <= 1.0
    assert out["slice_valid"].tolist() == [True] * 12
    positions = out["slice_positions_mm"]
    assert positions.dtype == torch.float32
    assert (positions.diff() > 0).all()
    assert positions[0] == pytest.approx(-positions[-1], abs=3.0)  # the phantom is nearly symmetric
    selection = out["slice_selection"]
    assert selection["mask"]["label_set"] == "totalsegmentator"
    assert selection["mask"]["source"] == "memory"
    assert len(selection["indices"]) == len(selection["areas_mm2"]) == len(selection["positions_mm"]) == 12
    assert selection["findings"] == []
    assert selection["image"]["spacing_mm"] == [3.0, 3.0, 3.0]


def test_only_the_chosen_slices_are_decoded(phantom, in_memory):
    reader = FakeReader(phantom.hu, phantom.affine)
    out = loader(image_reader=reader, num_slices=5)({"image": "some/folder", "mask": in_memory["mask"]})
    indices = out["slice_selection"]["indices"]
    assert reader.asked == [indices]
    assert out["slice_selection"]["image"]["sop_uids"] == [f"1.2.3.{k}" for k in indices]
    assert out["slice_selection"]["image"]["series_uid"] == "1.2.3"
    assert [r.code for r in out["slice_selection"]["image"]["repairs"]] == ["PADDING_REPLACED"]


def test_a_mask_as_content_decodes_the_slices_for_people_only(phantom, in_memory):
    reader = FakeReader(phantom.hu, phantom.affine)
    out = loader(image_reader=reader, content="mask")({"image": "some/folder", "mask": in_memory["mask"]})
    assert [len(asked) for asked in reader.asked] == [4]
    assert set(reader.asked[0]) < set(out["slice_selection"]["indices"])


def test_a_mask_alone_is_enough_for_its_own_content(in_memory):
    with_ct = loader(content="mask")(in_memory)
    alone = loader(content="mask")({"mask": in_memory["mask"]})
    assert torch.equal(alone["image"], with_ct["image"])
    assert torch.equal(alone["slice_positions_mm"], with_ct["slice_positions_mm"])
    assert all(shown["hu"] is None for shown in alone["picture_slices"])
    assert alone["picture_slices"][0]["labels"].shape == (128, 128)


@pytest.mark.parametrize("content", ["masked_ct", "ct", "mask"])
def test_the_axes_of_the_volumes_make_no_difference(phantom, reorient, all_orientations, content):
    options = {"content": content, "num_slices": 3, "pixel_size_mm": 4.0}
    expected = None
    for number, orientation in enumerate(all_orientations):
        sample = {}
        for key, volume, turn in (
            ("image", phantom.hu, orientation),
            ("mask", phantom.labels, all_orientations[-number]),  # the mask has other axes than the image
        ):
            turned, affine = reorient(volume, phantom.affine, turn)
            sample[key] = MetaTensor(torch.from_numpy(turned.copy())[None], affine=torch.from_numpy(affine))
        out = loader(**options)(sample)
        found = (out["image"], out["slice_positions_mm"], torch.from_numpy(out["picture_slices"][1]["hu"]))
        expected = expected or found
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_right_is_left_in_the_picture_and_front_is_up(in_memory, phantom):
    out = loader(content="mask", num_slices=1)(in_memory)
    rows = out["image"][0].nonzero()[:, 0]
    assert rows.float().mean() > 32  # kidneys lie behind the middle of the body
    labels = out["picture_slices"][0]["labels"]
    whole = phantom.labels[
        :, :, out["slice_selection"]["indices"][0]
    ].T  # rows to the back, columns to the left
    assert np.array_equal(labels, np.isin(whole, (2, 3)))


def test_a_coronal_scan_gives_axial_slices(phantom, in_memory):
    coronal = np.ascontiguousarray(phantom.hu.transpose(0, 2, 1))
    affine = phantom.affine[:, [0, 2, 1, 3]]
    reader = FakeReader(coronal, affine)
    out = loader(image_reader=reader)({"image": "coronal", "mask": in_memory["mask"]})
    assert torch.equal(out["image"], loader()(in_memory)["image"])
    assert reader.asked == [None]  # every coronal slice holds a row of every axial one


def test_dicom_and_nifti_and_memory_give_equal_bits(phantom, in_memory, tmp_path):
    write_dicom_series(phantom.hu, phantom.affine, tmp_path / "ct")
    write_nifti(phantom.hu, phantom.affine, tmp_path / "ct.nii.gz")
    write_nifti(phantom.labels[:, ::-1], phantom.affine @ _flip(1, 128), tmp_path / "mask.nii.gz")
    load = loader(image_reader=CTReader(), mask_reader=MaskReader(), crop_margin_mm=10.0)
    expected = load(in_memory)["image"]
    for name in ("ct", "ct.nii.gz"):
        out = load({"image": tmp_path / name, "mask": tmp_path / "mask.nii.gz"})
        assert torch.equal(out["image"], expected)
        assert "MASK_REORIENTED" in [repair.code for repair in out["slice_selection"]["image"]["repairs"]]
        assert out["slice_selection"]["mask"]["source"] == "nifti"


def _flip(axis, size):
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1, size - 1
    return matrix


def test_short_kidneys_repeat_slices_rather_than_pad(in_memory):
    out = loader(num_slices=64)(in_memory)
    valid = out["slice_valid"]
    assert valid.sum() == out["slice_selection"]["num_kidney_slices"]
    repeats = (~valid).nonzero().flatten()
    assert len(repeats)
    assert torch.equal(out["image"][repeats], out["image"][repeats - 1])


def test_kidney_labels_keep_volume_place_and_width(in_memory, phantom):
    labels = loader()(in_memory)["kidney_labels"]
    assert labels.dtype == torch.uint8
    assert labels.shape[:2] == (1, 128)  # the whole width, right to left
    assert labels.shape[2] < 128
    kidney = np.isin(phantom.labels, (2, 3))
    assert int(labels.sum()) == kidney.sum()
    first = labels.affine.numpy() @ [*np.argwhere(labels[0].numpy())[0], 1]
    assert first == pytest.approx(phantom.affine @ [*np.argwhere(kidney)[0], 1])
    assert not labels[0, :, 0].any()  # a voxel of background all around


def test_a_cut_off_kidney_is_reported_and_flagged():
    cut = make_phantom(cut_lower_mm=20.0)
    sample = {
        "mask": MetaTensor(torch.from_numpy(cut.labels)[None], affine=torch.from_numpy(cut.affine)),
    }
    out = loader(content="mask")(sample)
    assert out["kidney_is_cut_off"] is True
    assert "inferior pole is cut off" in out["slice_selection"]["findings"][0].message
    assert out["kidney_labels"][0, :, :, 0].any()  # the cut stays at the border of what is handed on


def test_a_mask_over_other_tissue_is_reported(in_memory):
    air = in_memory["image"].clone().fill_(-900)
    (finding,) = loader()({**in_memory, "image": air})["slice_selection"]["findings"]
    assert finding.code == "KIDNEY_DENSITY_UNUSUAL"
    assert "-900 HU" in finding.message


def test_kidneys_that_leave_the_picture_are_reported(in_memory):
    (finding,) = loader(pixel_size_mm=1.0)(in_memory)["slice_selection"]["findings"]
    assert finding == Finding(
        code="KIDNEY_OUTSIDE_PICTURE",
        message="The kidneys are larger than the network's picture, which leaves their edge out.",
    )


def test_the_label_set_of_a_sample_goes_first(in_memory):
    found = loader(label_set="kits")({**in_memory, "label_set": "totalsegmentator"})
    assert found["slice_selection"]["mask"]["label_set"] == "totalsegmentator"
    with pytest.raises(InputRefused, match="MASK_LABELS_UNKNOWN"):
        loader(label_set="kits")(in_memory)


def test_codes_of_segments_go_before_numbers(in_memory):
    in_memory["mask"].meta["segment_labels"] = {2: "9846003", 3: "18639004", 5: "10200004"}
    assert loader(label_set="kidney")(in_memory)["slice_selection"]["mask"]["label_set"] == "dicom_seg"
    del in_memory["mask"].meta["segment_labels"]
    with pytest.raises(InputRefused, match="carries no segment codes"):
        loader(label_set="dicom_seg")(in_memory)


def test_volumes_of_floats_are_left_as_they_are(in_memory):
    floats = {key: value.float() for key, value in in_memory.items()}
    before = floats["image"].clone()
    out = loader()(floats)
    assert torch.equal(floats["image"], before)
    assert torch.equal(out["image"], loader()(in_memory)["image"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"mask": None}, "MASK_MISSING"),
        ({"mask": ""}, "MASK_MISSING"),
        ({"image": None}, "INPUT_NOT_FOUND"),
        ({"image": MetaTensor(torch.zeros(2, 4, 4, 4), affine=torch.eye(4))}, "GEOMETRY_NOT_A_VOLUME"),
    ],
)
def test_what_is_missing_is_refused(in_memory, change, code):
    with pytest.raises(InputRefused) as caught:
        loader()({**in_memory, **change})
    assert caught.value.code == code


def test_values_that_are_not_numbers_are_refused(in_memory):
    image = in_memory["image"].float()
    image[:] = float("nan")
    with pytest.raises(InputRefused, match="PIXEL_NOT_FINITE"):
        loader()({**in_memory, "image": image})


@pytest.mark.parametrize("key", ["image", "mask"])
def test_paths_need_a_reader_and_arrays_an_affine(in_memory, key):
    with pytest.raises(ValueError, match=f"{key}_reader must be given"):
        loader()({**in_memory, key: "some/path"})
    with pytest.raises(ValueError, match=f"{key} must be a MetaTensor with an affine, got ndarray"):
        loader()({**in_memory, key: np.zeros((4, 4, 4))})


def test_an_unknown_label_set_is_an_error():
    with pytest.raises(ValueError, match="label_set must be one of"):
        LoadKidneySlicesd(label_set="lungs")


@pytest.mark.registry
def test_a_real_scan_shows_62_mm_of_both_kidneys_without_lower_poles(lidc_dicom, lidc_nifti, lidc_mask):
    load = loader(image_reader=CTReader(), mask_reader=MaskReader(), num_slices=16)
    out = load({"image": lidc_dicom, "mask": lidc_mask})
    selection = out["slice_selection"]
    assert selection["positions_mm"][-1] - selection["positions_mm"][0] == 62.5
    assert [finding.code for finding in selection["findings"]] == ["KIDNEY_CUT_OFF"] * 2
    assert all("inferior pole" in finding.message for finding in selection["findings"])
    assert torch.equal(out["image"], load({"image": lidc_nifti, "mask": lidc_mask})["image"])


@pytest.mark.registry
def test_whole_kidneys_of_a_real_scan_keep_their_volume(totalsegmentator_ct, totalsegmentator_mask):
    load = loader(image_reader=CTReader(), mask_reader=MaskReader(), num_slices=16)
    out = load({"image": totalsegmentator_ct, "mask": totalsegmentator_mask})
    assert out["slice_selection"]["findings"] == []
    assert float(out["kidney_labels"].sum()) * 27 / 1000 == pytest.approx(192.6 + 137.4, abs=0.1)  # mL
