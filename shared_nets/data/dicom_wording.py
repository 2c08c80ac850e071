"""Words for messages about many files: a count with its noun, and the first few names."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """Write a count with its noun.

    Args:
        number: how many.
        noun: in the singular; its plural takes an s.

    Returns:
        For example ``1 slice`` or ``12 slices``.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def names(files: Sequence[str], limit: int = 3) -> str:
    """Name a few files.

    Args:
        files: names without folders.
        limit: how many to spell out.

    Returns:
        For example ``a, b, c and 4 more``.
    """
    shown = ", ".join(files[:limit])
    return shown if len(files) <= limit else f"{shown} and {len(files) - limit} more"
