"""Names and shapes of public VMamba files, written out from their published layout."""

from __future__ import annotations

import math
from collections.abc import Sequence


def public_vmamba_shapes(
    *,
    depths: Sequence[int],
    dims: Sequence[int] = (96, 192, 384, 768),
    ssm_ratio: float,
    num_classes: int | None = 1000,
) -> dict[str, tuple[int, ...]]:
    """List what a file holds: one state a channel, four scans, rank ⌈width / 16⌉, no bias around a scan."""

    def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    def conv(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (rows, columns, 3, 3), f"{name}.bias": (rows,)}

    shapes = conv("patch_embed.0", dims[0] // 2, 3) | norm("patch_embed.2", dims[0] // 2)
    shapes |= conv("patch_embed.5", dims[0], dims[0] // 2) | norm("patch_embed.7", dims[0])
    for stage, (depth, width) in enumerate(zip(depths, dims, strict=True)):
        inner, rank = int(ssm_ratio * width), math.ceil(width / 16)
        for index in range(depth):
            block = f"layers.{stage}.blocks.{index}."
            shapes |= norm(f"{block}norm", width) | norm(f"{block}norm2", width)
            shapes |= {
                f"{block}op.x_proj_weight": (4, rank + 2, inner),
                f"{block}op.dt_projs_weight": (4, inner, rank),
                f"{block}op.dt_projs_bias": (4, inner),
                f"{block}op.A_logs": (4 * inner, 1),
                f"{block}op.Ds": (4 * inner,),
                f"{block}op.in_proj.weight": (inner, width),
                f"{block}op.conv2d.weight": (inner, 1, 3, 3),
                f"{block}op.out_proj.weight": (width, inner),
                **norm(f"{block}op.out_norm", inner),
                f"{block}mlp.fc1.weight": (4 * width, width),
                f"{block}mlp.fc1.bias": (4 * width,),
                f"{block}mlp.fc2.weight": (width, 4 * width),
                f"{block}mlp.fc2.bias": (width,),
            }
        if stage + 1 < len(dims):
            shapes |= conv(f"layers.{stage}.downsample.1", dims[stage + 1], width)
            shapes |= norm(f"layers.{stage}.downsample.3", dims[stage + 1])
    shapes |= norm("classifier.norm", dims[-1])
    if num_classes is not None:
        shapes |= {"classifier.head.weight": (num_classes, dims[-1]), "classifier.head.bias": (num_classes,)}
    return shapes
