"""One pre-norm transformer block with LayerScale and stochastic depth.

Shape letters: B batch, L tokens, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from monai.networks.layers import DropPath
from torch import Tensor, nn

from shared_nets.blocks.attention import SelfAttention
from shared_nets.blocks.layer_scale import LayerScale
from shared_nets.blocks.mlp import Mlp

#: Layer normalisation as public ViT checkpoints were trained with it.
layer_norm: Callable[..., nn.Module] = partial(nn.LayerNorm, eps=1e-6)


class TransformerBlock(nn.Module):
    """Mix tokens by attention, then transform each by an MLP; both as residual branches.

    Args:
        embed_dim: width of a token.
        num_heads: attention heads; divides ``embed_dim``.
        mlp_ratio: width inside the MLP as a multiple of ``embed_dim``.
        qkv_bias: whether the query-key-value projection has a bias.
        proj_bias: whether the attention's output projection has a bias.
        ffn_bias: whether the MLP's layers have a bias.
        layer_scale_init: start of the LayerScale weights; ``None`` leaves LayerScale out.
        drop_path_rate: probability that a sample skips a branch in training.
        norm_layer: makes a normalisation from the width.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        ffn_bias: bool = True,
        layer_scale_init: float | None = None,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[..., nn.Module] = layer_norm,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(embed_dim)
        self.attn = SelfAttention(
            embed_dim=embed_dim, num_heads=num_heads, qkv_bias=qkv_bias, proj_bias=proj_bias
        )
        self.ls1 = _layer_scale(embed_dim, layer_scale_init)
        self.drop_path1 = DropPath(drop_path_rate)
        self.norm2 = norm_layer(embed_dim)
        self.mlp = Mlp(embed_dim=embed_dim, hidden_dim=int(embed_dim * mlp_ratio), bias=ffn_bias)
        self.ls2 = _layer_scale(embed_dim, layer_scale_init)
        self.drop_path2 = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Pass tokens ``(B, L, E)`` on to tokens of the same shape."""
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def _layer_scale(embed_dim: int, init_value: float | None) -> nn.Module:
    return nn.Identity() if init_value is None else LayerScale(embed_dim=embed_dim, init_value=init_value)
