"""A TabPFN v2 regressor of any size: how it is built, its loss, its checkpoint in the package's format."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared_nets.nets.tabpfn_embedder import tabpfn_module


def new_network(*, embed_dim: int, depth: int, num_heads: int, num_buckets: int) -> nn.Module:
    """Build an untrained TabPFN v2 regressor, for training on a prior.

    Args:
        embed_dim: width of a cell's token, a multiple of 4 and of ``num_heads``.
        depth: number of blocks.
        num_heads: attention heads.
        num_buckets: buckets of the predicted distribution.

    Returns:
        The network; features ``(R, M, F)`` and known targets ``(N, M)`` → logits ``(R - N, M, buckets)``.
    """
    architecture = tabpfn_module("tabpfn.architectures.tabpfn_v2")
    return architecture.get_architecture(
        architecture.TabPFNV2Config(
            emsize=embed_dim, nlayers=depth, nhead=num_heads, num_buckets=num_buckets, max_num_classes=0
        )
    )


def new_criterion(borders: Tensor) -> nn.Module:
    """Build the distribution over buckets, whose call is a loss and whose ``mean`` is a prediction."""
    return tabpfn_module("tabpfn.architectures.shared.bar_distribution").FullSupportBarDistribution(borders)


def save_checkpoint(network: nn.Module, criterion: nn.Module, path: str | Path) -> None:
    """Write a network of :func:`new_network` as a checkpoint that ``tabpfn`` loads, in half precision.

    It asks for plain preprocessing: columns as they are (as normal quantiles in every second member of an
    ensemble), no categories guessed, no fingerprint of the row.

    Args:
        network: the trained network.
        criterion: the distribution it was trained with, from :func:`new_criterion`.
        path: file to write, ``.ckpt``.
    """
    preprocessing = tabpfn_module("tabpfn.preprocessing")
    inference = tabpfn_module("tabpfn.inference_config").InferenceConfig(
        PREPROCESS_TRANSFORMS=[
            preprocessing.PreprocessorConfig("none", categorical_name="numeric"),
            preprocessing.PreprocessorConfig("quantile_norm", categorical_name="numeric"),
        ],
        MAX_UNIQUE_FOR_CATEGORICAL_FEATURES=0,
        MIN_UNIQUE_FOR_NUMERICAL_FEATURES=1,
        OUTLIER_REMOVAL_STD=None,
        FINGERPRINT_FEATURE=False,
        SOFTMAX_TEMPERATURE=1.0,
        REGRESSION_Y_PREPROCESS_TRANSFORMS=(None,),
        MAX_NUMBER_OF_FEATURES=100,
        MAX_NUMBER_OF_SAMPLES=1000,
    )
    blocks: Any = network.blocks
    config = {
        "name": "TabPFN-v2",
        "emsize": network.emsize,
        "nlayers": len(blocks),
        "nhead": blocks[0].per_sample_attention_between_features.num_heads,
        "features_per_group": network.features_per_group,
        "seed": network.seed,
        "max_num_classes": 0,
        "num_buckets": network.n_out,
    }
    weights = {name: value.detach().to(torch.float16) for name, value in network.state_dict().items()}
    buckets = {f"criterion.{name}": value.detach() for name, value in criterion.state_dict().items()}
    # A running count of this run, which no prediction reads and a resumed run would lack.
    buckets["criterion.losses_per_bucket"] = torch.zeros_like(buckets["criterion.losses_per_bucket"])
    checkpoint = {
        "state_dict": {**weights, **buckets},
        "config": config,
        "architecture_name": "tabpfn_v2",
        "inference_config": dataclasses.asdict(inference),
    }
    temporary = Path(f"{path}.tmp")
    torch.save(checkpoint, temporary)
    temporary.replace(path)
