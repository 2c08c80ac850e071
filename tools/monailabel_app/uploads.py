"""Uploaded files, of which MONAI Label 0.8.5 leaves those of failed requests behind until the server ends."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from types import SimpleNamespace
from typing import Any, NoReturn

from monailabel.endpoints import datastore, infer, model, session, wsi_infer
from monailabel.utils import sessions
from monailabel.utils.others.generic import remove_file

from shared_nets.refusals import InputRefused

#: What receives files, by module and name.
_RECEIVERS = (
    (datastore, "add_image"),
    (datastore, "save_label"),
    (infer, "run_inference"),
    (model, "update_model"),
    (session, "create_session"),
    (wsi_infer, "run_wsi_inference"),
)
#: Temporary paths given out to the request that is being answered.
_given: ContextVar[list[str] | None] = ContextVar("given", default=None)


def remove_uploads_of_failed_requests() -> None:
    """Make MONAI Label remove what came with a request that ends in an error, as it does with others."""
    names = SimpleNamespace(NamedTemporaryFile=_temporary_name, TemporaryDirectory=_temporary_name)
    for module, name in _RECEIVERS:
        module.tempfile = names
        setattr(module, name, _removing(getattr(module, name)))
    sessions.tempfile = names
    infer.binary_to_image = _refuse_binary


def _removing(receive: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(receive)
    def run(*arguments: Any, **named: Any) -> Any:
        given: list[str] = []
        before = _given.set(given)
        try:
            return receive(*arguments, **named)
        except BaseException:
            for path in given:
                remove_file(path)
            raise
        finally:
            _given.reset(before)

    return run


def _temporary_name(suffix: str = "") -> SimpleNamespace:
    """Stand in for what makes temporary files and folders, of which MONAI Label takes the name alone."""
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        name = file.name
    given = _given.get()
    if given is not None:
        given.append(name)
    return SimpleNamespace(name=name)


def _refuse_binary(*given: Any, **named: Any) -> NoReturn:
    raise InputRefused(
        "INPUT_UNREADABLE",
        "A mask of bare voxels (.bin) does not say where it lies.",
        "Send it as .nii.gz or .nrrd.",
    )
