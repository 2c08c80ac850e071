"""Quantiles of the predictive distribution: the first logit plus stored residuals, by hand."""

import torch
from torch import Tensor, nn

from shared_nets.inferers.predictive_quantiles import PredictiveQuantilesInferer


class Fixed(nn.Module):
    """Answers every image with the same logits, plus ``shift``."""

    def __init__(self, logits: list[float], residuals: list[float] | None) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)
        if residuals is not None:
            self.register_buffer("log_residual_quantiles", torch.tensor(residuals, dtype=torch.float64))

    def forward(self, image: Tensor, shift: float = 0.0) -> Tensor:
        return (self.logits + shift).expand(len(image), -1)


IMAGES = torch.zeros(2, 1, 4, 4)


def test_regression_gets_its_quantiles_behind_the_estimate():
    network = Fixed([0.5], [-0.25, 0.0, 0.5])
    out = PredictiveQuantilesInferer()(IMAGES, network)
    assert out.tolist() == [[0.5, 0.25, 0.5, 1.0]] * 2
    assert out.dtype == torch.float32  # of the logits, not of the stored residuals


def test_multitask_keeps_stage_logits_behind_the_quantiles():
    network = Fixed([0.5, 7.0, 8.0], [-0.25, 0.5])
    assert PredictiveQuantilesInferer()(IMAGES, network).tolist() == [[0.5, 0.25, 1.0, 7.0, 8.0]] * 2


def test_a_classifier_passes_its_logits_through():
    network = Fixed([1.0, 2.0, 3.0], None)
    assert PredictiveQuantilesInferer()(IMAGES, network).tolist() == [[1.0, 2.0, 3.0]] * 2


def test_keywords_reach_the_network_and_move_the_whole_distribution():
    network = Fixed([0.5], [-0.25, 0.5])
    out = PredictiveQuantilesInferer()(IMAGES, network, shift=1.0)
    assert out.tolist() == [[1.5, 1.25, 2.0]] * 2
