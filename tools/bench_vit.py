"""Speed of our ViT beside Hugging Face's, as ratios: ``python -m tools.bench_vit [--quick]``.

One thread, all contenders in one process and taking turns, medians of CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from shared_nets.nets.vision_transformer import VisionTransformer
from shared_nets.weights.conversion import expected_shapes
from shared_nets.weights.huggingface_dinov2 import from_huggingface_dinov2

PATCH_SIZE = 14
WIDTH, DEPTH, HEADS = 384, 12, 6  # ViT-S


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_vit", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and 224 pixels only")
    parser.add_argument("--rounds", type=int, help="how often each contender runs")
    parser.add_argument("--batch-size", type=int, default=8, help="images at a time at 224 pixels")
    args = parser.parse_args(argv)
    rounds = args.rounds or (3 if args.quick else 9)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        print(f"ViT-S/14 forward, float32 unless said otherwise, one thread, medians of {rounds} rounds")
        _bench(img_size=224, batch_size=args.batch_size, rounds=rounds)
        if not args.quick:
            _bench(img_size=518, batch_size=1, rounds=rounds)
    finally:
        torch.set_num_threads(threads)
    return 0


def _bench(*, img_size: int, batch_size: int, rounds: int) -> None:
    ours, sdpa, eager = _make_networks(img_size)
    kinds = (sdpa.config._attn_implementation, eager.config._attn_implementation)
    if kinds != ("sdpa", "eager"):
        raise RuntimeError(f"Hugging Face's attention must be sdpa and eager, got {kinds}.")
    image = torch.randn(batch_size, 3, img_size, img_size, generator=torch.Generator().manual_seed(0))
    contenders: dict[str, Callable[[], torch.Tensor]] = {
        "ours": lambda: ours(image),
        "Hugging Face, SDPA": lambda: sdpa(image).pooler_output,
        "Hugging Face, eager": lambda: eager(image).pooler_output,
    }
    has_bfloat16 = _has_bfloat16()
    if has_bfloat16:
        half, half_image = _copy_of(ours, img_size).bfloat16(), image.bfloat16()
        contenders["ours, bfloat16"] = lambda: half(half_image).float()
        contenders["ours, bfloat16 by autocast"] = lambda: _autocast(ours, image)
    with torch.inference_mode():
        reference = contenders["Hugging Face, eager"]()
        worst = float((contenders["ours"]() - reference).abs().max())
        medians = _take_turns(contenders, rounds)
        print(f"\n{img_size} px, batch {batch_size}: ours differs from Hugging Face by at most {worst:.1e}")
        for peer in ("Hugging Face, SDPA", "Hugging Face, eager"):
            print(f"  ours is {medians[peer] / medians['ours']:.2f} x as fast as {peer}")
        if not has_bfloat16:
            print("  bfloat16: not measured: this processor has no bf16")
            return
        for name in ("ours, bfloat16", "ours, bfloat16 by autocast"):
            distance = 1 - float(F.cosine_similarity(contenders[name]().float(), reference).min())
            ratio = medians["ours"] / medians[name]
            print(f"  {name} is {ratio:.2f} x as fast as ours in float32; 1 - cosine {distance:.1e}")


def _make_networks(img_size: int) -> tuple[VisionTransformer, Any, Any]:
    """Make ours and Hugging Face's two kinds of attention with the same random weights."""
    from transformers import Dinov2Config, Dinov2Model  # heavy, and only needed to compare

    def make(attention: str) -> Any:
        config = Dinov2Config(  # one for each: the model reads its kind of attention from it when it runs
            hidden_size=WIDTH,
            num_hidden_layers=DEPTH,
            num_attention_heads=HEADS,
            image_size=img_size,
            patch_size=PATCH_SIZE,
        )
        return Dinov2Model._from_config(config, attn_implementation=attention).eval()

    torch.manual_seed(0)
    sdpa, eager = make("sdpa"), make("eager")
    eager.load_state_dict(sdpa.state_dict())
    ours = _make_ours(img_size)
    ours.load_state_dict(
        from_huggingface_dinov2(sdpa.state_dict(), expected=expected_shapes(ours)).state_dict
    )
    return ours, sdpa, eager


def _make_ours(img_size: int) -> VisionTransformer:
    return VisionTransformer(
        img_size=img_size,
        patch_size=PATCH_SIZE,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        layer_scale_init=1.0,
    ).eval()


def _copy_of(vit: VisionTransformer, img_size: int) -> VisionTransformer:
    copy = _make_ours(img_size)
    copy.load_state_dict(vit.state_dict())
    return copy


def _autocast(vit: VisionTransformer, image: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return vit(image)


def _take_turns(contenders: dict[str, Callable[[], torch.Tensor]], rounds: int) -> dict[str, float]:
    """Run each contender once a round, so that noise of the machine meets all alike; median CPU seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(rounds + 1):
        for name, run in contenders.items():
            start = time.process_time()
            run()
            if index:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _has_bfloat16() -> bool:
    """Say whether the processor multiplies bfloat16 in hardware."""
    cpu_info = Path("/proc/cpuinfo")
    return cpu_info.is_file() and any(
        feature in cpu_info.read_text(encoding="utf-8") for feature in ("avx512_bf16", "amx_bf16", " bf16")
    )


if __name__ == "__main__":
    sys.exit(main())
