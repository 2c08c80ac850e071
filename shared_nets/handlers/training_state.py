"""Keep a training that can be killed at any moment: its state after every epoch, its weights at the end."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from shared_nets.writers.atomic_file import write_atomically

logger = logging.getLogger(__name__)


class TrainingState:
    """Handler: save and resume everything that a training carries from one epoch to the next.

    A run that finds ``training_state.pt`` in its folder goes on after the epoch that was saved last; one that
    finds the training complete does nothing. At the end the bare state dict is written as ``model.pt``. Of
    several processes the first one writes, and all of them resume.

    Args:
        output_dir: folder of both files.
        network: the network.
        parts: what else has a state (optimizer, schedule, averaged weights), by name. The state of torch's
            own random numbers is kept as well.
        released: the network whose weights become ``model.pt``, where it is another one: the average.
    """

    def __init__(
        self,
        *,
        output_dir: str | Path,
        network: torch.nn.Module,
        parts: Mapping[str, Any],
        released: torch.nn.Module | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.parts = {"network": network, **parts}
        self.released = network if released is None else released

    @property
    def path(self) -> Path:
        """Where the state lies."""
        return self.output_dir / "training_state.pt"

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer."""
        engine.add_event_handler(Events.STARTED, self._resume)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _resume(self, engine: Engine) -> None:
        if not self.path.is_file():
            return
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        missing = sorted({*self.parts, "random_numbers"} - saved.keys())
        if missing:
            raise ValueError(f"{self.path.name} must hold {', '.join(missing)}; remove it to begin anew.")
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        torch.set_rng_state(saved["random_numbers"])
        engine.state.epoch, engine.state.iteration = saved["epoch"], saved["iteration"]
        logger.info("training goes on after epoch %d", saved["epoch"])

    def _save(self, engine: Engine) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        self._write(self.path, state | {"random_numbers": torch.get_rng_state()})

    def _finish(self, engine: Engine) -> None:
        self._write(self.output_dir / "model.pt", self.released.state_dict())

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        if dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
            return
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomically(path, buffer.getvalue())
