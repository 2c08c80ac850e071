"""The selective scan in C++: compiled for this processor at first use, where a compiler is there.

Shape letters: B batch, D channels, N states, L tokens, G groups.

The library has a plain C interface and includes no header of torch, so that compiling takes seconds and
needs nothing but the compiler. It lies in a folder of the user, named after its source, the flags, and
everything that the compiler knows of itself and of the processor: another machine that shares the folder
compiles its own. Processes that compile at the same time each write a file of their own and rename it at the
end.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

logger = logging.getLogger(__name__)

_SOURCE = Path(__file__).parent / "csrc" / "selective_scan.cpp"
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
_LINK_FLAGS = ("-fPIC", "-shared", "-fopenmp")
_SECONDS_TO_COMPILE = 300


def extension_problem() -> str | None:
    """Say why the extension cannot be used here; ``None`` when it can. The first call may compile it."""
    library = _load_once()
    return library if isinstance(library, str) else None


def scan_by_extension(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Run the whole selective scan, skip, gate and softplus too; differentiable once.

    Args:
        u: input, ``(B, D, L)``, float32 in main memory, as all others. Where channels, not tokens, are
            neighbours in memory, it is read as it lies.
        delta: step size, ``(B, D, L)``.
        A: decay rates, ``(D, N)``.
        B: input projection, ``(B, G, N, L)``.
        C: output projection, ``(B, G, N, L)``.
        D: weight of the skip, ``(D,)``.
        z: gate, ``(B, D, L)``.
        delta_bias: added to ``delta``, ``(D,)``.
        delta_softplus: whether ``delta`` then passes through softplus.

    Returns:
        Output ``(B, D, L)``, laid out like ``u``, and the state after the last token, ``(B, D, N)``.

    Raises:
        RuntimeError: the extension cannot be used here.
    """
    if problem := extension_problem():
        raise RuntimeError(f"The C++ extension of the selective scan must be usable, got: {problem}")
    groups = max(B.shape[1], C.shape[1])
    B, C = (x.repeat_interleave(groups // x.shape[1], dim=1).transpose(2, 3).contiguous() for x in (B, C))
    return _ExtensionScan.apply(u, delta, A, B, C, D, z, delta_bias, delta_softplus)


class _Strided(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("channel", ctypes.c_int64),
        ("token", ctypes.c_int64),
    )


class _Scan(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "groups", "channels", "states", "length")),
        *((name, ctypes.c_int64) for name in ("threads", "softplus")),
        *((name, _Strided) for name in ("u", "delta", "z", "y")),
        *((name, ctypes.c_void_p) for name in ("A", "B", "C", "D", "delta_bias", "starts", "last")),
    )


class _ScanGradient(ctypes.Structure):
    _fields_ = (
        *((name, _Strided) for name in ("y", "u", "delta", "z")),
        *((name, ctypes.c_void_p) for name in ("last", "A", "D", "delta_bias", "B", "C")),
    )


class _ExtensionScan(torch.autograd.Function):
    """The scan over ``u, delta, z (B, D, L)``, ``A (D, N)``, ``B, C (B, G, L, N)``, the others ``(D,)``."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        delta_softplus: bool,
    ) -> tuple[Tensor, Tensor]:
        u, delta, z = _neighbours(u), _neighbours(delta), None if z is None else _neighbours(z)
        A, D = A.contiguous(), None if D is None else D.contiguous()
        delta_bias = None if delta_bias is None else delta_bias.contiguous()
        ctx.delta_softplus = delta_softplus
        inputs = (u, delta, A, B, C, D, z, delta_bias)
        y = torch.empty_like(u)
        last = u.new_empty(u.shape[0], *A.shape)  # (B, D, N)
        scan = _describe(*inputs, delta_softplus)
        scan.y, scan.last = _strided(y), last.data_ptr()
        starts = None
        if any(ctx.needs_input_grad):
            starts = u.new_empty(_sizes(scan)[0])
            scan.starts = starts.data_ptr()
        _library().scan_forward(ctypes.byref(scan))
        ctx.save_for_backward(*inputs, starts)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, D, z, delta_bias, starts = ctx.saved_tensors
        grad_y, grad_last = _neighbours(grad_y), grad_last.contiguous()
        scan = _describe(u, delta, A, B, C, D, z, delta_bias, ctx.delta_softplus)
        scan.starts = starts.data_ptr()
        units = _sizes(scan)[1]
        grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
        grad_z = None if z is None else torch.empty_like(z)
        grad_A = u.new_empty(u.shape[0], *A.shape)  # (B, D, N)
        grad_D, grad_bias = u.new_empty(2, u.shape[0], u.shape[1])  # each (B, D)
        grad_B, grad_C = u.new_empty(2, units, *B.shape)  # each (units, B, G, L, N)
        gradient = _ScanGradient(
            y=_strided(grad_y),
            u=_strided(grad_u),
            delta=_strided(grad_delta),
            z=_strided(grad_z),
            last=grad_last.data_ptr(),
            A=grad_A.data_ptr(),
            D=grad_D.data_ptr(),
            delta_bias=grad_bias.data_ptr(),
            B=grad_B.data_ptr(),
            C=grad_C.data_ptr(),
        )
        _library().scan_backward(ctypes.byref(scan), ctypes.byref(gradient))
        return (
            grad_u,
            grad_delta,
            grad_A.sum(0),
            grad_B.sum(0),
            grad_C.sum(0),
            None if D is None else grad_D.sum(0),
            grad_z,
            None if delta_bias is None else grad_bias.sum(0),
            None,
        )


def _neighbours(x: Tensor) -> Tensor:
    """Copy a tensor ``(B, D, L)`` unless its tokens or its channels are neighbours in memory."""
    return x if 1 in x.stride()[1:] else x.contiguous()


def _strided(x: Tensor | None) -> _Strided:
    return _Strided() if x is None else _Strided(x.data_ptr(), *x.stride())


def _describe(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> _Scan:
    batch, channels, length = u.shape
    groups = B.shape[1]
    return _Scan(
        batch=batch,
        groups=groups,
        channels=channels // groups,
        states=A.shape[1],
        length=length,
        threads=torch.get_num_threads(),
        softplus=delta_softplus,
        u=_strided(u),
        delta=_strided(delta),
        z=_strided(z),
        A=A.data_ptr(),
        B=B.data_ptr(),
        C=C.data_ptr(),
        D=None if D is None else D.data_ptr(),
        delta_bias=None if delta_bias is None else delta_bias.data_ptr(),
    )


def _sizes(scan: _Scan) -> tuple[int, int]:
    starts, units = ctypes.c_int64(), ctypes.c_int64()
    _library().scan_sizes(ctypes.byref(scan), ctypes.byref(starts), ctypes.byref(units))
    return starts.value, units.value


def _library() -> ctypes.CDLL:
    library = _load_once()
    assert not isinstance(library, str)  # nobody comes here before scan_by_extension has looked
    return library


@cache
def _load_once() -> ctypes.CDLL | str:
    """Load the library, compiling it where that has not been done; or say why that fails, and log it once."""
    try:
        return load_library()
    except (OSError, subprocess.SubprocessError) as problem:
        logger.info("The selective scan runs without its C++ extension: %s", problem)
        return str(problem)


def load_library(*defines: str) -> ctypes.CDLL:
    """Compile the source, unless that has been done, and load it.

    Args:
        defines: macros to define; ``SCAN_PORTABLE`` leaves out what only some processors have.

    Raises:
        OSError: there is no compiler, the folder cannot be written, or the library cannot be loaded.
        subprocess.SubprocessError: the compiler fails or takes too long.
    """
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)
    if compiler is None:
        raise FileNotFoundError("no C++ compiler (c++, g++ or clang++) was found")
    command = [compiler, *_FLAGS, *(f"-D{name}" for name in defines)]
    # The predefined macros name the compiler, its version, and what -march=native stands for here.
    machine = _run([*command, "-dM", "-E", "-x", "c++", os.devnull])
    key = hashlib.sha256(_SOURCE.read_bytes() + machine + " ".join((*command, *_LINK_FLAGS)).encode())
    folder = cache_folder()
    path = folder / f"selective_scan_{key.hexdigest()[:32]}.so"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as own:
            built = Path(own) / path.name
            _run([*command, *_LINK_FLAGS, str(_SOURCE), "-o", str(built)])
            built.replace(path)
        logger.info("Compiled %s", path)
    library = ctypes.CDLL(str(path))
    for name in ("scan_sizes", "scan_forward", "scan_backward"):
        getattr(library, name).restype = None
    return library


def cache_folder() -> Path:
    """Give the folder of compiled libraries: below ``XDG_CACHE_HOME``, or ``.cache`` in the user's home."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "shared_nets"


def _run(command: list[str]) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=_SECONDS_TO_COMPILE)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise OSError(f"{command[0]} ended with status {done.returncode}: {message[-500:]}")
    return done.stdout
