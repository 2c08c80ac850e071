"""Weights of a bundle that were trained here or sent by a client; the released ones stay where they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared_nets.runtime.checks import file_sha256
from shared_nets.writers.atomic_file import write_atomically


class OwnWeights:
    """``model.pt`` in a folder of the server, and ``training.json``, which says how it came about.

    Args:
        folder: where both lie; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "model.pt"
        self._facts = folder / "training.json"

    def sha256(self) -> str | None:
        """Hash the weights; ``None`` where there are none."""
        return file_sha256(self.path) if self.path.is_file() else None

    def facts(self) -> dict[str, Any]:
        """Tell how the weights that are there were trained; nothing where they came from elsewhere."""
        if not self._facts.is_file():
            return {}
        facts: dict[str, Any] = json.loads(self._facts.read_text(encoding="utf-8"))
        return facts if facts.get("sha256") == self.sha256() else {}

    def statement(self) -> str:
        """Say in one sentence, for every result, that these are not the released weights."""
        facts = self.facts()
        if not facts:
            return (
                "The weights were sent to this server; they are not those that the bundle was released with."
            )
        return (
            f"The weights were trained further on this server, submitted masks: {facts['labels']}; "
            "they are not those that the bundle was released with."
        )

    def replace(self, trained: Path, facts: dict[str, Any]) -> dict[str, Any]:
        """Take over trained weights.

        Args:
            trained: file with a bare state dict.
            facts: how it was trained, plain values.

        Returns:
            The facts, with the sha256 of the weights.
        """
        known = {"sha256": file_sha256(trained), **facts}
        write_atomically(self._facts, (json.dumps(known, indent=2) + "\n").encode())
        write_atomically(self.path, trained.read_bytes())
        return known
