"""A photograph on its whole way: reader, network, set, saliency and every form that is written of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from shared_nets.data.photograph_reader import PhotographReader
from shared_nets.data.photograph_synthetic import dicom_photograph, write_dicom_photograph
from shared_nets.data.studies import StudyDataset, list_studies
from shared_nets.engines.study_evaluator import StudyEvaluator, keep_as_list
from shared_nets.handlers.dicom_form import Dicom, Nifti
from shared_nets.handlers.document_forms import Fhir, Page
from shared_nets.handlers.finished_study import Picture
from shared_nets.handlers.study_results import StudyResults
from shared_nets.inferers.dihedral_views import DihedralViewsInferer
from shared_nets.transforms.lesion_result import LesionResultd
from shared_nets.transforms.lesion_saliency import LesionEmbeddingd, LesionSaliencyd
from shared_nets.transforms.network_image import ToNetworkImaged
from shared_nets.types import LesionCalibration
from tests.writers.fhir_reading import r4_problems

BUNDLE = {
    "bundle": "mambaderm_classification",
    "bundle_version": "0.1.0",
    "config_sha256": "c" * 64,
    "weights_sha256": {"model": "d" * 64},
    "packages": {"monai": "1.6.1"},
}
CLASSES = ("nv", "mel")


class Darkness(nn.Module):
    """Calls a lesion a melanoma where the image is dark; its embedding is the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(-4.0))

    def forward_features(self, image: Tensor, metadata: Tensor | None = None) -> Tensor:
        return image.mean(dim=(2, 3))  # (B, 3)

    def forward(self, image: Tensor, metadata: Tensor | None = None) -> Tensor:
        dark = self.weight * self.forward_features(image).mean(dim=1)  # (B,)
        return torch.stack([torch.zeros_like(dark), dark], dim=1)  # (B, 2)


def calibration(**changes) -> LesionCalibration:
    fitted = {
        "temperature": 1.5,
        "conformal_quantiles": (0.3, 0.3),
        "coverage": 0.9,
        "num_calibration": 100,
        "ood_means": np.zeros((2, 3), dtype=np.float32),
        "ood_precision": np.eye(3, dtype=np.float32),
        "ood_limit": 50.0,
        "min_confidence": 0.5,
        "class_names": CLASSES,
    }
    return LesionCalibration(**{**fitted, **changes})


@pytest.fixture
def photographs(tmp_path) -> Path:
    """A dark mole as PNG and as DICOM, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows, columns = np.mgrid[0:48, 0:64]
    inside = (rows - 24) ** 2 + (columns - 32) ** 2 < 16**2
    pixels = np.where(inside[..., None], (70, 40, 30), (190, 150, 130)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    write_dicom_photograph(folder / "b.dcm", dicom_photograph(pixels))
    (folder / "c.jpg").write_bytes(b"no photograph")
    return folder


@pytest.fixture
def run(photographs, tmp_path):
    """Give ``run(calibration) -> folder with one folder a study``."""

    def evaluate(fitted: LesionCalibration | None, name: str = "out") -> Path:
        network = Darkness()
        preprocessing = [
            LoadImaged("image", reader=PhotographReader(), dtype=None, ensure_channel_first=True),
            ToNetworkImaged(img_size=28),
        ]
        postprocessing = [
            LesionEmbeddingd(network=network),
            LesionSaliencyd(network=network, temperature=1.5),
            LesionResultd(calibration=fitted, class_names=CLASSES, malignant_classes=["mel"]),
        ]
        handler = StudyResults(
            output_dir=tmp_path / name,
            provenance=lambda: BUNDLE,
            forms=[Picture(), Page(), Dicom(), Nifti(), Fhir()],
            created="2026-01-02T03:04:05+00:00",
            show_progress=False,
        )
        dataset = StudyDataset(list_studies(dataset_dir=str(photographs)), Compose(preprocessing))
        StudyEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(dataset, batch_size=1, collate_fn=keep_as_list),
            network=network,
            inferer=DihedralViewsInferer(4),
            postprocessing=Compose(postprocessing),
            val_handlers=[handler],
        ).run()
        return tmp_path / name

    return evaluate


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_photograph_and_a_dicom_photograph_end_in_all_their_forms_and_junk_in_a_refusal(run, caplog):
    with caplog.at_level(logging.INFO, logger="shared_nets.handlers.study_results"):
        out = run(calibration())
    assert names(out / "a") == ["page.html", "picture.png", "report.fhir.json", "result.json"]
    assert names(out / "b") == [
        *("page.html", "picture.png", "picture.sc.dcm"),
        *("report.fhir.json", "report.sr.dcm", "result.json"),
    ]
    assert names(out / "c") == ["refusal.json"]
    lines = [r.getMessage() for r in caplog.records if r.name == "shared_nets.handlers.study_results"]
    assert lines[0].startswith("a: M")
    assert "malignant class 0." in lines[0]


def test_both_photographs_have_the_same_numbers_and_their_own_source(run):
    out = run(calibration())
    a, b = (json.loads((out / name / "result.json").read_bytes()) for name in "ab")
    assert a["class_probabilities"] == b["class_probabilities"]
    assert a["ood_score"] == pytest.approx(b["ood_score"])
    assert a["label"] in CLASSES
    assert a["provenance"]["image"]["source"] == "photograph"
    assert b["provenance"]["image"]["study_uid"].startswith("1.2.")
    assert b["provenance"]["image"]["shape"] == [48, 64]
    for name in "ab":
        assert r4_problems(json.loads((out / name / "report.fhir.json").read_bytes())) == []


def test_an_image_beyond_the_limit_gets_files_but_no_label(run):
    out = run(calibration(ood_limit=1e-6))
    result = json.loads((out / "a" / "result.json").read_bytes())
    assert result["label"] is None
    assert [why["code"] for why in result["abstentions"]] == ["ABSTAIN_OUT_OF_DISTRIBUTION"]
    assert b"No label given" in (out / "a" / "page.html").read_bytes()


def test_equal_runs_leave_equal_bytes(run):
    first, second = run(None, "first"), run(None, "second")
    for path in first.rglob("*.*"):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes(), path.name
