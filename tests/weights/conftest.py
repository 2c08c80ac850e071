"""Small networks and Hugging Face models with the same, random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from shared_nets.nets.vision_transformer import VisionTransformer

SMALL = {"img_size": 56, "patch_size": 14, "embed_dim": 64, "depth": 3, "num_heads": 4}


def randomise(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Make every weight matter: tokens and scales too, which start at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator) + 0.05)
    return module.eval()


@pytest.fixture
def make_vit() -> Callable[..., VisionTransformer]:
    def make(*, seed: int = 0, **overrides: Any) -> VisionTransformer:
        return randomise(VisionTransformer(**{**SMALL, "layer_scale_init": 1.0, **overrides}), seed)

    return make


@pytest.fixture
def make_huggingface() -> Callable[..., Any]:
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    def make(*, num_register_tokens: int, seed: int = 0) -> Any:
        size = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 56}
        if num_register_tokens:
            config = Dinov2WithRegistersConfig(**size, patch_size=14, num_register_tokens=num_register_tokens)
            return randomise(Dinov2WithRegistersModel(config), seed)
        return randomise(Dinov2Model(Dinov2Config(**size, patch_size=14)), seed)

    return make
