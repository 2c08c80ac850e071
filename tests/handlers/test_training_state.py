"""A training that was killed goes on as if nothing had happened, to the bit."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch.utils.data import DataLoader, Dataset

from shared_nets.handlers.draw_anew import DrawAnew
from shared_nets.handlers.training_state import TrainingState
from shared_nets.inferers.bfloat16_inferer import BFloat16Inferer


class Numbers(Dataset):
    """Random pairs that depend on the epoch."""

    def __init__(self) -> None:
        self.epoch = 0
        self.epochs: list[int] = []

    def __len__(self) -> int:
        return 4

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.epochs.append(epoch)

    def __getitem__(self, index: int):
        generator = torch.Generator().manual_seed(100 * self.epoch + index)
        return {"image": torch.rand(3, generator=generator), "label": torch.rand(1, generator=generator)}


@pytest.fixture
def train(tmp_path):
    """Give ``train(folder, epochs, stop_after=None) -> (weights, epochs drawn)``."""

    def run(folder: str, epochs: int, stop_after: int | None = None, releases_average: bool = False):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(3, 1))
        average = torch.optim.swa_utils.AveragedModel(network)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=4 * epochs)
        data = Numbers()
        state = TrainingState(
            output_dir=tmp_path / folder,
            network=network,
            parts={"optimizer": optimizer, "schedule": schedule, "average": average},
            released=average.module if releases_average else None,
        )
        trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=stop_after or epochs,
            train_data_loader=DataLoader(data, batch_size=1, shuffle=True),
            network=network,
            optimizer=optimizer,
            loss_function=torch.nn.MSELoss(),
            train_handlers=[
                DrawAnew(data),
                LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
                state,
            ],
        )
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: average.update_parameters(network))
        trainer.run()
        return network[1].weight.detach().clone(), data.epochs

    return run


def test_a_resumed_training_ends_with_the_same_weights(train, tmp_path):
    whole, _ = train("whole", 6)
    train("parts", 6, stop_after=2)
    resumed, epochs = train("parts", 6)
    assert epochs == [3, 4, 5, 6]
    assert torch.equal(whole, resumed)
    written = torch.load(tmp_path / "parts" / "model.pt", weights_only=True)
    assert torch.equal(written["1.weight"], whole)


def test_averaged_weights_are_what_is_released(train, tmp_path):
    last, _ = train("average", 3, releases_average=True)
    train("average_parts", 3, stop_after=1, releases_average=True)
    train("average_parts", 3, releases_average=True)
    whole, resumed = (
        torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("average", "average_parts")
    )
    assert torch.equal(whole["1.weight"], resumed["1.weight"])
    assert not torch.equal(whole["1.weight"], last)


def test_a_complete_training_is_not_repeated(train):
    done, _ = train("done", 3)
    again, epochs = train("done", 3)
    assert epochs == []
    assert torch.equal(done, again)


def test_bfloat16_is_used_inside_and_float32_comes_out():
    seen = []

    class Net(torch.nn.Module):
        def forward(self, image):
            out = image @ torch.ones(3, 1)
            seen.append(out.dtype)
            return out

    out = BFloat16Inferer()(torch.ones(2, 3), Net())
    assert (seen, out.dtype) == ([torch.bfloat16], torch.float32)
    BFloat16Inferer(is_enabled=False)(torch.ones(2, 3), Net())
    assert seen[-1] == torch.float32
