"""A DICOMweb server as the app uses it: series are fetched whole, masks and results go back as DICOM."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests

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
        self.keeps_back = 0
        self.loses: list[str] = []
        self.answers_with: requests.RequestException | None = None

    def set_http_retry_params(self, retry: bool) -> None:
        assert not retry

    @property
    def series_uid(self) -> str:
        return self.images[0].SeriesInstanceUID

    def search_for_series(self, search_filters: dict) -> list[dict]:
        if self.answers_with is not None:
            raise self.answers_with
        image = self.images[0]
        if any(image[keyword].value != value for keyword, value in search_filters.items()):
            return []
        found = pydicom.Dataset()
        for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "PatientName", "Modality"):
            found[keyword] = image[keyword]
        found.NumberOfSeriesRelatedInstances = len(self.images)
        return [found.to_json_dict()]

    def iter_series(self, study_uid: str, series_uid: str, media_types: object):
        assert (study_uid, series_uid) == (self.images[0].StudyInstanceUID, self.series_uid)
        assert media_types == (("application/dicom", "*"),)
        self.fetched += 1
        for number, image in enumerate(self.images[: len(self.images) - self.keeps_back]):
            if number == self.breaks_after:
                raise requests.exceptions.ChunkedEncodingError("the line went dead")
            yield image

    def store_instances(self, datasets: list[pydicom.Dataset]) -> pydicom.Dataset:
        kept = [dataset for dataset in datasets if dataset.Modality not in self.loses]
        self.stored += kept
        answer = pydicom.Dataset()
        answer.FailedSOPSequence, answer.ReferencedSOPSequence = [], [pydicom.Dataset() for _ in kept]
        for item, dataset in zip(answer.ReferencedSOPSequence, kept, strict=True):
            item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
        return answer


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


def test_a_series_that_is_asked_for_several_times_at_once_is_fetched_once(store, pacs):
    with ThreadPoolExecutor(4) as clients:
        folders = list(clients.map(store.get_image_uri, 4 * [pacs.series_uid]))
    assert len(set(folders)) == 1
    assert pacs.fetched == 1


def test_a_series_whose_transfer_broke_off_is_fetched_anew(store, pacs):
    pacs.breaks_after = 10
    with pytest.raises(InputRefused) as refused:
        store.get_image_uri(pacs.series_uid)
    assert refused.value.code == "SERVER_UNREACHABLE"
    pacs.breaks_after = None
    assert len(list(Path(store.get_image_uri(pacs.series_uid)).iterdir())) == 24


def test_a_series_of_which_the_server_sends_too_little_is_refused_and_not_kept(store, pacs):
    pacs.keeps_back = 1
    with pytest.raises(InputRefused, match="the series has 24 images, and sent 23") as refused:
        store.get_image_uri(pacs.series_uid)
    assert refused.value.code == "SERIES_INCONSISTENT"
    pacs.keeps_back = 0
    assert len(list(Path(store.get_image_uri(pacs.series_uid)).iterdir())) == 24


def test_a_series_that_grew_or_got_another_name_is_fetched_anew(store, pacs):
    images, pacs.images = pacs.images, pacs.images[:20]
    assert len(list(Path(store.get_image_uri(pacs.series_uid)).iterdir())) == 20
    pacs.images = images
    assert len(list(Path(store.get_image_uri(pacs.series_uid)).iterdir())) == 24
    for image in images:
        image.PatientName = "Corrected^Name"
    folder = Path(store.get_image_uri(pacs.series_uid))
    assert {str(pydicom.dcmread(path).PatientName) for path in folder.iterdir()} == {"Corrected^Name"}
    assert pacs.fetched == 3


def test_a_series_is_listed_when_it_has_one_of_the_values_that_the_filter_names(
    label_installed, pacs, tmp_path
):
    from tools.monailabel_app.stores import DicomWebStore

    for modalities, number in ((["XC", "CT"], 1), ("CT", 1), (["XC", "DMS"], 0), ([], 0)):
        store = DicomWebStore(
            client=pacs,
            search_filter={"Modality": modalities},
            cache_path=str(tmp_path / "cache"),
            convert_to_nifti=False,
        )
        assert len(store.list_images()) == number
        assert len(store.json()["objects"]) == number


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (None, "SERVER_UNREACHABLE"),
        (401, "SERVER_NO_PERMISSION"),
        (403, "SERVER_NO_PERMISSION"),
        (404, "SERVER_REFUSED"),
        (503, "SERVER_REFUSED"),
    ],
)
def test_what_is_wrong_with_the_server_is_told_without_its_address(store, pacs, status, code):
    pacs.answers_with = requests.ConnectionError("http://name:password@pacs")
    if status:
        response = requests.Response()
        response.status_code = status
        pacs.answers_with = requests.HTTPError("http://name:password@pacs", response=response)
    for asked in (store.list_images, lambda: store.get_image_uri(pacs.series_uid)):
        with pytest.raises(InputRefused) as refused:
            asked()
        assert refused.value.code == code
        assert "pacs" not in str(refused.value)


def test_objects_that_the_server_did_not_store_are_told(store, pacs, tmp_path):
    objects = {}
    for modality in ("SR", "OT"):
        image = pacs.images[0].copy()
        image.Modality, image.SOPInstanceUID = modality, f"1.2.{len(modality)}.{ord(modality[0])}"
        pydicom.dcmwrite(tmp_path / "object.dcm", image)
        objects[modality] = (tmp_path / "object.dcm").read_bytes()
    assert [one["modality"] for one in store.store(objects)] == ["SR", "OT"]
    pacs.loses = ["OT"]
    with pytest.raises(InputRefused, match="did not store 1 of 2 DICOM objects") as refused:
        store.store(objects)
    assert refused.value.code == "SERVER_REFUSED"


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
