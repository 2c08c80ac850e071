"""Checkpoints of the published MambaDerm v1: what is taken, what is dropped, and the scan that is refused."""

from __future__ import annotations

import pytest
import torch

from shared_nets.nets.mambaderm import MambaDerm
from shared_nets.weights.conversion import WeightsMismatch, expected_shapes
from shared_nets.weights.mambaderm import from_mambaderm_v1

D, STEM, DEPTH, STATES, RANK = 32, 8, 2, 4, 2  # width, stem, layers, states; rank = 32 / 16


def v1_shapes(*, rank: int = RANK, with_metadata: bool = True) -> dict[str, tuple[int, ...]]:
    """List names and shapes as the published code makes them, for a small network."""

    def linear(name, rows, columns):
        return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}

    def norm(name, width):
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    shapes = {
        "pos_embed": (1, 16, D),
        "stem.patch_conv.weight": (STEM, 3, 4, 4),
        "stem.patch_conv.bias": (STEM,),
    }
    shapes |= norm("stem.patch_norm", STEM)
    for index in range(2):
        block = f"stem.blocks.{index}."
        shapes |= {f"{block}layer_scale": (STEM,), f"{block}dwconv.weight": (STEM, 1, 7, 7)}
        shapes |= {f"{block}dwconv.bias": (STEM,), **norm(f"{block}norm", STEM)}
        shapes |= linear(f"{block}pwconv1", 4 * STEM, STEM) | linear(f"{block}pwconv2", STEM, 4 * STEM)
    shapes |= {"stem.proj.weight": (D, STEM, 1, 1), "stem.proj.bias": (D,), **norm("stem.proj_norm", D)}
    for index in range(DEPTH):
        layer = f"mamba_layers.{index}."
        shapes |= norm(f"{layer}ssm_block.norm", D) | linear(f"{layer}ssm_block.fusion", D, 2 * D)
        for way in ("forward", "backward"):
            ssm = f"{layer}ssm_block.ssm_{way}."
            shapes |= {
                f"{ssm}in_proj.weight": (4 * D, D),
                f"{ssm}conv1d.weight": (2 * D, 1, 4),
                f"{ssm}conv1d.bias": (2 * D,),
                f"{ssm}x_proj.weight": (rank + 2 * STATES, 2 * D),
                **linear(f"{ssm}dt_proj", 2 * D, rank),
                f"{ssm}A_log": (2 * D, STATES),
                f"{ssm}D": (2 * D,),
                f"{ssm}out_proj.weight": (D, 2 * D),
            }
        shapes |= norm(f"{layer}mlp_norm", D) | linear(f"{layer}mlp.0", 4 * D, D)
        shapes |= linear(f"{layer}mlp.3", D, 4 * D)
    shapes |= (
        norm("norm", D) | norm("fusion.norm", D) | linear("fusion.local_global_gate.gate_proj", D, 2 * D)
    )
    if with_metadata:
        shapes |= {"tabular_encoder.missing_embed": (34,), "tabular_encoder.cat_embeddings.0.weight": (4, 8)}
        shapes |= linear("tabular_encoder.num_proj", 128, 68) | linear("fusion.cross_attn.q_proj", D, D)
    shapes |= linear("classifier.0", D, 2 * D if with_metadata else D) | norm("classifier.1", D)
    shapes |= linear("classifier.4", D // 2, D) | norm("classifier.5", D // 2)
    return shapes | linear("classifier.8", 1, D // 2)


def v1_weights(**options) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: 0.1 * torch.randn(shape, generator=generator) for name, shape in v1_shapes(**options).items()
    }


def network() -> MambaDerm:
    return MambaDerm(
        num_classes=1, img_size=16, stem_dims=(STEM,), embed_dim=D, depth=DEPTH, d_state=STATES
    ).eval()


def test_a_network_on_images_alone_is_taken_whole():
    ours, weights = network(), v1_weights(with_metadata=False)
    conversion = from_mambaderm_v1({"model_state_dict": weights, "epoch": 3}, expected=expected_shapes(ours))
    ours.load_state_dict(conversion.state_dict)
    assert conversion.dropped == {"epoch": "beside 'model_state_dict' in the checkpoint"}
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in weights.items())


def test_of_a_network_with_metadata_the_trunk_is_taken_and_every_other_name_accounted_for():
    ours, weights = network(), v1_weights()
    conversion = from_mambaderm_v1({"model_state_dict": weights}, expected=expected_shapes(ours))
    missing, unexpected = ours.load_state_dict(conversion.state_dict, strict=False)
    assert unexpected == []
    assert {name.split(".")[0] for name in missing} == {"classifier"}
    assert set(conversion.dropped) | set(conversion.state_dict) == set(weights)
    reasons = {name: reason.split(" ")[0] for name, reason in conversion.dropped.items()}
    assert reasons["tabular_encoder.missing_embed"] == "encodes"
    assert reasons["fusion.cross_attn.q_proj.weight"] == "attends"
    assert reasons["classifier.8.weight"] == "starts"


def test_the_light_size_nests_its_weights():
    ours, weights = network(), v1_weights()
    nested = {"model_state_dict": {f"model.{name}": value for name, value in weights.items()}}
    plain = from_mambaderm_v1(weights, expected=expected_shapes(ours)).state_dict
    conversion = from_mambaderm_v1(nested, expected=expected_shapes(ours))
    assert conversion.state_dict.keys() == plain.keys()
    assert conversion.sources["pos_embed"] == ("model.pos_embed",)
    assert "model.classifier.0.bias" in conversion.dropped


def test_weights_of_the_fallback_scan_are_refused_with_the_reason():
    with pytest.raises(
        WeightsMismatch, match="rank of time steps: 1 in the file and 2 in the network"
    ) as error:
        from_mambaderm_v1(v1_weights(rank=1), expected=expected_shapes(network()))
    assert "only files made with mamba-ssm" in str(error.value)
    assert len(error.value.problems) == 1


def test_a_weight_that_is_missing_or_too_much_is_named():
    weights = v1_weights()
    del weights["norm.bias"]
    with pytest.raises(WeightsMismatch, match=r"unexpected: extra\n  missing: norm\.bias"):
        from_mambaderm_v1({**weights, "extra": torch.ones(1)}, expected=expected_shapes(network()))
