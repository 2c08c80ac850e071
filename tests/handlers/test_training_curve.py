"""The curve of a training holds what was computed, also of the epochs before it was killed."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from PIL import Image
from torch.utils.data import DataLoader

from shared_nets.handlers.training_curve import TrainingCurve, curve_picture
from shared_nets.handlers.training_state import TrainingState

#: Errors of a network that always gives 0, and their squares' mean: (1 + 9) / 2 = 5.
DATA = [
    {"image": torch.zeros(1), "label": torch.tensor([1.0])},
    {"image": torch.zeros(1), "label": torch.tensor([3.0])},
]


@pytest.fixture
def train(tmp_path):
    """Give ``train(epochs)``, which trains nothing and validates every second epoch, and resumes."""

    def run(epochs: int) -> list[dict[str, str]]:
        network = torch.nn.Linear(1, 1, bias=False)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        validator = Engine(lambda engine, batch: None)
        curve = TrainingCurve(tmp_path, validator=validator)

        def validate(trainer: Engine) -> None:
            validator.state.metrics["accuracy"] = trainer.state.epoch / 10
            validator.run([0])

        trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=DataLoader(DATA, batch_size=1),
            network=network,
            optimizer=optimizer,
            loss_function=torch.nn.MSELoss(),
        )
        validator.add_event_handler(
            Events.STARTED, lambda engine: engine.state.metrics.update(accuracy=trainer.state.epoch / 10)
        )
        trainer.add_event_handler(Events.EPOCH_COMPLETED(every=2), validate)
        curve.attach(trainer)
        TrainingState(output_dir=tmp_path, network=network, parts={"curve": curve}).attach(trainer)
        trainer.run()
        return list(csv.DictReader(io.StringIO((tmp_path / "training_curve.csv").read_text())))

    return run


def test_a_row_is_the_mean_loss_of_an_epoch_and_what_was_validated_in_it(train):
    assert train(3) == [
        {"epoch": "1", "loss": "5", "accuracy": ""},
        {"epoch": "2", "loss": "5", "accuracy": "0.2"},
        {"epoch": "3", "loss": "5", "accuracy": ""},
    ]


def test_a_resumed_training_keeps_the_rows_before(train):
    train(1)
    assert [(row["epoch"], row["accuracy"]) for row in train(4)] == [
        ("1", ""),
        ("2", "0.2"),
        ("3", ""),
        ("4", "0.4"),
    ]


def test_a_state_without_a_part_is_refused_with_what_to_do(train, tmp_path):
    train(1)
    state = torch.load(tmp_path / "training_state.pt", weights_only=True)
    del state["curve"]
    torch.save(state, tmp_path / "training_state.pt")
    with pytest.raises(ValueError, match=r"training_state.pt must hold curve; remove it to begin anew"):
        train(2)


def test_the_picture_shows_the_curve(train):
    rows = [
        {"epoch": 1, "loss": 2.0},
        {"epoch": 2, "loss": 1.0, "accuracy": 0.5},
        {"epoch": 3, "loss": 0.5, "accuracy": 0.9},
    ]
    picture = Image.open(io.BytesIO(curve_picture(rows))).convert("RGB")
    assert picture.size == (800, 450)
    colours = {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3).tolist()}
    assert {(0, 0, 0), (31, 119, 180)} <= colours  # the loss in black, the first figure in matplotlib's blue
    assert curve_picture(rows) == curve_picture(rows)
