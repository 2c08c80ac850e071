"""The app that MONAI Label loads: every bundle of the collection, found by looking."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

from shared_nets import __version__
from shared_nets.refusals import InputRefused
from tools.monailabel_app.bundle_infer import BundleInfer
from tools.monailabel_app.kidney_training import KidneyTraining, learns_from_masks
from tools.monailabel_app.own_weights import OwnWeights
from tools.monailabel_app.stores import DicomWebStore, FolderStore, SessionStore

REPOSITORY = Path(__file__).resolve().parents[2]
#: Keys of a request that name files; ``label`` is where MONAI Label puts a mask that was sent along.
_PATHS = ("image", "mask", "label")
#: Keys of a request that are text where they are given.
_TEXTS = (*_PATHS, "study_id", "label_set")


class SharedNetsApp(MONAILabelApp):
    """Serve the bundles.

    Args:
        app_dir: folder for what the server writes; ``model/<bundle>`` holds weights trained or uploaded here.
        studies: folder of images, or URL of a DICOMweb server.
        conf: ``bundles``, folder of bundles; ``bodies``, folder of ``tools.build_kidney_bodies`` that
            training may use; ``readable``, further folders that requests may name images in, joined as in
            ``PATH``.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        bundles = Path(conf.get("bundles") or REPOSITORY / "bundles")
        found = [path.parents[1] for path in sorted(bundles.glob("*/configs/inference.json"))]
        self._bundles = {path.name: path for path in found}
        self._weights = {name: OwnWeights(Path(app_dir) / "model" / name) for name in self._bundles}
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="shared_nets",
            description="MONAI bundles for clinical imaging. Research use only. Not a medical device.",
            version=__version__,
        )
        folders = [folder for folder in conf.get("readable", "").split(os.pathsep) if folder]
        if isinstance(self.datastore(), FolderStore):
            folders.append(self.studies)
        self._readable = [Path(folder).resolve() for folder in (app_dir, *folders)]

    def init_datastore(self) -> Datastore:
        """Open the folder or the DICOMweb server."""
        if not self.studies.startswith(("http://", "https://")):
            return FolderStore(
                self.studies,
                extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
                auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
                read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
            )
        user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
        client = DICOMwebClientX(
            url=self.studies.rstrip("/"),
            session=create_session_from_user_pass(user, password) if user and password else None,
            qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
            wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
            stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
        )
        return DicomWebStore(
            client=client,
            search_filter=settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER,
            cache_path=settings.MONAI_LABEL_DICOMWEB_CACHE_PATH or str(Path(self.app_dir) / "dicomweb"),
            convert_to_nifti=False,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Make a task of every bundle."""
        store = self.datastore()
        store_dicom = store.store if isinstance(store, DicomWebStore) else None
        return {
            name: BundleInfer(path, self._weights[name], store_dicom) for name, path in self._bundles.items()
        }

    def init_trainers(self) -> dict[str, TrainTask]:
        """Make a task of every bundle that learns from submitted masks."""
        bodies = Path(self.conf["bodies"]) if self.conf.get("bodies") else None
        return {
            name: KidneyTraining(path, self._weights[name], bodies)
            for name, path in self._bundles.items()
            if learns_from_masks(path)
        }

    def init_strategies(self) -> dict[str, Strategy]:
        """Offer images for labelling in their order, or at random."""
        return {"first": First(), "random": Random()}

    def init_batch_infer(self) -> Callable[..., Any]:
        """Make the task that goes through many images."""
        return _EveryImage()

    def _load_sessions(self, load: bool = False) -> SessionStore | None:
        if not load:
            return None
        return SessionStore(settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY)

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Infer one image.

        Args:
            request: ``model`` and ``image`` (a name of the datastore, or a path in a folder that may be
                read), and what :class:`BundleInfer` takes.
            datastore: another one than the server's.

        Returns:
            ``file`` and ``params``.

        Raises:
            InputRefused: what the bundle refuses; a path that may not be read; values that are no JSON
                object.
            MONAILabelException: there is no such model.
        """
        if request.get("model") not in list(self._infers):  # it may be what no dictionary is asked for
            raise MONAILabelException(
                MONAILabelError.INVALID_INPUT, f"model must be one of {', '.join(self._infers)}."
            )
        asked = dict(request)
        for key in _TEXTS:
            if asked.get(key) is not None and not isinstance(asked[key], str):
                raise _malformed(f"{key} must be text, got {asked[key]!r}.")
        if asked.get("study_id") and not _has_a_name(asked["study_id"]):
            raise _malformed("study_id must hold letters or digits.")
        if not asked.get("image"):
            raise InputRefused(
                "INPUT_NOT_FOUND",
                "No image was given, or its session is over.",
                "Give the name of an image of the server, a path, a file or a session.",
            )
        if asked.get("clinical") is not None and not isinstance(asked["clinical"], Mapping):
            raise InputRefused(
                "CLINICAL_UNREADABLE",
                "The clinical values are not a JSON object.",
                'Give them in params: {"clinical": {"age": 60, …}}.',
            )
        for key in _PATHS:
            if asked.get(key):
                self._check_readable(Path(asked[key]))
        if asked.get("label"):
            asked["mask"] = asked["label"]
        if not Path(asked["image"]).exists():
            if _has_a_name(asked["image"]):
                asked.setdefault("study_id", asked["image"])
            if not (datastore or self.datastore()).get_image_uri(asked["image"]):
                raise InputRefused(
                    "INPUT_NOT_FOUND",
                    "The server has no image of this name.",
                    "Ask /datastore/?output=all for the names, or give a path, a file or a session.",
                )
        result: dict[str, Any] = super().infer(asked, datastore)
        return result

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Choose an image to label.

        Args:
            request: ``strategy``, one of those that :meth:`init_strategies` makes; by default at random.

        Returns:
            Name and path of the image; nothing where there is none.

        Raises:
            MONAILabelException: there is no such strategy.
        """
        if request.get("strategy") not in (None, "", *self._strategies):
            raise MONAILabelException(
                MONAILabelError.INVALID_INPUT, f"strategy must be one of {', '.join(self._strategies)}."
            )
        chosen: dict[str, Any] = super().next_sample(request)
        return chosen

    def _check_readable(self, path: Path) -> None:
        if not path.is_absolute() and not path.exists():
            return  # a name of the datastore
        if not any(path.resolve().is_relative_to(folder) for folder in self._readable):
            raise InputRefused(
                "INPUT_NO_PERMISSION",
                "The path lies outside of the folders that this server may read.",
                "Lay the image into the studies folder, upload it, or start the server with --readable.",
            )


class _EveryImage(BatchInferTask):
    """Infer many images; one that is refused does not end the rest, and no GPU is needed."""

    def __call__(self, request: dict[str, Any], datastore: Datastore, infer: Callable) -> dict[str, Any]:
        def one(single: dict[str, Any], store: Datastore) -> dict[str, Any]:
            try:
                done: dict[str, Any] = infer(single, store)
                return done
            except InputRefused as refusal:
                return {"params": {"refusal": refusal.as_dict()}}

        for key in ("max_workers", "max_batch_size"):
            if not isinstance(request.get(key, 0), int) or request.get(key, 0) < 0:
                raise _malformed(f"{key} must be a whole number from 0 on, got {request[key]!r}.")
        if not isinstance(request.get("gpus", ""), str):
            raise _malformed(f"gpus must be text, got {request['gpus']!r}.")
        images = request.get("images", "")
        if not isinstance(images, str | list) or not all(isinstance(image, str) for image in images):
            raise _malformed(f"images must be a list of names, got {images!r}.")
        single_device = {**request, "multi_gpu": request.get("multi_gpu", True) and torch.cuda.is_available()}
        results: dict[str, Any] = super().__call__(json.loads(json.dumps(single_device)), datastore, one)
        return results


def _has_a_name(text: str) -> bool:
    return re.search(r"[A-Za-z0-9]", text) is not None


def _malformed(what: str) -> InputRefused:
    return InputRefused("INPUT_UNREADABLE", f"A value of the request cannot be used: {what}", "Correct it.")
