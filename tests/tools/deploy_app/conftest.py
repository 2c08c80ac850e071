"""A reason to skip what needs MONAI Deploy, and one moment for all files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.deploy_app.sdk import is_installed


@pytest.fixture(scope="session")
def deploy_installed() -> None:
    """Skip where MONAI Deploy is not installed."""
    if not is_installed():
        pytest.skip("MONAI Deploy is not installed: make deploy")


@pytest.fixture(scope="module")
def one_moment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1767323045")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield
