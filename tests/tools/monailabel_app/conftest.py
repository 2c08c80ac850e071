"""A live MONAI Label server for all tests, and the runtime whose answers it must give."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from shared_nets.runtime.bundle import BundleRuntime
from tests.tools.monailabel_app.live_server import REPOSITORY, Server, running_server, write_studies

KIDNEY, CKD, LESION = "kidney_ct_segmentation", "ckd_staging_classification", "mambaderm_classification"


@pytest.fixture(scope="session")
def label_installed() -> None:
    """Skip where MONAI Label is not installed."""
    if find_spec("monailabel") is None:
        pytest.skip("MONAI Label is not installed: make label")


@pytest.fixture(scope="session")
def server(label_installed, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("label")
    write_studies(folder / "studies")
    with running_server(folder) as found:
        yield found


@pytest.fixture(scope="session")
def truth(server) -> Path:
    """The phantom's label map, with TotalSegmentator's numbers."""
    return server.studies.parent / "truth.nii.gz"


@pytest.fixture(scope="session")
def kidney_runtime() -> BundleRuntime:
    return BundleRuntime(REPOSITORY / "bundles" / KIDNEY)


@pytest.fixture(scope="session")
def ckd_runtime() -> BundleRuntime:
    return BundleRuntime(REPOSITORY / "bundles" / CKD)


@pytest.fixture(scope="session")
def lesion_runtime() -> BundleRuntime:
    return BundleRuntime(REPOSITORY / "bundles" / LESION)
