"""NAME=VALUE on a command line: a value for a bundle's configuration."""

from __future__ import annotations

import argparse
import json
from typing import Any


def setting(text: str) -> tuple[str, Any]:
    """Read one, as a ``type`` of :mod:`argparse`.

    Args:
        text: ``NAME=VALUE``; the value is JSON, or else taken as a string.

    Raises:
        argparse.ArgumentTypeError: there is no name, or no equals sign.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
