"""Fetch public ViT weights from the network, check them, and convert them to ours.

``python -m tools.fetch_weights NAME --output FOLDER --sha256 CHECKSUM``

This program uses the network; the bundles never do. The checksums of the public files are not known to it, so
the one that you expect has to be given, from a source that you trust.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from shared_nets.refusals import EXIT_STATUS_REFUSED
from tools.convert_weights import convert_file

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0


class PublicFile(NamedTuple):
    """Where a file of weights lies, how it is converted, under which terms, and its sha256 where known."""

    url: str
    source: str
    licence: str
    sha256: str | None = None


_META = "https://dl.fbaipublicfiles.com"
_HUB = "https://huggingface.co"
_CXFORMER_SMALL = "m42-health/CXformer-small/resolve/21777c302a43197b704c6c92591d9897efaaac3b"
_NON_COMMERCIAL = "CC BY-NC 4.0, not for commercial use"
PUBLIC_FILES: dict[str, PublicFile] = {
    "dinov2_vits14_reg4": PublicFile(
        f"{_META}/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth", "dinov2", "Apache-2.0"
    ),
    "dinov2_vitb14_reg4": PublicFile(
        f"{_META}/dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth", "dinov2", "Apache-2.0"
    ),
    "dinov2_vitb14": PublicFile(
        f"{_META}/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth", "dinov2", "Apache-2.0"
    ),
    "dino_vitb16": PublicFile(
        f"{_META}/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth", "dino", "Apache-2.0"
    ),
    "rad_dino": PublicFile(f"{_HUB}/microsoft/rad-dino/resolve/main/model.safetensors", "rad_dino", "MIT"),
    "cxformer_small": PublicFile(f"{_HUB}/{_CXFORMER_SMALL}/model.safetensors", "cxformer", _NON_COMMERCIAL),
    "cxformer_base": PublicFile(
        f"{_HUB}/m42-health/CXformer-base/resolve/main/model.safetensors",
        "cxformer",
        _NON_COMMERCIAL,
    ),
}


def download(url: str, path: Path, *, sha256: str) -> Path:
    """Download a file; it gets its name only when its checksum is right.

    Args:
        url: an http or https address.
        path: where the file goes; a file there with the right checksum is kept and nothing is downloaded.
        sha256: what the checksum has to be, 64 hexadecimal digits.

    Returns:
        The path.

    Raises:
        OSError: the server cannot be reached or does not give the file.
        ValueError: the address or checksum is malformed, or the file has another checksum.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"url must be an http or https address, got {url}.")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, got {sha256!r}.")
    if path.is_file():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256.lower():
                print(f"already there: {path}")
                return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        partial = Path(folder) / path.name
        found = _stream(url, partial)
        if found != sha256.lower():
            raise ValueError(f"{url} must have sha256 {sha256.lower()}, got {found}. Nothing was kept.")
        partial.replace(path)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.fetch_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="weights, address, licence:\n"
        + "\n".join(f"  {name}: {file.url} ({file.licence})" for name, file in PUBLIC_FILES.items()),
    )
    parser.add_argument("name", choices=sorted(PUBLIC_FILES), metavar="NAME", help="which weights, see below")
    parser.add_argument("--output", required=True, type=Path, help="folder for both files")
    parser.add_argument("--sha256", help="checksum that the downloaded file must have")
    parser.add_argument("--url", help="another address of the same file, for example a mirror")
    args = parser.parse_args(argv)
    public = PUBLIC_FILES[args.name]
    url = args.url or public.url
    try:
        sha256 = _agreed_sha256(args.name, public.sha256, args.sha256)
        suffix = Path(urlsplit(public.url).path).suffix
        print(f"{args.name}: {url}\nlicence: {public.licence}")
        original = download(url, args.output / f"{args.name}.original{suffix}", sha256=sha256)
        report = convert_file(public.source, original, args.output / f"{args.name}.pt")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return EXIT_STATUS_REFUSED
    print("\n".join(report))
    return 0


def _agreed_sha256(name: str, known: str | None, given: str | None) -> str:
    if known is None and given is None:
        raise ValueError(
            f"--sha256 must be given for {name}, got none: its checksum is not known here, and a file is not "
            "taken unchecked. Hugging Face shows it on the file's page; for others ask somebody who has the "
            "file."
        )
    if known is not None and given is not None and known != given.lower():
        raise ValueError(f"--sha256 must be {known} for {name}, got {given}.")
    return str(known or given)


def _stream(url: str, path: Path) -> str:
    """Write what the address gives and return its sha256; progress goes to the error stream."""
    digest = hashlib.sha256()
    done = 0
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, path.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            share = f" of {total / 1e6:.1f} MB, {100 * done / total:.0f} %" if total else " MB"
            print(f"\r{done / 1e6:.1f}{share}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
