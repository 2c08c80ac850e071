"""The web application: MONAI Label's own, with clear answers to requests that cannot be met.

Refusals of the bundles come back as status 422 with ``{"detail": {"code", "message", "remedy"}}``, those of
another server (the codes ``SERVER_…``) as 502.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import tarfile
from functools import partial
from types import SimpleNamespace
from typing import Any

import jwt
import requests
from fastapi import HTTPException, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from monailabel.app import app
from monailabel.endpoints import datastore, infer, proxy
from monailabel.endpoints.user import auth
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)

from shared_nets.refusals import InputRefused
from tools.monailabel_app.stores import server_refusal
from tools.monailabel_app.uploads import remove_uploads_of_failed_requests

__all__ = ["app"]

#: Paths of DICOMweb; others could lead to what else the server of the images offers.
_DICOMWEB_PATH = re.compile(r"(studies|series|instances)(/(?!\.\.)[A-Za-z0-9.,_-]+)*/?")
_BAD_NAME = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EINVAL)


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise HTTPException(400, "params and info must be JSON objects.")
    return value


# What MONAI Label reads as JSON from a request it takes for an object, whatever it is.
for endpoint in (datastore, infer):
    endpoint.json = SimpleNamespace(loads=_json_object, dumps=json.dumps)


def _run_inference(*given: Any) -> Any:
    if given[-1] == infer.ResultType.dicom_seg:
        raise InputRefused(
            "INPUT_UNREADABLE",
            "The output dicom_seg is not written here.",
            'Ask for the output image, with {"result_extension": ".dcm"} in params.',
        )
    return _stock_inference(*given)


# MONAI Label's own DICOM SEG needs a package that cannot be imported here (see __init__.py).
_stock_inference, infer.run_inference = infer.run_inference, _run_inference


async def _only_dicomweb(request: Request, op: str, path: str) -> Response:
    if not _DICOMWEB_PATH.fullmatch(path):
        raise HTTPException(404, "There is no such DICOMweb resource.")
    query = f"?{request.url.query}" if request.url.query else ""
    return await _proxy_dicom(request, op, path + query)


# MONAI Label passes on whatever path it is given, with its own password, and loses what is searched for.
_proxy_dicom, proxy.proxy_dicom = proxy.proxy_dicom, _only_dicomweb
remove_uploads_of_failed_requests()
# An uploaded archive must not write outside of its folder.
tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
# MONAI Label 0.8.5 checks tokens without saying by which algorithm, which PyJWT refuses.
auth.jwt = SimpleNamespace(decode=partial(jwt.decode, algorithms=["RS256"]))
# It lets the pages of every web site read what it answers; the viewer that comes with it needs no such leave.
app.user_middleware = [layer for layer in app.user_middleware if layer.cls is not CORSMiddleware]


@app.exception_handler(InputRefused)
async def refused(request: Request, error: InputRefused) -> Response:
    """Say what is wrong with the input, and what to do."""
    status = 502 if error.code.startswith("SERVER_") else 422
    return JSONResponse({"detail": error.as_dict()}, status_code=status)


@app.exception_handler(MONAILabelException)
async def label_error(request: Request, error: MONAILabelException) -> Response:
    """Say what MONAI Label does not know."""
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        return _told(404, error.msg)
    if error.error == MONAILabelError.INVALID_INPUT:
        return _told(404, error.msg)
    return _told(500, error.msg)


@app.exception_handler(HTTPException)
async def http_error(request: Request, error: HTTPException) -> Response:
    """Answer as MONAI Label does, but for the 500 that it gives to requests that lack something."""
    if error.status_code == 500:
        error = HTTPException(422, error.detail, error.headers)
    return await http_exception_handler(request, error)


@app.exception_handler(json.JSONDecodeError)
async def no_json(request: Request, error: json.JSONDecodeError) -> Response:
    """Say that a part of the request is no JSON."""
    return _told(400, f"A part of the request cannot be read: {error}")


@app.exception_handler(shutil.ReadError)
@app.exception_handler(tarfile.TarError)
async def no_archive(request: Request, error: Exception) -> Response:
    """Say that an archive cannot be unpacked; the error itself would tell where this server keeps it."""
    return _told(400, "The archive is of a kind that is not unpacked here, or holds what it must not.")


@app.exception_handler(requests.RequestException)
async def unreachable(request: Request, error: requests.RequestException) -> Response:
    """Say that the DICOMweb server or the one that signs tokens did not do its part."""
    return await refused(request, server_refusal(error))


@app.exception_handler(OSError)
async def bad_name(request: Request, error: OSError) -> Response:
    """Tell names that cannot be the name of a file; anything else is a defect."""
    if error.errno not in _BAD_NAME:
        raise error
    return _told(400, "The name of a file is too long, or is no name.")


@app.exception_handler(ValueError)
async def bad_value(request: Request, error: ValueError) -> Response:
    """Tell a NUL in the name of a file; anything else is a defect."""
    if "null byte" not in str(error):
        raise error
    return _told(400, "The name of a file holds a NUL.")


def _told(status: int, message: str) -> Response:
    return JSONResponse({"detail": message}, status_code=status)
