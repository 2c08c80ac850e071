"""A DICOMweb server as the app uses it: series are fetched whole, masks and results go back as DICOM."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from shared_nets.data.phantom import make_phantom, write_dicom_series
from shared_nets.refusals import InputRefused

pytestmark = pytest.mark.xdist_group("monailabel")


class Pacs:
    """What the store asks of a DICOMweb client, over one series in memory."""

    base_url = "http://127.0.0.1/dicom-web"

    def __init__(self, folder: Path) -> None:
        self.images = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        self.stored: list[pydicom.Dataset] = []
        self.fetched = 0
        self.breaks_after: int | None = None

    @property
    def series_uid(self) -> str:
        return self.images[0].SeriesInstanceUID

    def search_for_series(self, search_filters: dict) -> list[dict]:
        if search_filters.get("SeriesInstanceUID", self.series_uid) != self.series_uid:
            return []
        image = self.images[0]
        found = pydicom.Dataset()
        found.SeriesInstanceUID, found.StudyInstanceUID = image.SeriesInstanceUID, image.StudyInstanceUID
        return [found.to_json_dict()]

    def retrieve_series(self, study_uid: str, series_uid: str):
        assert (study_uid, series_uid) == (self.images[0].StudyInstanceUID, self.series_uid)
        self.fetched += 1
        for number, image in enumerate(self.images):
            if number == self.breaks_after:
                raise ConnectionError("the line went dead")
            yield image

    def store_instances(self, datasets: list[pydicom.Dataset]) -> None:
        self.stored += datasets


@pytest.fixture
def phantom():
    return make_phantom(right_ml=150.0, left_ml=130.0, shape=(48, 40, 24), spacing_mm=(5.0, 5.0, 5.0))


@pytest.fixture
def pacs(phantom, tmp_path):
    write_dicom_series(phantom.hu, phantom.affine, tmp_path / "series")
    return Pacs(tmp_path / "series")


@pytest.fixture
def store(label_installed, pacs, tmp_path):
    import tools.monailabel_app  # noqa: F401  stands in for what MONAI Label lacks
    from tools.monailabel_app.stores import DicomWebStore

    return DicomWebStore(
        client=pacs, search_filter={}, cache_path=str(tmp_path / "cache"), convert_to_nifti=False
    )


def test_a_series_is_fetched_once_and_kept_as_dicom(store, pacs):
    folder = Path(store.get_image_uri(pacs.series_uid))
    assert store.get_image_uri(pacs.series_uid) == str(folder)
    assert pacs.fetched == 1
    kept = {pydicom.dcmread(path).SOPInstanceUID for path in folder.iterdir()}
    assert kept == {image.SOPInstanceUID for image in pacs.images}


def test_a_series_whose_transfer_broke_off_is_fetched_anew(store, pacs):
    pacs.breaks_after = 10
    with pytest.raises(ConnectionError):
        store.get_image_uri(pacs.series_uid)
    pacs.breaks_after = None
    assert len(list(Path(store.get_image_uri(pacs.series_uid)).iterdir())) == 24


@pytest.mark.parametrize("name", ["1.2.3", "../../etc", "", "phantom"])
def test_a_series_that_the_server_does_not_have_is_refused(store, name):
    with pytest.raises(InputRefused) as refused:
        store.get_image_uri(name)
    assert refused.value.code == "SERIES_NOT_FOUND"


def test_a_final_mask_goes_to_the_server_as_segmentation_and_counts_as_label(store, pacs, phantom, tmp_path):
    mask = tmp_path / "mask.nii.gz"
    labels = np.where(phantom.labels == 2, 1, np.where(phantom.labels == 3, 2, 0)).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, phantom.affine), mask)
    assert store.get_labeled_images() == []
    store.save_label(pacs.series_uid, str(mask), "final", {})
    (segmentation,) = pacs.stored
    assert segmentation.Modality == "SEG"
    assert segmentation.StudyInstanceUID == pacs.images[0].StudyInstanceUID
    assert [s.SegmentLabel for s in segmentation.SegmentSequence] == ["Right kidney", "Left kidney"]
    assert {s.SegmentAlgorithmType for s in segmentation.SegmentSequence} == {"SEMIAUTOMATIC"}
    assert int(segmentation.pixel_array.sum()) == int((labels > 0).sum())
    assert store.get_labeled_images() == [pacs.series_uid]
    (pair,) = store.datalist()
    assert Path(pair["image"]).name == pacs.series_uid
    assert np.array_equal(np.asarray(nib.load(pair["label"]).dataobj), labels)


def test_a_mask_of_another_place_is_refused_and_not_sent(store, pacs, phantom, tmp_path):
    mask = tmp_path / "mask.nii.gz"
    affine = phantom.affine.copy()
    affine[2, 3] += 500.0
    nib.save(nib.Nifti1Image((phantom.labels == 2).astype(np.uint8), affine), mask)
    with pytest.raises(InputRefused) as refused:
        store.save_label(pacs.series_uid, str(mask), "final", {})
    assert refused.value.code == "MASK_GEOMETRY_MISMATCH"
    assert pacs.stored == []
