"""Write a file whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write ``content`` under a temporary name in the same folder, then rename.

    Args:
        path: where the file goes; its folder is made. Its permissions are those of the process's umask.
        content: the bytes.

    Returns:
        The path, which never holds half a file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return target
