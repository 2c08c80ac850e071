"""An Orthanc server, of Debian's packages ``orthanc`` and ``orthanc-dicomweb``, on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
#: Of util-linux, which every Debian has: the server also ends when the tests are killed.
_END_WITH_TESTS = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
START_LIMIT_S, STOP_LIMIT_S = 120.0, 30.0  # of a machine that is busy with other things


def orthanc_executable() -> str | None:
    """Find Orthanc, where its DICOMweb plugin is there too; Debian keeps it outside of a user's ``PATH``."""
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    return found if PLUGIN.is_file() else None


class Orthanc:
    """A server with storage of its own, which may be ended and started again on the same ports.

    It answers this computer only, asks for a password, and takes images by C-STORE of the caller ``TEST``.

    Args:
        folder: for its configuration, its log ``orthanc.log`` and what it stores.
        user: whom it knows.
        password: of the user.
    """

    def __init__(self, folder: Path, user: str, password: str) -> None:
        self.folder = folder
        self.user, self.password = user, password
        self.http_port, self.dicom_port = _free_ports(2)
        self.root = f"http://127.0.0.1:{self.http_port}"
        self.url = f"{self.root}/dicom-web"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, password: str | None = None) -> None:
        """Start it and wait until it answers.

        Args:
            password: another one than the right one.
        """
        executable = orthanc_executable()
        if executable is None:
            raise FileNotFoundError("Orthanc with DICOMweb must be installed.")
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(password)), encoding="utf-8")
        log = self.folder / "orthanc.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*_END_WITH_TESTS, executable, str(configuration)],
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + START_LIMIT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"Orthanc did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it, in whatever state it is; what it stored stays."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def client(self) -> Any:
        """Make a DICOMweb client."""
        web = pytest.importorskip("dicomweb_client")
        session = requests.Session()
        session.auth = (self.user, self.password)
        return web.DICOMwebClient(self.url, session=session)

    def store(self, images: Sequence[pydicom.Dataset]) -> None:
        """Store by STOW-RS."""
        assert len(self.client().store_instances(images).ReferencedSOPSequence) == len(images)

    def series_of(self, study_uid: str) -> dict[str, str]:
        """Find by QIDO-RS the series of a study: modality by Series Instance UID."""
        found = self.client().search_for_series(study_uid)
        return {one["0020000E"]["Value"][0]: one["00080060"]["Value"][0] for one in found}

    def stored(self, study_uid: str, answer: Mapping[str, Any]) -> dict[str, pydicom.Dataset]:
        """Find by QIDO-RS and fetch by WADO-RS what an answer of MONAI Label says was stored, by modality."""
        in_study = self.series_of(study_uid)
        objects = {}
        for said in answer["stored"]:
            series_uid = said["series_instance_uid"]
            assert in_study[series_uid] == said["modality"]
            (found,) = self.client().retrieve_series(study_uid, series_uid)
            assert found.SOPInstanceUID == said["sop_instance_uid"]
            objects[said["modality"]] = found
        return objects

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.root}/system", timeout=START_LIMIT_S).status_code in (200, 401)
        except requests.ConnectionError:
            return False

    def _configuration(self, password: str | None) -> dict[str, object]:
        return {
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {self.user: password or self.password},
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomCheckModalityHost": True,
            "DicomModalities": {"test": ["TEST", "127.0.0.1", 104]},
        }


def _free_ports(number: int) -> list[int]:
    """Find ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
