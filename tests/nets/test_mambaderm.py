"""MambaDerm: what its sizes hold, that metadata count and can be missing, and that nothing is mixed up."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from shared_nets.blocks import mamba as mamba_block
from shared_nets.blocks.mamba import Mamba
from shared_nets.nets import mambaderm as sizes
from shared_nets.nets.mambaderm import MambaDerm
from shared_nets.transforms.lesion_metadata import LesionMetadatad
from shared_nets.transforms.lesion_schema import lesion_schema

NAN = float("nan")
SMALL = {
    "num_classes": 3,
    "img_size": 16,
    "stem_dims": (8,),
    "stem_depths": (1,),
    "stem_strides": (4,),
    "stem_kernel_size": 3,
    "layer_scale_init": 0.5,
    "embed_dim": 16,
    "depth": 2,
    "d_state": 4,
}


@dataclass(frozen=True)
class Table:
    num_numbers: int = 2
    category_sizes: tuple[int, ...] = (3, 4)
    sha256: str = "ab" * 32


ISIC = lesion_schema("isic2024")
ROWS = torch.tensor([[0.5, -1.0, 1.0, 3.0], [NAN, 2.0, 0.0, 1.0], [1.5, NAN, 2.0, 0.0]])
NOTHING = torch.tensor([[NAN, NAN, 0.0, 0.0]]).expand(3, -1)


def make(**overrides) -> MambaDerm:
    """Make a small network in evaluation whose every weight matters."""
    torch.manual_seed(0)
    network = MambaDerm(**{**SMALL, **overrides}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_described_size_has_the_published_number_of_parameters_wherever_the_part_is_the_same():
    with torch.device("meta"):
        network = sizes.mambaderm(num_classes=1, metadata_schema=ISIC)
    assert count(network.stem) == 182_496
    assert network.pos_embed.numel() == 602_112
    assert count(network.mamba_layers) == 3_426_816 + 8 * 8_448  # dt_rank 12 instead of 1
    assert count(network.norm) == 384
    assert count(network.fusion) == 223_296
    assert count(network.classifier) == 93_121
    published_total, its_tabular_encoder = 4_727_367, 131_558
    assert count(network) - count(network.tabular_encoder) == published_total - its_tabular_encoder


def test_the_light_size_has_the_published_number_of_parameters_wherever_the_part_is_the_same():
    with torch.device("meta"):
        network = sizes.mambaderm_lite(num_classes=1, metadata_schema=ISIC)
    published_total, its_tabular_encoder = 1_433_447, 114_982
    difference = published_total - its_tabular_encoder + 4 * 7 * 512  # dt_rank 8 instead of 1
    assert count(network) - count(network.tabular_encoder) == difference
    assert network.fusion.cross_attn is None


@pytest.mark.parametrize(
    ("make_size", "image_only", "with_isic_metadata"),
    [
        pytest.param(sizes.mambaderm, 4_410_535, 5_220_199, id="mambaderm"),
        pytest.param(sizes.mambaderm_lite, 1_316_807, 1_617_991, id="lite"),
        pytest.param(sizes.mambaderm_mini, 829_095, 1_040_391, id="mini"),
    ],
)
def test_each_size_says_how_many_parameters_it_has(make_size, image_only, with_isic_metadata):
    with torch.device("meta"):
        assert count(make_size(num_classes=7)) == image_only
        assert count(make_size(num_classes=7, metadata_schema=ISIC)) == with_isic_metadata
    assert f"{image_only:,}" in make_size.__doc__
    assert f"{with_isic_metadata:,}" in make_size.__doc__


def test_the_size_for_small_images_fits_a_file_of_8_megabytes():
    with torch.device("meta"):
        assert count(sizes.mambaderm_mini(num_classes=7)) < 2_000_000


def test_state_dict_names_are_those_of_the_published_checkpoints():
    names = set(make(metadata_schema=Table()).state_dict())
    ssm = {"in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight",
           "dt_proj.bias", "A_log", "D", "out_proj.weight"}  # fmt: skip
    both = ("weight", "bias")
    expected = {"pos_embed", *(f"norm.{leaf}" for leaf in both)}
    block = (f"blocks.0.{part}" for part in ("dwconv", "norm", "pwconv1", "pwconv2"))
    stem = ("patch_conv", "patch_norm", "proj", "proj_norm", *block)
    expected |= {f"stem.{part}.{leaf}" for part in stem for leaf in both}
    expected |= {"stem.blocks.0.layer_scale"}
    for index in range(2):
        layer = f"mamba_layers.{index}."
        expected |= {f"{layer}ssm_block.ssm_{way}.{leaf}" for way in ("forward", "backward") for leaf in ssm}
        parts = ("ssm_block.norm", "ssm_block.fusion", "mlp_norm", "mlp.0", "mlp.3")
        expected |= {f"{layer}{part}.{leaf}" for part in parts for leaf in both}
    attention = ("q_proj", "k_proj", "v_proj", "out_proj", "norm_img", "norm_tab")
    expected |= {f"fusion.cross_attn.{part}.{leaf}" for part in attention for leaf in both}
    expected |= {f"fusion.{part}.{leaf}" for part in ("local_global_gate.gate_proj", "norm") for leaf in both}
    expected |= {f"classifier.{index}.{leaf}" for index in (0, 1, 4, 5, 8) for leaf in both}
    assert {name for name in names if not name.startswith("tabular_encoder.")} == expected


def test_logits_and_embedding_have_their_shapes(image):
    network = make()
    assert network(image).shape == (3, 3)
    assert network.forward_features(image).shape == (3, network.num_features) == (3, 16)
    both = make(metadata_schema=Table())
    assert both(image, ROWS).shape == (3, 3)
    assert both.forward_features(image, ROWS).shape == (3, both.num_features) == (3, 32)


def test_the_classifier_starts_from_the_embedding(image):
    network = make(metadata_schema=Table())
    embedding = network.forward_features(image, ROWS)
    assert torch.equal(network.classifier(embedding), network(image, ROWS))


def test_image_tokens_that_were_kept_give_the_same_embedding(image):
    network = make(metadata_schema=Table())
    kept = network.image_tokens(image)
    assert torch.equal(network.fuse(kept, ROWS), network.forward_features(image, ROWS))
    assert torch.equal(network.fuse(kept), network.forward_features(image))


def test_evaluation_is_deterministic_and_training_is_not(image):
    network = make(metadata_schema=Table(), drop_path_rate=0.3)
    assert torch.equal(network(image, ROWS), network(image, ROWS))
    network.train()
    assert not torch.equal(network(image, ROWS), network(image, ROWS))


@pytest.mark.parametrize("schema", [None, Table()], ids=["image", "image and metadata"])
def test_every_parameter_gets_a_gradient(image, schema):
    network = make(metadata_schema=schema)
    rows = None if schema is None else torch.cat([ROWS[:2], NOTHING[:1]])  # the null token too
    network(image, rows).pow(2).sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_images_of_a_batch_do_not_influence_each_other(image):
    network = make(metadata_schema=Table())
    alone = torch.cat([network(image[[i]], ROWS[[i]]) for i in range(3)])
    torch.testing.assert_close(network(image, ROWS), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (16, 24)])
def test_images_of_other_sizes_are_taken(size):
    assert make()(torch.randn(1, 3, *size)).isfinite().all()


def test_a_stem_of_several_stages_gives_the_map_that_its_strides_say():
    for strides, side in (((1, 2), 14), ((1, 2, 2), 7), ((2, 2), 7)):
        stages = len(strides)
        dims, depths = (4, 6, 8)[:stages], (1, 0, 1)[:stages]
        network = make(img_size=28, stem_dims=dims, stem_depths=depths, stem_strides=strides)
        tokens = network.image_tokens(torch.randn(2, 3, 28, 28))
        assert tokens.local.shape == tokens.global_.shape == (2, side * side, 16)


# metadata


def test_all_values_missing_is_exactly_no_metadata(image):
    network = make(metadata_schema=Table())
    assert torch.equal(network(image, NOTHING), network(image, None))


def test_metadata_change_the_output_and_where_they_stand_matters(image):
    network = make(metadata_schema=Table(3, ()))
    rows = torch.tensor([[0.5, -1.0, 2.0]]).expand(3, -1)
    outputs = [network(image, rows[:, order]) for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0])]
    outputs.append(network(image))
    for index, first in enumerate(outputs):
        for second in outputs[index + 1 :]:
            assert (first - second).abs().max() > 1e-3


def test_any_value_may_be_missing_alone(image):
    network = make(metadata_schema=Table())
    whole = network(image[:1], ROWS[:1])
    for index, missing in enumerate((NAN, NAN, 0.0, 0.0)):
        rows = ROWS[:1].clone()
        rows[0, index] = missing
        output = network(image[:1], rows)
        assert output.isfinite().all()
        assert not torch.equal(output, whole)


def test_training_drops_the_metadata_of_single_samples_and_evaluation_of_none():
    network = make(metadata_schema=Table(), modality_dropout_rate=0.5, dropout_rate=0.0)
    images, rows = torch.zeros(64, 3, 16, 16), ROWS[:1].expand(64, -1)
    network.fusion.cross_attn.dropout_rate = 0.0
    known, unknown = network(images[:1], rows[:1]), network(images[:1])
    assert torch.allclose(network(images, rows), known, atol=1e-5)
    torch.manual_seed(0)
    outputs = network.train()(images, rows)
    is_known = torch.isclose(outputs, known, atol=1e-4).all(dim=1)
    is_unknown = torch.isclose(outputs, unknown, atol=1e-4).all(dim=1)
    assert (is_known ^ is_unknown).all()
    assert 16 < is_unknown.sum() < 48


def test_the_row_that_the_transform_makes_is_the_row_that_the_network_reads(image):
    network = make(metadata_schema=lesion_schema("dermoscopy_clinic"))
    given = ({"age": 50, "site": "back"}, {"age": 50, "site": "arm"}, {})
    rows = torch.stack([LesionMetadatad()({"clinical": values})["metadata"] for values in given])
    outputs = network(image[:1].expand(3, -1, -1, -1), rows)
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    assert torch.equal(network(image[:1], rows[2:]), network(image[:1]))


def test_a_network_without_a_schema_has_no_tabular_part_and_takes_no_metadata(image):
    network = make()
    assert not [name for name in network.state_dict() if "tabular" in name or "cross_attn" in name]
    with pytest.raises(ValueError, match="metadata must be None for a network without metadata_schema"):
        network(image, ROWS)


def test_weights_of_another_schema_are_refused_and_leave_no_trace(image):
    weights = make(metadata_schema=Table()).state_dict()
    network = make(metadata_schema=Table(sha256="cd" * 32))
    for strict in (True, False):
        with pytest.raises(
            RuntimeError, match=r"metadata schema abababababab…, this network has cdcdcdcdcdcd…"
        ):
            network.load_state_dict(weights, strict=strict)
    assert network.tabular_encoder.schema_sha256[0] == 0xCD
    make(metadata_schema=Table()).load_state_dict(weights)


# switches


def test_checkpointing_keeps_less_and_changes_no_gradient(image, kept_and_gradients):
    network = make(metadata_schema=Table(), dropout_rate=0.0)
    kept_without, gradients_without = kept_and_gradients(network, image, ROWS)
    network.use_checkpoint = True
    kept_with, gradients_with = kept_and_gradients(network, image, ROWS)
    assert kept_with < 0.6 * kept_without
    for first, second in zip(gradients_without, gradients_with, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
    network.use_checkpoint = False
    assert kept_and_gradients(network, image, ROWS)[0] == kept_without


def test_bfloat16_autocast_is_close_to_float32_and_is_off_again_afterwards(image):
    network = make(metadata_schema=Table())
    exact = network(image, ROWS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(image, ROWS)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.1, atol=0.1)  # 8 bits, and several layers
    assert torch.equal(network(image, ROWS), exact)


# start


def test_linear_layers_start_small_and_mamba_keeps_its_own_start():
    torch.manual_seed(0)
    network = sizes.mambaderm_mini()
    layer = network.mamba_layers[0]
    assert layer.mlp[0].weight.std().item() == pytest.approx(0.06, rel=0.05)
    assert layer.mlp[0].bias.abs().max() == 0
    for mamba in (module for module in network.modules() if isinstance(module, Mamba)):
        steps = nn.functional.softplus(mamba.dt_proj.bias)
        assert steps.min() >= 1e-3 - 1e-6  # the published range of first time steps
        assert steps.max() <= 1e-1 + 1e-6
        assert steps.max() > 10 * steps.min()
        assert mamba.in_proj.weight.abs().max().item() == pytest.approx(
            96**-0.5, rel=0.01
        )  # torch's own start


def test_a_copy_trains_a_step_and_loads_what_it_saved(image):
    network = make().train()
    copied = copy.deepcopy(network)
    torch.optim.SGD(copied.parameters(), lr=0.1).zero_grad()
    optimizer = torch.optim.AdamW(copied.parameters(), lr=1e-2)
    copied(image).pow(2).sum().backward()
    optimizer.step()
    network.load_state_dict(copied.state_dict())
    assert torch.equal(network.eval()(image), copied.eval()(image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"num_classes": 0}, "num_classes must be 1 or more, got 0", id="classes"),
        pytest.param({"depth": 0}, "depth must be 1 or more, got 0", id="depth"),
        pytest.param(
            {"drop_path_rate": 1.0}, r"drop_path_rate must lie in \[0, 1\), got 1.0", id="drop path"
        ),
        pytest.param({"stem_strides": (1, 2)}, "must have one number a stage", id="stages"),
        pytest.param({"img_size": 18}, "positive multiple of 4, got 18", id="patches"),
        pytest.param(
            {"metadata_schema": Table(), "modality_dropout_rate": 1.0},
            r"modality_dropout_rate must lie in \[0, 1\), got 1.0",
            id="modality dropout",
        ),
    ],
)
def test_arguments_that_cannot_be_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        MambaDerm(**{**SMALL, **change})


def test_inputs_of_another_shape_are_named(image):
    network = make(metadata_schema=Table())
    with pytest.raises(ValueError, match=r"image must have shape \(B, 3, H, W\), got \(3, 1, 16, 16\)"):
        network(image[:, :1])
    with pytest.raises(ValueError, match=r"metadata must have shape \(B, 4\), got \(3, 3\)"):
        network(image, ROWS[:, :3])
    with pytest.raises(ValueError, match="metadata must have one row an image, got 2 for 3"):
        network(image, ROWS[:2])


def test_the_scan_that_is_asked_for_is_the_one_that_runs(monkeypatch):
    asked = []
    scan = mamba_block.selective_scan

    def listening(*inputs, **options):
        asked.append(options["backend"])
        return scan(*inputs, **options)

    monkeypatch.setattr(mamba_block, "selective_scan", listening)
    network = sizes.mambaderm_mini(num_classes=7, scan_backend="reference").eval()
    network(torch.zeros(1, 3, 28, 28))
    assert asked == ["reference"] * 4  # two layers, two directions


def test_checkpointing_counts_no_batch_twice(image):
    plain = sizes.mambaderm_mini(num_classes=2, dropout_rate=0.0, drop_path_rate=0.0)
    saving = copy.deepcopy(plain)
    saving.use_checkpoint = True
    images = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    for network in (plain, saving):
        network.train()(images).sum().backward()
    assert dict(saving.named_buffers())["stem.patch_norm.num_batches_tracked"] == 1
    for (name, first), second in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(first, second), name
