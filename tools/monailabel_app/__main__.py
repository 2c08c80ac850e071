"""Start MONAI Label with every bundle of the collection.

    python -m tools.monailabel_app [--studies DIR | --studies URL]

Without ``--studies`` it serves the demo's scans. Everything the server writes lies under ``--work``. It
listens on this computer only; a server for others needs ``--auth``: the address of an OpenID realm (Keycloak)
whose users have the roles that MONAI Label names (``monailabel-user`` to infer, ``monailabel-annotator`` to
submit, ``monailabel-admin`` to train). Its other settings are environment variables, such as
``MONAI_LABEL_DICOMWEB_USERNAME``.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
#: Scans of the demo, and their names in the studies folder.
_DEMO = {
    "lidc.nii.gz": "lidc_nifti",
    "totalsegmentator.nii.gz": "totalsegmentator_ct",
    "lidc_dicom": "lidc_dicom",
    "naevus.jpg": "naevus_photo",
}
_KINDS = ["*.nii.gz", "*.nii", "*.nrrd", "*.mha", "*.dcm", "*.jpg", "*.jpeg", "*.png"]
#: Modalities of the series that a DICOMweb server is searched for.
_MODALITIES = ["CT", "XC", "DMS"]
_SHIM = '''"""What MONAI Label loads from this folder; written by python -m tools.monailabel_app."""

from tools.monailabel_app.main import SharedNetsApp

__all__ = ["SharedNetsApp"]
'''


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the server; it runs until it is stopped."""
    chosen = _chosen(arguments)
    work = chosen.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    (work / "main.py").write_text(_SHIM, encoding="utf-8")
    studies = chosen.studies or str(demo_studies(work / "studies"))
    if not studies.startswith(("http://", "https://")):
        studies = str(Path(studies).resolve())
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=work) as temporary:
        os.environ.update(_environment(chosen, work, Path(temporary)))
        tempfile.tempdir = temporary
        from monailabel.main import Main  # it reads the environment when it is imported

        conf = {
            "bundles": chosen.bundles,
            "bodies": chosen.bodies,
            "readable": os.pathsep.join(chosen.readable),
        }
        given = [("--conf", name, str(value)) for name, value in conf.items() if value]
        sys.argv = [
            *("monailabel", "start_server", "--app", str(work), "--studies", studies),
            *("--host", chosen.host, "--port", str(chosen.port), "--verbose", chosen.verbose),
            *("--uvicorn_app", "tools.monailabel_app.server:app", "--log_level", "warning"),
            *(part for option in given for part in option),
        ]
        print(
            f"MONAI Label: http://{chosen.host}:{chosen.port}/ serves {studies}; Ctrl+C stops it.", flush=True
        )
        # Once the server has ended itself it is as if the signal came anew, and the temporary files must go.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        Main(loglevel=chosen.verbose).run()
    return 0


def demo_studies(folder: Path) -> Path:
    """Lay the demo's scans into a folder, a synthetic one where they cannot be had.

    Args:
        folder: made if need be; what is there already stays.

    Returns:
        The folder.
    """
    from shared_nets.data.phantom import make_phantom, write_dicom_series, write_nifti
    from tools.demo_data import DemoDataUnavailable, fetch

    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, scan in _DEMO.items():
            if not (folder / name).exists():
                source = fetch(scan, retry_after_s=600.0)
                (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    except DemoDataUnavailable as reason:
        print(
            f"The demo's scans are not at hand ({reason}); a synthetic one takes their place.",
            file=sys.stderr,
        )
        phantom = make_phantom(right_ml=150.0, left_ml=130.0)
        write_nifti(phantom.hu, phantom.affine, folder / "phantom.nii.gz")
        if not (folder / "phantom_dicom").exists():
            write_dicom_series(phantom.hu, phantom.affine, folder / "phantom_dicom")
    return folder


def _chosen(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.monailabel_app",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--studies", help="folder of images, or URL of a DICOMweb server; by default the demo's scans")
    add("--work", type=Path, default=Path(".label"), help="folder for all that the server writes")
    add("--bundles", type=Path, default=REPOSITORY / "bundles", help="folder of bundles")
    add("--bodies", type=Path, help="folder of tools.build_kidney_bodies, for training")
    add("--readable", action="append", default=[], help="folder that requests may name images in; repeatable")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8000)
    add("--auth", metavar="REALM_URL", help="ask for tokens of this OpenID realm")
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    add("--verbose", default="WARNING", choices=levels, help="below WARNING, clinical values are logged")
    chosen = parser.parse_args(arguments)
    if not chosen.auth and not _is_this_computer(chosen.host):
        parser.error(
            f"--auth must be given for a server that others reach, got --host {chosen.host} without it."
        )
    return chosen


def _is_this_computer(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _environment(chosen: argparse.Namespace, work: Path, temporary: Path) -> dict[str, str]:
    """Settings of MONAI Label, which also the processes that it starts read; what the user set stays."""
    defaults = {
        "MONAI_LABEL_SESSION_PATH": str(work / "sessions"),
        "MONAI_LABEL_DATASTORE_FILE_EXT": json.dumps(_KINDS),
        "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "30",
        "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": json.dumps({"Modality": _MODALITIES}),
    }
    settings = {name: os.environ.get(name, value) for name, value in defaults.items()}
    if chosen.auth:
        settings |= {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": chosen.auth.rstrip("/")}
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return settings | {
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


if __name__ == "__main__":
    sys.exit(main())
