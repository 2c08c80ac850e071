"""One bundle as a task of MONAI Label: the study of a request goes through the runtime, the result back."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import SimpleITK as sitk
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from shared_nets.data.studies import list_studies
from shared_nets.refusals import InputRefused
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.runtime.carried_code import open_bundle
from shared_nets.runtime.checks import read_metadata
from tools.monailabel_app.finished_run import FinishedRun, run_and_keep
from tools.monailabel_app.own_weights import OwnWeights

logger = logging.getLogger(__name__)

#: What ``params.result_extension`` may ask for: the label map, DICOM SEG, or the picture, which also comes
#: where there is no mask.
EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".dcm", ".png")
#: Keys of a request that become keys of the study as they are.
_STUDY_KEYS = ("image", "mask", "clinical", "label_set")
_TYPES = {"segmentation": InferType.SEGMENTATION, "classification": InferType.CLASSIFICATION}
#: Writes DICOM files to the server that the image came from, and says what was written.
StoreDicom = Callable[[Mapping[str, bytes]], list[dict[str, str]]]


class BundleInfer(InferTask):
    """Infer with a bundle. It is loaded at the first request, and anew when its own weights change.

    A released bundle is run by the code that it carries.

    Args:
        bundle_root: folder of the bundle.
        own_weights: weights trained or uploaded here, which go before those of the bundle.
        store_dicom: where ``params.store_results`` sends DICOM files; ``None`` where there is no such server.
    """

    def __init__(self, bundle_root: Path, own_weights: OwnWeights, store_dicom: StoreDicom | None) -> None:
        metadata = read_metadata(bundle_root)
        data_format = metadata["network_data_format"]
        kind = bundle_root.name.rpartition("_")[2]
        labels = {}
        if kind == "segmentation":
            channels = data_format["outputs"]["pred"]["channel_def"]
            labels = {name: int(number) for number, name in channels.items() if int(number) > 0}
        is_volume = data_format["inputs"]["image"]["modality"] in ("CT", "MR")
        super().__init__(
            type=_TYPES.get(kind, InferType.OTHERS),
            labels=labels,
            dimension=3 if is_volume else 2,
            description=f"{metadata['task']}. {metadata['intended_use']}",
            config={"result_extension": list(EXTENSIONS) if is_volume else [".png"]},
        )
        self.bundle_root = bundle_root
        self.own_weights = own_weights
        self.store_dicom = store_dicom
        self._lock = Lock()
        self._runtime: BundleRuntime | None = None
        self._loaded: str | None = None

    def is_valid(self) -> bool:
        """Say that the bundle can be asked; what is wrong with it, the first request tells."""
        return True

    def get_path(self, validate: bool = True) -> str | None:
        """Name the weights that clients may fetch, replace and delete: never those of the bundle."""
        path = self.own_weights.path
        return str(path) if path.is_file() or not validate else None

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Infer one study.

        Args:
            request: ``image``; where they are given ``mask``, ``label_set``, ``clinical``, ``study_id``,
                ``result_extension`` and ``store_results``.

        Returns:
            A temporary file with the label map or the picture, and the result as JSON values.

        Raises:
            InputRefused: what the bundle refuses.
        """
        extension = _extension(request)
        if request.get("store_results") and self.store_dicom is None:
            raise _not_storable()
        study = {key: request[key] for key in _STUDY_KEYS if request.get(key)}
        (named,) = list_studies(image=study.pop("image"), study_id=str(request.get("study_id") or "study"))
        with self._lock:
            finished = run_and_keep(self._current_runtime(), {**named, **study})
        params: dict[str, Any] = {"result": finished.result, "label_names": finished.label_names()}
        if request.get("store_results"):
            params["stored"] = self._store(finished)
        return str(_image_of(finished, extension)), params

    def _current_runtime(self) -> BundleRuntime:
        wanted = self.own_weights.sha256()
        if self._runtime is None or wanted != self._loaded:
            logger.info("loading %s", self.bundle_root.name)
            overrides: dict[str, Any] = {}
            if wanted is not None:
                overrides["ckpt_path"] = str(self.own_weights.path)
                inference = self.bundle_root / "configs" / "inference.json"
                statements = json.loads(inference.read_text(encoding="utf-8")).get("population", [])
                overrides["population"] = [*statements, self.own_weights.statement()]
            self._runtime = open_bundle(self.bundle_root, **overrides)
            self._loaded = wanted
        return self._runtime

    def _store(self, finished: FinishedRun) -> list[dict[str, str]]:
        files = finished.dicom()
        if self.store_dicom is None or not files:
            raise _not_storable()
        return self.store_dicom(files)


def _not_storable() -> InputRefused:
    return InputRefused(
        "SERIES_NOT_FOUND",
        "The results cannot be stored: the image did not come from a DICOMweb server, with usable UIDs.",
        "Start the server with --studies URL of a DICOMweb server, or ask without store_results.",
    )


def _extension(request: Mapping[str, Any]) -> str:
    asked = request.get("result_extension") or EXTENSIONS[0]
    extension = asked[0] if isinstance(asked, list) else str(asked)  # clients send the choices of /info back
    if extension not in EXTENSIONS:
        raise InputRefused(
            "INPUT_UNREADABLE",
            f"result_extension is {extension}, which is not written here.",
            f"Ask for one of {', '.join(EXTENSIONS)}.",
        )
    return extension


def _image_of(finished: FinishedRun, extension: str) -> Path:
    """Write what a viewer shows: the label map, or the picture where there is none."""
    if finished.study.mask is None or extension == ".png":
        return _temporary_file(".png", finished.study.picture_png)
    if extension == ".dcm":
        segmentation = finished.dicom().get("kidneys.seg.dcm")
        if segmentation is None:
            raise InputRefused(
                "INPUT_UNREADABLE",
                "A DICOM Segmentation cannot be written: the image is not DICOM with usable UIDs.",
                "Ask for result_extension .nii.gz, or give a DICOM series.",
            )
        return _temporary_file(".dcm", segmentation)
    nifti = _temporary_file(".nii.gz", finished.nifti())
    if extension == ".nii.gz":
        return nifti
    converted = nifti.with_name(nifti.name.removesuffix(".nii.gz") + extension)
    sitk.WriteImage(sitk.ReadImage(str(nifti)), str(converted), useCompression=extension == ".nrrd")
    nifti.unlink()
    return converted


def _temporary_file(suffix: str, content: bytes) -> Path:
    """Write a file that the server takes away once it is sent."""
    with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as file:
        file.write(content)
    return Path(file.name)
