"""A long gradient is shortened before the optimizer sees it, a short one is left alone."""

from __future__ import annotations

import pytest
import torch
from monai.engines import SupervisedTrainer

from shared_nets.handlers.clip_gradients import ClipGradients


@pytest.mark.parametrize(("target", "step"), [(100.0, 1.0), (0.2, 0.4)])
def test_a_step_is_no_longer_than_the_bound(target, step):
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[{"image": torch.ones(1, 1), "label": torch.full((1, 1), target)}],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=torch.nn.MSELoss(),  # gradient at 0: -2 · target
        train_handlers=[ClipGradients(network, max_norm=1.0)],
    )
    trainer.run()
    assert float(network.weight.detach()) == pytest.approx(step, abs=1e-5)


def test_a_bound_of_nothing_is_refused():
    with pytest.raises(ValueError, match="max_norm must be above 0"):
        ClipGradients(torch.nn.Linear(1, 1), max_norm=0.0)
