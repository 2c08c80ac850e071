"""The scan in four directions against an image read by hand, and against its own symmetry."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from shared_nets.blocks.cross_scan import SS2D, cross_merge, cross_scan
from shared_nets.blocks.mamba import parameter_groups
from shared_nets.blocks.selective_scan import selective_scan, set_scan_backend


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def block(**options) -> SS2D:
    torch.manual_seed(0)
    return SS2D(d_model=16, d_state=3, **options)


def test_image_of_two_by_three_is_read_in_the_four_orders():
    x = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])[None, :, :, None]  # (B, H, W, D)
    orders = cross_scan(x)[0, :, :, 0].T.tolist()  # (4, L)
    assert orders == [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]]


def test_merged_directions_bring_every_place_back_four_times():
    x = image(2, 3, 5, 4)
    torch.testing.assert_close(cross_merge(cross_scan(x), 3, 5), 4 * x)


def test_merge_is_the_transpose_of_the_scan():
    x, y = image(2, 3, 5, 4), image(2, 15, 4, 4, seed=1)
    torch.testing.assert_close((cross_scan(x) * y).sum(), (x * cross_merge(y, 3, 5)).sum())


@pytest.mark.parametrize("is_gated", [False, True])
def test_block_equals_four_scans_one_after_the_other(is_gated):
    net = block(is_gated=is_gated).double()
    x = image(2, 3, 4, 16).double()
    parts = F.linear(x, net.in_proj.weight).chunk(2 if is_gated else 1, dim=-1)
    u = F.silu(net.conv2d(parts[0].permute(0, 3, 1, 2)))  # (B, D, H, W)
    total = torch.zeros_like(u)
    for k in range(4):
        places = [(i, j) for i in range(3) for j in range(4)] if k % 2 == 0 else []
        places = places or [(i, j) for j in range(4) for i in range(3)]
        places = places[::-1] if k >= 2 else places
        tokens = torch.stack([u[:, :, i, j] for i, j in places], dim=2)  # (B, D, L)
        projected = torch.einsum("cd,bdl->bcl", net.x_proj_weight[k], tokens)
        low, B, C = projected.split([net.dt_rank, 3, 3], dim=1)
        channels = slice(k * 32, (k + 1) * 32)
        y = selective_scan(
            tokens,
            torch.einsum("dr,brl->bdl", net.dt_projs_weight[k], low),
            -torch.exp(net.A_logs[channels]),
            B,
            C,
            net.Ds[channels],
            delta_bias=net.dt_projs_bias[k],
            delta_softplus=True,
            backend="reference",
        )
        for t, (i, j) in enumerate(places):
            total[:, :, i, j] += y[:, :, t]
    expected = F.layer_norm(total.permute(0, 2, 3, 1), (32,), net.out_norm.weight, net.out_norm.bias)
    if is_gated:
        expected = expected * F.silu(parts[1])
    torch.testing.assert_close(net(x), F.linear(expected, net.out_proj.weight))


def test_transposed_image_gives_the_transposed_result_when_rows_and_columns_swap_parameters():
    net, swapped = block(), block()
    state = net.state_dict()
    order = [1, 0, 3, 2]
    for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias"):
        state[name] = state[name][order]
    for name in ("A_logs", "Ds"):
        state[name] = state[name].unflatten(0, (4, 32))[order].flatten(0, 1)
    state["conv2d.weight"] = state["conv2d.weight"].transpose(2, 3)
    swapped.load_state_dict(state)
    x = image(1, 5, 7, 16)
    torch.testing.assert_close(swapped(x.transpose(1, 2)), net(x).transpose(1, 2), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net(x.transpose(1, 2)), net(x).transpose(1, 2), atol=1e-3)


def test_every_place_sees_every_other():
    net = block().eval()
    x = image(1, 4, 4, 16).requires_grad_()
    for i, j in ((0, 0), (3, 1)):
        (grad,) = torch.autograd.grad(net(x)[0, i, j].sum(), x)
        assert (grad[0].abs().sum(dim=-1) > 0).all()


def test_gradients_reach_all_parameters_and_are_those_of_the_recurrence():
    net = block(is_gated=True)
    x, weight = image(2, 6, 5, 16), image(2, 6, 5, 16, seed=1)
    parameters = list(net.parameters())

    def gradients(backend):
        set_scan_backend(backend)
        try:
            return torch.autograd.grad((net(x) * weight).sum(), parameters)
        finally:
            set_scan_backend("auto")

    for actual, expected in zip(gradients("auto"), gradients("reference"), strict=True):
        assert expected.abs().max() > 0
        assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_samples_of_a_batch_do_not_see_each_other():
    net = block()
    x = image(3, 4, 6, 16)
    apart = torch.cat([net(sample[None]) for sample in x])
    torch.testing.assert_close(net(x), apart, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("ssm_ratio", "is_gated"), [(1.0, False), (2.0, False), (2.0, True)])
def test_parameters_are_named_and_shaped_as_in_vmamba(ssm_ratio, is_gated):
    net = SS2D(d_model=96, d_state=1, ssm_ratio=ssm_ratio, is_gated=is_gated)
    d = int(96 * ssm_ratio)
    assert {name: tuple(x.shape) for name, x in net.state_dict().items()} == {
        "x_proj_weight": (4, 6 + 2, d),
        "dt_projs_weight": (4, d, 6),
        "dt_projs_bias": (4, d),
        "A_logs": (4 * d, 1),
        "Ds": (4 * d,),
        "in_proj.weight": ((2 if is_gated else 1) * d, 96),
        "conv2d.weight": (d, 1, 3, 3),
        "out_norm.weight": (d,),
        "out_norm.bias": (d,),
        "out_proj.weight": (96, d),
    }


def test_step_sizes_start_between_their_limits_and_do_not_decay():
    net = SS2D(d_model=96)
    steps = F.softplus(net.dt_projs_bias)
    assert steps.min() >= 0.001 * 0.999
    assert steps.max() <= 0.1 * 1.001
    _, kept = parameter_groups(net, 0.05)
    kept_ids = {id(parameter) for parameter in kept["params"]}
    names = {name for name, parameter in net.named_parameters() if id(parameter) in kept_ids}
    assert names == {"dt_projs_bias", "A_logs", "Ds", "out_norm.weight", "out_norm.bias"}


def test_even_convolution_is_refused():
    with pytest.raises(ValueError, match="d_conv must be odd, got 4"):
        block(d_conv=4)
