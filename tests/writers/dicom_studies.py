"""Studies for the tests of DICOM objects: series with a known mask, read through the front door."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from shared_nets.data.ct_reader import CTReader
from shared_nets.data.mask_reader import MaskReader
from shared_nets.data.phantom import make_phantom, write_dicom_series
from shared_nets.transforms.kidney_mask import canonical_labels
from shared_nets.transforms.mask_geometry import match_mask_to_image
from shared_nets.types import (
    CKDResult,
    Estimate,
    Finding,
    KidneyMask,
    KidneyMeasurement,
    KidneyResult,
    KidneySlices,
    Provenance,
    SourceImage,
)
from shared_nets.writers.dicom_object import DicomObjects
from shared_nets.writers.dicom_source import read_dicom_source

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
RIGHT, LEFT, UNKNOWN = "9846003", "18639004", "64033007"
PROVENANCE = Provenance(
    bundle="kidney_ct_segmentation",
    bundle_version="0.1.0",
    config_sha256="a" * 64,
    weights_sha256={"model": "b" * 64},
    packages={"monai": "1.6.1"},
    image={"kind": "dicom"},
    mask={},
    repairs=(),
    thresholds={},
)
WARNING = Finding(code="KIDNEY_CUT_OFF", message="The left kidney reaches the lowest slice, 50 mm² of it.")
STATEMENT = "One time point cannot show that kidney disease is chronic."


def ckd_result(**changes) -> CKDResult:
    """Make a CKD result."""
    result = CKDResult(
        study_id="case_00001",
        creatinine=Estimate(value=1.35, low=0.95, high=1.9, level=0.9, unit="mg/dL"),
        egfr=Estimate(value=54.2, low=36.1, high=81.9, level=0.9, unit="mL/min/{1.73_m2}"),
        stage="G3a",
        stage_probabilities={"G1": 0.0, "G2": 0.25, "G3a": 0.5, "G3b": 0.25, "G4": 0.0, "G5": 0.0},
        slices=KidneySlices(
            indices=(3, 7, 7),
            positions_mm=(-120.0, -90.5, -90.5),
            is_valid=(True, True, False),
            areas_mm2=(812.5, 1650.0, 1650.0),
            num_kidney_slices=2,
            sop_instance_uids=(),
        ),
        clinical_used={"age": {"value": 67.0, "unit": "a", "source": "age"}},
        clinical_missing=("hba1c", "urea"),
        kidney_measurements={
            "kidney_volume_ml": 287.75,
            "right_kidney_volume_ml": 131.5,
            "left_kidney_volume_ml": 156.25,
            "right_kidney_length_mm": 101.5,
            "left_kidney_length_mm": float("nan"),
            "tumour_volume_ml": 12.5,
            "cyst_volume_ml": 0.0,
        },
        warnings=(WARNING,),
        statements=(STATEMENT,),
        provenance=PROVENANCE,
    )
    return dataclasses.replace(result, **changes)


def kidney_result(**changes) -> KidneyResult:
    """Make a kidney result."""
    result = KidneyResult(
        study_id="case_00001",
        kidneys={
            "right": KidneyMeasurement(volume_ml=151.25, length_mm=108.0, mean_hu=142.5, is_cut_off=False),
            "left": KidneyMeasurement(volume_ml=163.5, length_mm=112.5, mean_hu=None, is_cut_off=True),
        },
        total_volume_ml=314.75,
        warnings=(WARNING,),
        statements=(STATEMENT,),
        provenance=PROVENANCE,
    )
    return dataclasses.replace(result, **changes)


def source_of(folder: Path) -> SourceImage:
    """Read a series as a run does."""
    series = CTReader().open(folder)
    return SourceImage(
        files=series.files,
        frame_numbers=series.frame_numbers,
        shape=series.shape,
        affine=series.affine,
        is_resampled=series.is_resampled,
    )


def write_phantom(folder: Path, *, shape=(32, 24, 12), spacing_mm=(10.0, 10.0, 12.0), affine=None) -> Path:
    """Write a coarse abdomen of 32 × 24 × 12 voxels, or other noise on a grid of ``affine``."""
    phantom = make_phantom(shape=shape, spacing_mm=spacing_mm)
    write_dicom_series(phantom.hu, phantom.affine if affine is None else affine, folder)
    return folder


def mask_on(source: SourceImage, *, labels=(1, 2), **changes) -> KidneyMask:
    """Draw kidneys without any symmetry on the grid of a source, cut to a box that does not start at 0."""
    offset, shape = (3, 2, 2), tuple(n - 5 for n in source.shape)
    i, j, k = np.ogrid[tuple(slice(0, n) for n in shape)]
    drawn = np.zeros(shape, dtype=np.uint8)
    for number, label in enumerate(labels):
        start = 1 + number * (shape[0] // 3)
        drawn[
            (i >= start) & (i < start + 3 + k % 3) & (j >= 1 + k % 2) & (j < 5 + number) & (k >= number)
        ] = label
    mask = KidneyMask(
        labels=drawn,
        offset=offset,
        shape=source.shape,
        affine=source.affine,
        made_by="automatic",
        algorithm_name="kidney_ct_segmentation",
        algorithm_version="0.1.0",
    )
    return dataclasses.replace(mask, **changes)


def objects_of(source: SourceImage, **changes) -> DicomObjects:
    """Start the DICOM objects of a result."""
    objects = DicomObjects(source=read_dicom_source(source), provenance=PROVENANCE, created=CREATED)
    return dataclasses.replace(objects, **changes)


def read_back(path: Path, source: SourceImage) -> np.ndarray:
    """Read a segmentation through our own mask reader onto the grid of a source: SNOMED codes, else 0."""
    reader = MaskReader()
    labels, meta = reader.get_data(reader.read(path))
    whole = np.zeros(source.shape, dtype=np.int64)
    for number, code in meta["segment_labels"].items():
        kidneys = canonical_labels(
            np.where(labels == number, number, 0).astype(np.uint8),
            meta["affine"],
            label_set="dicom_seg",
            segment_codes={number: code},
        )
        matched, findings = match_mask_to_image(
            kidneys, image_shape=source.shape, image_affine=source.affine, has_empty_slices_omitted=True
        )
        assert findings == ()
        box = tuple(slice(o, o + n) for o, n in zip(matched.offset, matched.labels.shape, strict=True))
        whole[box][matched.labels > 0] = int(code)
    return whole


def errors_of(path: Path) -> list[str]:
    """Ask dicom3tools what is wrong with a file."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, encoding="utf-8", check=False)
    said = f"{done.stdout}\n{done.stderr}".splitlines()
    kinds = ("Segmentation", "SR", "SCImage", "EncapsulatedPDF")
    assert any(kind in line for line in said for kind in kinds), said
    return [line for line in said if "Error" in line]


def text_of(path: Path) -> str:
    """Let dcmtk read a structured report aloud."""
    if shutil.which("dsrdump") is None:
        pytest.skip("dsrdump is not installed: apt-get install dcmtk")
    done = subprocess.run(["dsrdump", "+Pl", str(path)], capture_output=True, encoding="utf-8", check=True)
    return done.stdout
