"""The ViT trunk: what its sizes hold, and that nothing about it is random, mixed up or stale."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch.nn import functional as F

from shared_nets.nets import vision_transformer as sizes
from shared_nets.nets.vision_transformer import VisionTransformer

SMALL = {
    "img_size": 32,
    "patch_size": 8,
    "in_channels": 2,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 3,
    "layer_scale_init": 0.5,
    "num_register_tokens": 2,
}


def make_vit(**overrides) -> VisionTransformer:
    """Make a small network in evaluation whose every weight matters."""
    torch.manual_seed(0)
    vit = VisionTransformer(**{**SMALL, **overrides}).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return vit


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(3, 2, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("make", "total", "blocks", "patch", "positions"),
    [
        pytest.param(sizes.vit_base_patch16_amos, 85_771_776, 85_026_816, 590_592, 151_296, id="amos"),
        pytest.param(sizes.vit_base_patch16_dino, 85_798_656, 12 * 7_087_872, 590_592, 151_296, id="dino"),
        pytest.param(sizes.vit_base_patch14, 86_580_480, 12 * 7_089_408, 452_352, 1_052_160, id="base"),
        pytest.param(
            sizes.vit_base_patch14_reg4, 86_583_552, 12 * 7_089_408, 452_352, 1_052_160, id="base-reg4"
        ),
        pytest.param(
            sizes.vit_small_patch14_reg4, 22_058_112, 12 * 1_775_232, 226_176, 526_080, id="small-reg4"
        ),
        pytest.param(sizes.vit_tiny_patch16, 851_712, 4 * 198_272, 32_896, 197 * 128, id="tiny"),
    ],
)
def test_each_size_has_exactly_the_published_number_of_parameters(make, total, blocks, patch, positions):
    with torch.device("meta"):
        vit = make()
    assert sum(p.numel() for p in vit.parameters()) == total
    assert sum(p.numel() for p in vit.blocks.parameters()) == blocks
    assert sum(p.numel() for p in vit.patch_embed.parameters()) == patch
    assert vit.pos_embed.numel() == positions


def test_state_dict_names_are_those_of_public_dinov2_checkpoints():
    block = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    expected = {"cls_token", "pos_embed", "register_tokens", "mask_token", "norm.weight", "norm.bias"}
    expected |= {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    for index in range(3):
        expected |= {f"blocks.{index}.{part}.{leaf}" for part in block for leaf in ("weight", "bias")}
        expected |= {f"blocks.{index}.ls{number}.gamma" for number in (1, 2)}
    assert set(make_vit().state_dict()) == expected


def test_switches_remove_their_weights_and_nothing_else():
    vit = make_vit(
        qkv_bias=False, proj_bias=False, ffn_bias=False, layer_scale_init=None, num_register_tokens=0,
        use_mask_token=False,
    )  # fmt: skip
    left_out = set(make_vit().state_dict()) - set(vit.state_dict())
    left_out = {name for name in left_out if not name.startswith(("blocks.0.", "blocks.2."))}
    assert {name.removeprefix("blocks.1.") for name in left_out} == {
        "attn.qkv.bias", "attn.proj.bias", "mlp.fc1.bias", "mlp.fc2.bias", "ls1.gamma", "ls2.gamma",
        "register_tokens", "mask_token",
    }  # fmt: skip


def test_forward_gives_the_class_token_of_the_features(image):
    vit = make_vit()
    features = vit.forward_features(image)
    assert [tuple(part.shape) for part in features] == [(3, 24), (3, 2, 24), (3, 16, 24)]
    assert torch.equal(vit(image), features.cls_token)


def plain_forward(vit: VisionTransformer, image: torch.Tensor) -> torch.Tensor:
    """Spell the network out: attention as softmax over written-out products. Gives all normalised tokens."""
    x = F.unfold(image, vit.patch_embed.patch_size, stride=vit.patch_embed.patch_size).mT
    x = x @ vit.patch_embed.proj.weight.flatten(1).mT + vit.patch_embed.proj.bias
    cls = vit.cls_token + vit.pos_embed[:, :1]
    prefix = torch.cat([cls, vit.register_tokens], dim=1).expand(len(x), -1, -1)
    x = torch.cat([prefix, x + vit.pos_embed[:, 1:]], dim=1)
    for block in vit.blocks:
        qkv = F.layer_norm(x, (24,), block.norm1.weight, block.norm1.bias, 1e-6) @ block.attn.qkv.weight.mT
        heads = []
        for head in range(3):
            q, k, v = (
                (qkv + block.attn.qkv.bias)[..., 24 * part + 8 * head : 24 * part + 8 * (head + 1)]
                for part in range(3)
            )
            heads.append((q @ k.mT / 8**0.5).softmax(-1) @ v)
        x = x + block.ls1.gamma * block.attn.proj(torch.cat(heads, dim=-1))
        hidden = block.mlp.fc1(F.layer_norm(x, (24,), block.norm2.weight, block.norm2.bias, 1e-6))
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + block.ls2.gamma * block.mlp.fc2(hidden)
    return F.layer_norm(x, (24,), vit.norm.weight, vit.norm.bias, 1e-6)


def test_network_agrees_with_its_plain_twin_in_values_and_gradients(image):
    vit = make_vit(use_mask_token=False).double()
    image = image.double()
    probe = torch.randn(3, 19, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    fast = torch.cat([part.view(3, -1, 24) for part in vit.forward_features(image)], dim=1)
    plain = plain_forward(vit, image)
    torch.testing.assert_close(
        fast, plain, rtol=0, atol=1e-12
    )  # double precision: only the order of sums differs
    fast_gradients = torch.autograd.grad((fast * probe).sum(), list(vit.parameters()))
    plain_gradients = torch.autograd.grad((plain * probe).sum(), list(vit.parameters()))
    for one, other in zip(fast_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_every_parameter_receives_a_gradient_when_patches_are_masked(image):
    vit = make_vit().train()
    masks = torch.zeros(3, 16, dtype=torch.bool)
    masks[:, ::3] = True
    features = vit.forward_features(image, masks)
    sum((part**2 * torch.rand_like(part)).sum() for part in features).backward()
    dead = [name for name, p in vit.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_masked_patches_do_not_reach_the_output(image):
    vit = make_vit()
    masks = torch.zeros(3, 16, dtype=torch.bool)
    masks[:, 0] = True  # the top left patch
    changed = image.clone()
    changed[:, :, :8, :8] += 5.0
    assert torch.equal(vit.forward_features(image, masks)[2], vit.forward_features(changed, masks)[2])
    assert not torch.allclose(vit(image), vit(changed))


def test_evaluation_repeats_to_the_bit_though_drop_path_is_set(image):
    vit = make_vit(drop_path_rate=0.5)
    assert torch.equal(vit(image), vit(image))
    assert torch.equal(vit(image), make_vit(drop_path_rate=0.0)(image))


def test_drop_path_rises_over_depth_and_works_in_training(image):
    vit = make_vit(drop_path_rate=0.4).train()
    assert [block.drop_path1.drop_prob for block in vit.blocks] == [0.0, 0.2, 0.4]
    assert [block.drop_path2.drop_prob for block in vit.blocks] == [0.0, 0.2, 0.4]
    torch.manual_seed(3)
    assert not torch.equal(vit(image), vit(image))


def test_an_image_is_not_influenced_by_the_others_in_its_batch(image):
    vit = make_vit()
    # float32 kernels may sum in another order at another batch size
    torch.testing.assert_close(vit(image)[1], vit(image[1:2])[0], rtol=0, atol=2e-6)


def test_gradient_checkpointing_changes_no_gradient(image):
    vit = make_vit(drop_path_rate=0.3).train()
    gradients = []
    for enabled in (False, True):
        vit.set_gradient_checkpointing(enabled)
        vit.zero_grad()
        torch.manual_seed(4)  # the same paths are dropped
        vit(image).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in vit.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_bfloat16_runs_under_autocast_and_as_a_whole(image):
    vit = make_vit()
    reference = vit(image)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = vit(image)
    whole = copy.deepcopy(vit).bfloat16()(image.bfloat16()).float()
    for other in (autocast, whole):  # bfloat16 keeps 8 bits, about 3 digits
        assert (1 - F.cosine_similarity(reference, other.float())).max() < 1e-3


def cubic_kernel(distance: float, a: float = -0.75) -> float:
    """Weigh a neighbour as R. Keys' cubic convolution does (1981); torch's ``a`` is -0.75."""
    t = abs(distance)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


@pytest.mark.parametrize(
    ("interpolate_offset", "scale"), [pytest.param(0.0, 12, id="size"), pytest.param(0.1, 12.1, id="offset")]
)
def test_position_embedding_is_sampled_where_the_interpolation_rule_says(interpolate_offset, scale):
    vit = make_vit(img_size=64, interpolate_offset=interpolate_offset)  # 8 × 8 patches
    rows = torch.arange(8.0).repeat_interleave(8)
    with torch.no_grad():
        vit.pos_embed[0, 1:] = rows[:, None]  # each position holds its row
    resized = vit._positions((12, 10))[0, 1:].view(12, 10, 24)
    # Away from the edges; pixel centres lie at halves.
    positions = [(row + 0.5) * 8 / scale - 0.5 for row in range(3, 9)]
    expected = [sum(row * cubic_kernel(position - row) for row in range(8)) for position in positions]
    for column in (0, 9):
        torch.testing.assert_close(resized[3:9, column, 5], torch.tensor(expected), rtol=0, atol=1e-5)


def test_native_size_uses_the_position_embedding_as_it_is():
    vit = make_vit(interpolate_offset=0.1)
    assert vit._positions((4, 4)) is vit.pos_embed
    assert vit._positions((2, 8)).shape == vit.pos_embed.shape  # as many patches, but another grid
    assert not torch.equal(vit._positions((2, 8)), vit.pos_embed)


def test_resized_positions_are_made_once_in_evaluation_and_are_not_saved():
    vit = make_vit()
    names = list(vit.state_dict())
    with torch.inference_mode():
        first = vit._positions((3, 5))
        assert vit._positions((3, 5)) is first
        assert vit._positions((5, 3)) is not first
    assert list(vit.state_dict()) == names
    assert not first.is_inference()  # it may be used in training later


@pytest.mark.parametrize("how", ["in place", "through data", "load_state_dict", "replaced"])
def test_resized_positions_follow_the_weights(how):
    vit = make_vit()
    image = torch.ones(1, 2, 40, 24)
    with torch.no_grad():
        vit(image)
        changed = vit.pos_embed * 2
        if how == "in place":
            vit.pos_embed.copy_(changed)
        elif how == "through data":  # does not count as a change for torch's version counter
            vit.pos_embed.data.copy_(changed)
        elif how == "load_state_dict":
            vit.load_state_dict({**vit.state_dict(), "pos_embed": changed})
        else:
            vit.pos_embed = torch.nn.Parameter(changed)
        fresh = make_vit()
        fresh.load_state_dict(vit.state_dict())
        assert torch.equal(vit(image), fresh(image))


def test_resized_positions_are_made_anew_in_training_so_that_they_learn():
    vit = make_vit()
    with torch.no_grad():
        vit(torch.ones(1, 2, 40, 24))
    vit.train()
    for _ in range(2):
        vit.zero_grad()
        vit(torch.ones(1, 2, 40, 24)).square().sum().backward()
        assert vit.pos_embed.grad.any()


def test_intermediate_layers_are_those_of_the_blocks_asked_for(image):
    vit = make_vit()
    last_two = vit.get_intermediate_layers(image, 2)
    by_index = vit.get_intermediate_layers(image, [1, 2])
    final = vit.forward_features(image)
    for one, other in zip(last_two, by_index, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(last_two[-1], final, strict=True))
    raw = vit.get_intermediate_layers(image, norm=False)[0]
    assert torch.equal(vit.norm(raw.patch_tokens), final.patch_tokens)
    assert not torch.equal(
        final.cls_token, final.patch_tokens[:, 0]
    )  # the class token is not the first patch


def test_lora_reaches_attention_but_not_the_patch_embedding():
    """A list of names matches by suffix, and ``proj`` is the patch embedding's name too: give a pattern."""
    pattern = LoraConfig(r=2, target_modules=r"blocks\.\d+\.attn\.(qkv|proj)")
    vit = inject_adapter_in_model(pattern, make_vit())
    adapted = {name.split(".lora_")[0] for name, _ in vit.named_parameters() if ".lora_" in name}
    assert adapted == {f"blocks.{index}.attn.{part}" for index in range(3) for part in ("qkv", "proj")}
    by_suffix = inject_adapter_in_model(LoraConfig(r=2, target_modules=["qkv", "proj"]), make_vit())
    assert any(name.startswith("patch_embed.proj.lora_") for name, _ in by_suffix.named_parameters())


def test_lora_trains_through_the_frozen_trunk_with_gradient_checkpointing(image):
    vit = inject_adapter_in_model(
        LoraConfig(r=2, target_modules=r"blocks\.\d+\.attn\.(qkv|proj)"), make_vit()
    )
    vit.set_gradient_checkpointing(True)
    vit(image).square().sum().backward()
    with_gradient = {name for name, p in vit.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in vit.named_parameters() if ".lora_" in name}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        pytest.param((1, 2, 30, 32), "multiple of patch_size 8, got 30 × 32", id="height"),
        pytest.param((1, 2, 32, 4), "multiple of patch_size 8, got 32 × 4", id="too small"),
        pytest.param((1, 3, 32, 32), r"x must have shape \(B, 2, H, W\)", id="channels"),
        pytest.param((2, 32, 32), r"x must have shape \(B, 2, H, W\)", id="no batch"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        make_vit()(torch.zeros(shape))


def test_masks_that_do_not_fit_are_refused(image):
    with pytest.raises(
        ValueError, match=r"masks must be bool of shape \(3, 16\), got torch.bool of shape \(3, 15\)"
    ):
        make_vit().forward_features(image, torch.zeros(3, 15, dtype=torch.bool))
    with pytest.raises(ValueError, match="masks must be bool"):
        make_vit().forward_features(image, torch.zeros(3, 16))
    with pytest.raises(ValueError, match="masks must be None"):
        make_vit(use_mask_token=False).forward_features(image, torch.zeros(3, 16, dtype=torch.bool))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param({"num_heads": 5}, "num_heads must divide embed_dim 24, got 5", id="heads"),
        pytest.param({"depth": 0}, "depth must be 1 or more, got 0", id="depth"),
        pytest.param({"img_size": (32, 33)}, "multiple of patch_size 8, got 32 × 33", id="size"),
        pytest.param(
            {"drop_path_rate": 1.0}, r"drop_path_rate must lie in \[0, 1\), got 1.0", id="drop path"
        ),
        pytest.param({"num_register_tokens": -1}, "num_register_tokens must be 0 or more", id="registers"),
    ],
)
def test_impossible_sizes_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        VisionTransformer(**{**SMALL, **overrides})


@pytest.mark.parametrize("n", [0, 4, [3], [-1], []])
def test_blocks_that_do_not_exist_are_refused(n, image):
    with pytest.raises(ValueError, match="n must name 1 to 3 blocks"):
        make_vit().get_intermediate_layers(image, n)
