"""Learned position embeddings of a patch grid, brought to the grid of the image at hand.

Shape letters: N patches, E embedding; a grid is (rows, columns).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_position_embedding(
    pos_embed: Tensor,
    grid_size: tuple[int, int],
    *,
    native_grid_size: tuple[int, int],
    interpolate_offset: float = 0.0,
    antialias: bool = False,
) -> Tensor:
    """Let a ViT see images of another size than it was trained on.

    The patch part is resampled bicubically, in float32 at least; the class token's part is kept.

    Args:
        pos_embed: position embedding of the class token, then of the patches row by row, ``(1, 1 + N, E)``.
        grid_size: wanted number of patches along height and width.
        native_grid_size: number of patches along height and width in ``pos_embed``.
        interpolate_offset: added to the wanted number of patches when the scale is computed (0.1 in DINO and
            in DINOv2 without registers); 0 resamples to the size itself (Hugging Face, and DINOv2 with
            registers).
        antialias: whether shrinking is smoothed (DINOv2 with registers).

    Returns:
        Position embedding of the wanted grid, ``(1, 1 + N', E)``, same dtype; ``pos_embed`` itself when the
        grid is the native one.

    Raises:
        ValueError: the grid does not account for the patches in ``pos_embed``.
    """
    rows, columns = native_grid_size
    if pos_embed.shape[1] != 1 + rows * columns:
        raise ValueError(
            f"pos_embed must have {1 + rows * columns} positions for a {rows} × {columns} grid, "
            f"got {pos_embed.shape[1]}."
        )
    if grid_size == native_grid_size:
        return pos_embed
    width = pos_embed.shape[-1]
    patches = pos_embed[:, 1:].reshape(1, rows, columns, width).permute(0, 3, 1, 2)  # (1, E, rows, columns)
    patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
    if interpolate_offset:
        # The offset enters the sampling positions through the scale; the size stays what was asked for.
        scale = [
            (new + interpolate_offset) / old for new, old in zip(grid_size, native_grid_size, strict=True)
        ]
        patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", antialias=antialias)
    else:
        patches = F.interpolate(patches, size=list(grid_size), mode="bicubic", antialias=antialias)
    patches = patches.permute(0, 2, 3, 1).reshape(1, -1, width).to(pos_embed.dtype)  # (1, N', E)
    return torch.cat((pos_embed[:, :1], patches), dim=1)  # (1, 1 + N', E)
