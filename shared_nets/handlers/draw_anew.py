"""Give a dataset of random samples the number of the epoch, so that every epoch draws other ones."""

from __future__ import annotations

from typing import Protocol

from ignite.engine import Engine, Events


class DrawsByEpoch(Protocol):
    """A dataset whose samples depend on the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Draw the samples of this epoch from now on."""
        ...


class DrawAnew:
    """Handler: tell a dataset the epoch when it starts; a resumed training draws what it would have drawn.

    Args:
        dataset: the dataset.
    """

    def __init__(self, dataset: DrawsByEpoch) -> None:
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._started)

    def _started(self, engine: Engine) -> None:
        self.dataset.set_epoch(engine.state.epoch)
