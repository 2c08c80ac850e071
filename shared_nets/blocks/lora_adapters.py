"""Low-rank adapters on the attention of a transformer, through peft."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def add_lora(
    module: nn.Module,
    *,
    rank: int = 8,
    alpha: int = 16,
    dropout_rate: float = 0.0,
    target_modules: Sequence[str] = ("attn.qkv", "attn.proj"),
) -> nn.Module:
    """Freeze a network and add trainable low-rank adapters to its linear layers, in place.

    A fresh adapter changes nothing: its second factor starts at zero.

    Args:
        module: network with linear layers named by ``target_modules``.
        rank: rank of the adapters.
        alpha: their scale is ``alpha / rank``.
        dropout_rate: dropout in front of the adapters.
        target_modules: endings of the names of the layers to adapt.

    Returns:
        The same network.

    Raises:
        ImportError: peft is not installed.
        ValueError: no layer has one of the names (raised by peft).

    Reference:
        E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("LoRA needs peft: install it with `pip install peft`.") from error
    module.requires_grad_(False)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout_rate, target_modules=list(target_modules), bias="none"
    )
    return inject_adapter_in_model(config, module)
