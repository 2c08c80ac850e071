import math

import pytest
import torch

from shared_nets.blocks.fusion_head import OrdinalLogits
from shared_nets.losses.ckd_loss import CKDLoss
from shared_nets.nets.ckd_fusion import ckd_fusion_base, ckd_fusion_small

TINY = {"img_size": 32, "embed_dim": 16, "depth": 2, "num_heads": 2}
S, T = 4, 6


def tiny(**overrides):
    torch.manual_seed(0)
    sizes = {"backbone": TINY, "num_slices": S, "clinical_dim": T, "slice_features": 12, "image_features": 5}
    return ckd_fusion_small(**{**sizes, "num_members": 3, **overrides})


def batch(size=2, slices=S):
    torch.manual_seed(1)
    return {
        "image": torch.rand(size, slices, 32, 32),
        "clinical": torch.randn(size, T),
        "slice_valid": torch.ones(size, slices, dtype=torch.bool),
        "slice_positions_mm": torch.arange(slices).float().mul(10).expand(size, -1),
        "log_creatinine_offset": torch.full((size,), 0.1),
    }


@pytest.mark.parametrize("pooling", ["mean", "attention", "concat"])
@pytest.mark.parametrize(("mode", "logits"), [("regression", 1), ("classification", 6), ("multitask", 7)])
def test_one_row_of_logits_a_person(pooling, mode, logits):
    assert tiny(pooling=pooling, mode=mode)(**batch(3)).shape == (3, logits)


def test_the_image_alone_is_enough():
    assert tiny()(torch.rand(1, S, 32, 32)).shape == (1, 1)


def test_same_input_gives_the_same_bits_in_evaluation():
    net = tiny(backbone={**TINY, "drop_path_rate": 0.5}, dropout_rate=0.5).eval()
    assert torch.equal(net(**batch()), net(**batch()))


@pytest.mark.parametrize("pooling", ["mean", "attention", "concat"])
def test_a_persons_result_does_not_depend_on_the_others(pooling):
    net, everyone = tiny(pooling=pooling).eval(), batch(3)
    alone = net(**{name: value[1:2] for name, value in everyone.items()})
    # sums in another order: float32 rounding
    torch.testing.assert_close(net(**everyone)[1:2], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "attention", "concat"])
def test_what_an_invalid_slice_shows_changes_nothing(pooling):
    net, given = tiny(pooling=pooling).eval(), batch()
    given["slice_valid"] = torch.tensor([[True, True, False, False], [True, False, True, True]])
    before = net(**given)
    given["image"] = torch.where(given["slice_valid"][..., None, None], given["image"], torch.tensor(99.0))
    given["slice_positions_mm"] = torch.where(given["slice_valid"], given["slice_positions_mm"], 1e4)
    assert torch.equal(net(**given), before)


def test_more_slices_than_usual_are_averaged():
    net, given = tiny().eval(), batch(1, slices=9)
    assert net(**given).shape == (1, 1)
    with pytest.raises(ValueError, match="image must hold 4 slices for concat pooling, got 9"):
        tiny(pooling="concat")(**given)


def test_repeated_slices_that_are_not_valid_equal_a_shorter_study():
    net, short = tiny().eval(), batch(1, slices=2)
    padded = {**batch(1), **{k: short[k] for k in ("clinical", "log_creatinine_offset")}}
    padded["image"] = torch.cat([short["image"], short["image"]], dim=1)
    padded["slice_valid"] = torch.tensor([[True, True, False, False]])
    torch.testing.assert_close(net(**padded), net(**short), atol=1e-6, rtol=1e-5)


def test_a_person_without_a_valid_slice_is_the_learned_nothing():
    net, given = tiny().eval(), batch()
    given["slice_valid"][0] = False
    features = net.encode_image(given["image"], given["slice_valid"], given["slice_positions_mm"])
    assert torch.equal(features[0], net.null_image)
    assert not torch.equal(features[1], net.null_image)


def test_a_trunk_without_weight_does_not_run():
    net = tiny().eval()
    net.feature_weights[: net.trunk_features] = 0.0
    before = net(**batch())
    for parameter in net.backbone.parameters():
        parameter.data.fill_(float("nan"))
    assert torch.equal(net(**batch()), before)


def test_positions_are_counted_from_the_middle_of_the_slices():
    net, given = tiny().eval(), batch()
    shifted = {**given, "slice_positions_mm": given["slice_positions_mm"] + 500.0}
    torch.testing.assert_close(net(**shifted), net(**given), atol=1e-5, rtol=1e-5)
    stretched = {**given, "slice_positions_mm": given["slice_positions_mm"] * 3.0}
    assert not torch.allclose(net(**stretched), net(**given), atol=1e-5)


def test_the_offset_is_added_to_log_creatinine_only():
    net, given = tiny(mode="multitask").eval(), batch()
    with_offset, without = net(**given), net(**{**given, "log_creatinine_offset": None})
    torch.testing.assert_close(with_offset[:, 0] - without[:, 0], given["log_creatinine_offset"])
    assert torch.equal(with_offset[:, 1:], without[:, 1:])


def test_slices_go_through_the_trunk_in_chunks_without_a_change():
    whole, chunked = tiny().eval(), tiny(slice_chunk=3).eval()
    torch.testing.assert_close(chunked(**batch()), whole(**batch()), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "attention", "concat"])
@pytest.mark.parametrize("training", ["frozen", "lora", "full"])
def test_everything_that_trains_gets_a_gradient(pooling, training):
    net = tiny(pooling=pooling, backbone_training=training, mode="multitask", dropout_rate=0.0)
    for name, parameter in net.named_parameters():  # zero starts hide what lies before them
        if "lora_B" in name or name.startswith("head.linear"):
            torch.nn.init.normal_(parameter, std=0.1)
    everyone, nobody = batch(), batch()
    nobody["slice_valid"] = torch.zeros_like(nobody["slice_valid"])
    (net(**everyone).square().sum() + net(**{**nobody, "clinical": None}).square().sum()).backward()
    trains = {name: p for name, p in net.named_parameters() if p.requires_grad and "mask_token" not in name}
    without = [n for n, p in trains.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    in_trunk = [name for name in trains if name.startswith("backbone.")]
    assert bool(in_trunk) == (training != "frozen")
    assert all("lora_" in name for name in in_trunk) or training == "full"


def test_a_frozen_trunk_stays_in_evaluation_while_the_rest_trains():
    net = tiny(backbone={**TINY, "drop_path_rate": 0.9}).train()
    assert not any(module.training for module in net.backbone.modules())
    assert net.head.training
    images = batch()["image"]
    assert torch.equal(net.encode_slices(images), net.encode_slices(images))
    assert not net.encode_slices(images).requires_grad


def test_a_frozen_image_branch_keeps_its_weights():
    net = tiny(image_branch_is_frozen=True).train()
    trained = {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {"null_image", "clinical_adapter", "null_clinical", "head"}
    assert not net.image_adapter.training


def test_a_fresh_adapter_does_not_change_the_trunk():
    plain, adapted = tiny().eval(), tiny(backbone_training="lora").eval()
    adapted.load_state_dict(plain.state_dict(), strict=False)  # the wrapped layers have other names
    trunk = {
        k.replace("backbone.", ""): v for k, v in plain.state_dict().items() if k.startswith("backbone.")
    }
    renamed = {}
    for name in adapted.backbone.state_dict():
        renamed[name] = trunk.get(name.replace(".base_layer", ""), adapted.backbone.state_dict()[name])
    adapted.backbone.load_state_dict(renamed)
    images = batch()["image"]
    torch.testing.assert_close(adapted.encode_slices(images), plain.encode_slices(images))


def test_a_creatinine_of_eight_can_be_learned():
    net = tiny(backbone_training="full", dropout_rate=0.0)
    target = torch.tensor([[math.log(8.0), 0.0, 5.0], [math.log(0.8), 0.0, 0.0]])
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(150):
        loss = CKDLoss()(net(**batch()), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    creatinine = net.eval()(**batch()).exp().flatten().tolist()
    assert creatinine == pytest.approx([8.0, 0.8], rel=0.05)


def test_ordinal_logits_are_log_probabilities_of_ordered_stages():
    layer = OrdinalLogits(num_stages=6)
    logits = layer(torch.tensor([[-30.0], [0.3], [30.0]]))
    probabilities = logits.exp()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))
    assert probabilities.argmax(dim=1)[[0, 2]].tolist() == [0, 5]
    thresholds = torch.tensor([-1.0, 0.0, 1.0, 2.0, 3.0])
    worse = torch.sigmoid(0.3 - thresholds)
    expected = torch.cat([1 - worse[:1], worse[:-1] - worse[1:], worse[-1:]])
    torch.testing.assert_close(probabilities[1], expected)


def test_the_interval_comes_from_the_stored_residuals():
    net = tiny().eval()
    net.set_residual_quantiles(torch.linspace(-0.5, 0.5, 101))
    interval = net.predict_interval(torch.zeros(2, 1), level=0.8)
    torch.testing.assert_close(interval.log_low, torch.full((2,), -0.4))
    torch.testing.assert_close(interval.log_high, torch.full((2,), 0.4))
    with pytest.raises(ValueError, match="quantiles must be 101 ascending numbers"):
        net.set_residual_quantiles(torch.linspace(0.5, -0.5, 101))


def test_weights_load_as_a_bare_state_dict(tmp_path):
    net = tiny()
    torch.save(net.state_dict(), tmp_path / "model.pt")
    again = tiny()
    again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(again.eval()(**batch()), net.eval()(**batch()))


def test_published_size_has_the_published_trunk():
    net = ckd_fusion_base()
    assert sum(p.numel() for p in net.backbone.parameters()) == 85_771_776
    assert net.slice_projection.weight.shape == (192, 768)
    assert net.image_adapter[0].in_features == 32 * 192
    assert not any(p.requires_grad for p in net.backbone.parameters())


def test_embedded_size_fits_into_eight_megabytes():
    net = ckd_fusion_small()
    assert 4 * sum(value.numel() for value in net.state_dict().values()) < 8e6


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param({"pooling": "max"}, "pooling must be one of", id="pooling"),
        pytest.param({"mode": "both"}, "mode must be one of", id="mode"),
        pytest.param({"backbone_training": "half"}, "backbone_training must be one of", id="training"),
        pytest.param({"channel_mean": [0.5, 0.5]}, "must hold 1 numbers", id="channels"),
    ],
)
def test_wrong_settings_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        tiny(**overrides)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"image must have shape \(B, S, H, W\)"):
        tiny()(torch.rand(2, 32, 32))
    with pytest.raises(ValueError, match=r"clinical must have shape \(2, 6\), got \(2, 5\)"):
        tiny()(**{**batch(), "clinical": torch.zeros(2, 5)})
    with pytest.raises(ValueError, match=r"slice_valid must have shape \(2, 4\)"):
        tiny()(**{**batch(), "slice_valid": torch.ones(2, 3)})
