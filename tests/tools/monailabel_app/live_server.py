"""Start a MONAI Label server on loopback, with small synthetic studies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from shared_nets.data.phantom import make_phantom, write_dicom_series, write_nifti
from shared_nets.data.photograph_synthetic import VL_PHOTOGRAPH, dicom_photograph, write_dicom_photograph
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.writers.result_json import result_as_dict
from tests.bundles.drawn_lesions import drawn_lesion

REPOSITORY = Path(__file__).resolve().parents[3]
START_LIMIT_S = 600.0  # of a machine that is busy with other things


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that answers.

    Args:
        url: where.
        process: the process.
        work: folder that it writes to.
        studies: folder of its images: ``phantom.nii.gz``, ``noise.nii.gz``, ``series`` (DICOM),
            ``lesion.jpg``, ``photo.dcm``.
        start_cpu_s: time of the processor until it answered, seconds.
    """

    url: str
    process: psutil.Process
    work: Path
    studies: Path
    start_cpu_s: float

    def infer(self, model: str, *, files: Any = None, params: str = "{}", **query: str) -> requests.Response:
        """Ask for an inference."""
        return requests.post(
            f"{self.url}/infer/{model}", params=query, data={"params": params}, files=files, timeout=600
        )


@contextmanager
def running_server(folder: Path, *options: str, **headers: str) -> Iterator[Server]:
    """Start a server on a free port, wait until it answers, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    work, studies, log = folder / "work", folder / "studies", folder / "server.log"
    command = [sys.executable, "-m", "tools.monailabel_app", "--studies", str(studies), "--work", str(work)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), *options],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/info/", process, log, headers)
        times = psutil.Process(process.pid).cpu_times()
        yield Server(
            url=url,
            process=psutil.Process(process.pid),
            work=work,
            studies=studies,
            start_cpu_s=times.user + times.system,
        )
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path, headers: dict[str, str]) -> None:
    end = time.monotonic() + START_LIMIT_S
    while True:
        try:
            if requests.get(url, timeout=START_LIMIT_S, headers=headers).status_code < 500:
                return
        except requests.ConnectionError:
            pass
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")
        time.sleep(0.2)


def write_studies(folder: Path) -> None:
    """Write a small phantom as NIfTI and as DICOM, a volume that is no abdomen, photographs of a lesion."""
    folder.mkdir()
    phantom = make_phantom(right_ml=150.0, left_ml=130.0, shape=(48, 40, 24), spacing_mm=(5.0, 5.0, 5.0))
    write_nifti(phantom.hu, phantom.affine, folder / "phantom.nii.gz")
    write_dicom_series(phantom.hu, phantom.affine, folder / "series")
    write_nifti(phantom.labels, phantom.affine, folder.parent / "truth.nii.gz")
    noise = np.random.default_rng(0).normal(0.0, 5.0, phantom.hu.shape).astype(np.int16)
    write_nifti(noise, phantom.affine, folder / "noise.nii.gz")
    lesion = drawn_lesion(height=300, width=400)
    Image.fromarray(lesion).save(folder / "lesion.jpg", quality=95)
    write_dicom_photograph(folder / "photo.dcm", dicom_photograph(lesion, sop_class=VL_PHOTOGRAPH))


def runtime_answer(
    runtime: BundleRuntime, output_dir: Path, **study: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Give the result and the files that the runtime makes of a study."""
    (outcome,) = runtime.run([study], output_dir=output_dir)
    assert outcome.refusal is None, outcome.refusal
    assert outcome.result is not None
    return result_as_dict(outcome.result), outcome.files


def parts_of(response: requests.Response) -> tuple[dict[str, Any], bytes]:
    """Take apart an answer of the kind ``all``: JSON and image."""
    decoder = pytest.importorskip("requests_toolbelt").MultipartDecoder
    assert response.status_code == 200, response.text
    params, image = decoder.from_response(response).parts
    return json.loads(params.content), image.content
