"""An audit log that survives ``kill -9``: one JSON object a line, on disk before the next step begins."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared_nets.refusals import InputRefused


class AuditLog:
    """Append events to one file; one process at a time writes it.

    A process that is killed can leave half a line, which is nobody's event: it is cut off when the log is
    opened again, and an event ``repaired`` says so.

    Args:
        path: the file, ``*.jsonl``; its folder is made.
        common: facts that every event carries. They and the events hold no names.
    """

    def __init__(self, path: str | Path, *, common: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._common = dict(common)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = _cut_torn_line(self.path)
        if torn:
            self.append("repaired", removed_bytes=torn)

    def append(self, event: str, **facts: Any) -> None:
        """Write one event and wait until the disk has it.

        Args:
            event: what happened.
            facts: JSON values.

        Raises:
            OSError: the disk did not take the whole line.
        """
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        content = {"event": event, "moment": moment, **facts, **self._common}
        line = json.dumps(content, allow_nan=False).encode() + b"\n"
        with self.path.open("ab", buffering=0) as file:
            if file.write(line) != len(line):
                raise OSError(f"{self.path.name} must take a whole line, and did not; is the disk full?")
            os.fsync(file.fileno())


def read_events(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Read the events of every log in a folder; a last line that another process is writing is left out.

    Args:
        folder: holds ``*.jsonl``; it need not exist.

    Returns:
        The events, file by file in the order of their names.

    Raises:
        InputRefused: ``INPUT_UNREADABLE`` when a line is no event.
    """
    for path in sorted(Path(folder).glob("*.jsonl")):
        *lines, _unfinished = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if not isinstance(event, dict):
                raise InputRefused(
                    "INPUT_UNREADABLE",
                    f"Line {number} of {path.name} is no audit event.",
                    "Put the log back as it was written, or move it away.",
                )
            yield event


def _cut_torn_line(path: Path) -> int:
    """Cut off what follows the last newline; say how many bytes that were."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())
    return len(content) - whole
