"""Unpacked releases in the folder of bundles: each answers by the code that it carries, side by side."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests

from shared_nets.runtime.carried_code import carried_package
from tests.tools.monailabel_app.live_server import (
    Server,
    parts_of,
    running_server,
    runtime_answer,
    write_studies,
)

pytest.importorskip("cyclonedx", reason="needs pip install 'shared_nets[release]'")

from tests.tools.releases import changed_code, package, unpack

KIDNEY, CKD, LESION = "kidney_ct_segmentation", "ckd_staging_classification", "mambaderm_classification"
NEWER = "newer_ct_segmentation"
OLD_WORDS, NEW_WORDS = "were not checked by a human", "were checked by nobody, says the new release"
#: A change to every part of an answer: numbers and words, mask, DICOM, names, picture, code of a refusal.
CHANGES = {
    "__init__.py": ('__version__ = "0.1.0"', '__version__ = "0.2.0"'),
    "transforms/kidney_result.py": (OLD_WORDS, NEW_WORDS),
    "writers/kidney_nifti.py": ("    return gzip", '    image.header["descrip"] = b"newer"\n    return gzip'),
    "types.py": ('1: "right kidney"', '1: "kidney on the right"'),
    "writers/kidney_picture.py": ("Kidney segmentation", "Segmentation of kidneys"),
    "refusals.py": ('"PIXEL_NOT_HU"', '"PIXEL_NOT_HOUNSFIELD"'),
    "transforms/abdomen_gate.py": ('InputRefused("PIXEL_NOT_HU"', 'InputRefused("PIXEL_NOT_HOUNSFIELD"'),
}

pytestmark = pytest.mark.xdist_group("monailabel")


@pytest.fixture(scope="module")
def released(label_installed, tmp_path_factory) -> Iterator[Server]:
    """A server of the released bundles, and of one more whose code is of a later release."""
    folder = tmp_path_factory.mktemp("released")
    write_studies(folder / "studies")
    bundles = folder / "bundles"
    for name in (KIDNEY, CKD, LESION):
        unpack(package(name, folder / "dist"), bundles)
    code = changed_code(folder, CHANGES)
    unpack(package(KIDNEY, folder / "newer", package=code), folder / "newer").rename(bundles / NEWER)
    with running_server(folder, "--bundles", str(bundles)) as server:
        yield server


def test_releases_answer_by_their_own_code_with_the_bytes_of_the_repository(
    released, kidney_runtime, ckd_runtime, lesion_runtime, tmp_path
):
    """The same bundles, so the same answers, whichever copy of the code gave them."""
    bundles = released.work.parent / "bundles"
    assert carried_package(bundles / KIDNEY) is not None
    series = str(released.studies / "series")
    params, mask = parts_of(released.infer(KIDNEY, image=series, output="all"))
    result, _ = runtime_answer(kidney_runtime, tmp_path / "kidney", study_id="study", image=series)
    assert params == {"result": result, "label_names": {"right kidney": 1, "left kidney": 2}}
    volume = str(released.studies / "phantom.nii.gz")
    result, files = runtime_answer(kidney_runtime, tmp_path / "nifti", study_id="phantom", image=volume)
    params, same_mask = parts_of(released.infer(KIDNEY, image="phantom", output="all"))
    assert params["result"] == result
    assert same_mask == Path(files["kidneys.nii.gz"]).read_bytes()
    assert np.array_equal(labels_of(mask), labels_of(same_mask))

    study = {"study_id": "man", "clinical": {"age": 60, "sex": "male"}}
    asked = json.dumps(study)
    answer = released.infer(CKD, image=series, output="json", params=asked).json()
    assert answer["result"] == runtime_answer(ckd_runtime, tmp_path / "ckd", image=series, **study)[0]

    params, picture = parts_of(released.infer(LESION, image="lesion", output="all"))
    path = str(released.studies / "lesion.jpg")
    result, files = runtime_answer(lesion_runtime, tmp_path / "lesion", study_id="lesion", image=path)
    assert params == {"result": result, "label_names": {}}
    assert picture == Path(files["picture.png"]).read_bytes()


def labels_of(nifti: bytes) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(nifti)).dataobj)


def test_two_releases_in_one_process_keep_their_own_words_masks_and_pictures(released):
    series = str(released.studies / "series")
    (old, old_mask), (new, new_mask) = (
        parts_of(released.infer(name, image=series, output="all")) for name in (KIDNEY, NEWER)
    )
    assert old["result"]["kidneys"] == new["result"]["kidneys"]
    assert OLD_WORDS in old["result"]["statements"][0]
    assert NEW_WORDS in new["result"]["statements"][0]
    versions = [answer["result"]["provenance"]["packages"]["shared_nets"] for answer in (old, new)]
    assert versions == ["0.1.0", "0.2.0"]
    assert set(old["label_names"]) == {"right kidney", "left kidney"}
    assert set(new["label_names"]) == {"kidney on the right", "left kidney"}
    descriptions = [
        nib.Nifti1Image.from_bytes(gzip.decompress(mask)).header["descrip"].item()
        for mask in (old_mask, new_mask)
    ]
    assert descriptions == [b"", b"newer"]
    assert np.array_equal(labels_of(old_mask), labels_of(new_mask))


def test_two_releases_in_one_process_write_their_own_dicom_and_pictures(released, tmp_path):
    series, got = str(released.studies / "series"), {}
    for name in (KIDNEY, NEWER):
        for extension in (".dcm", ".png"):
            asked = json.dumps({"result_extension": extension})
            response = released.infer(name, image=series, output="image", params=asked)
            assert response.status_code == 200, response.text
            (tmp_path / f"{name}{extension}").write_bytes(response.content)
            got[name, extension] = response.content
        segments = pydicom.dcmread(tmp_path / f"{name}.dcm").SegmentSequence
        got[name, "labels"] = [segment.SegmentLabel for segment in segments]
    assert got[KIDNEY, "labels"] == ["Right kidney", "Left kidney"]
    assert got[NEWER, "labels"] == ["Kidney on the right", "Left kidney"]
    assert got[NEWER, ".png"].startswith(b"\x89PNG")
    assert got[NEWER, ".png"] != got[KIDNEY, ".png"]


def test_what_another_release_refuses_is_a_422_even_by_a_code_that_the_server_does_not_know(released):
    for name, code in ((KIDNEY, "PIXEL_NOT_HU"), (NEWER, "PIXEL_NOT_HOUNSFIELD")):
        response = released.infer(name, image="noise")
        assert response.status_code == 422
        assert response.json()["detail"]["code"] == code
    query = {"images": "all", "run_sync": "true"}
    url = f"{released.url}/batch/infer/{NEWER}"
    done = requests.post(url, params=query, json={"label_tag": "original"}, timeout=600).json()
    assert done["noise"]["params"]["refusal"]["code"] == "PIXEL_NOT_HOUNSFIELD"


def test_a_released_bundle_is_trained_by_its_own_code(released, tmp_path):
    truth = nib.load(released.studies.parent / "truth.nii.gz")
    labels = np.select([np.asarray(truth.dataobj) == number for number in (2, 3)], [1, 2])
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), truth.affine), tmp_path / "mask.nii.gz")
    with (tmp_path / "mask.nii.gz").open("rb") as file:
        url, image = f"{released.url}/datastore/label", {"image": "phantom"}
        requests.put(url, params=image, files={"label": file}, timeout=60).raise_for_status()
    response = requests.post(
        f"{released.url}/train/{NEWER}",
        params={"run_sync": "true"},
        json={"max_epochs": 1, "epoch_length": 2},
        timeout=600,
    )
    assert response.status_code == 200, response.text
    result = released.infer(NEWER, image="phantom", output="json").json()["result"]
    assert result["provenance"]["weights_sha256"]["model"] == response.json()["sha256"]
    assert NEW_WORDS in result["statements"][0]
    assert "trained further on this server, submitted masks: 1" in result["statements"][-1]
