"""Every backend of the selective scan against a recurrence in numpy, in values and in gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import Tensor

from shared_nets.blocks import selective_scan as dispatcher
from shared_nets.blocks import selective_scan_torch
from shared_nets.blocks.selective_scan import scan_backend_in_use, selective_scan, set_scan_backend
from shared_nets.blocks.selective_scan_cuda import has_cuda_kernel
from shared_nets.blocks.selective_scan_extension import extension_problem

needs_extension = pytest.mark.skipif(
    extension_problem() is not None, reason=f"the C++ extension cannot be used: {extension_problem()}"
)
needs_cuda = pytest.mark.skipif(
    not (torch.cuda.is_available() and has_cuda_kernel()), reason="needs an NVIDIA card and mamba-ssm"
)
BACKENDS = [
    "reference",
    "torch",
    pytest.param("extension", marks=needs_extension),
    pytest.param("cuda", marks=needs_cuda),
]
FAST = ["torch", pytest.param("extension", marks=needs_extension)]
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def naive(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """The definition in numpy and float64, one channel at a time: output and last state."""
    batch, channels, length = u.shape
    if delta_bias is not None:
        delta = delta + delta_bias[None, :, None]
    if delta_softplus:
        delta = np.logaddexp(0, delta)
    y, last = np.zeros_like(u), np.zeros((batch, channels, A.shape[1]))
    for b in range(batch):
        for d in range(channels):
            h = np.zeros(A.shape[1])
            for t in range(length):
                h = np.exp(delta[b, d, t] * A[d]) * h + delta[b, d, t] * at(B, b, d, t, channels) * u[b, d, t]
                y[b, d, t] = at(C, b, d, t, channels) @ h
            last[b, d] = h
    if D is not None:
        y = y + D[None, :, None] * u
    if z is not None:
        y = y * z / (1 + np.exp(-z))
    return y, last


def at(projection, b, d, t, channels):
    if projection.ndim == 2:
        return projection[d]
    if projection.ndim == 3:
        return projection[b, :, t]
    return projection[b, d * projection.shape[1] // channels, :, t]


def make_inputs(batch=2, channels=6, states=4, length=19, groups=None, seed=0, extras=True):
    """Random inputs in float64; ``groups`` None makes ``(B, N, L)``, 0 constant projections."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def projection():
        if groups == 0:
            return normal(channels, states)
        return normal(batch, states, length) if groups is None else normal(batch, groups, states, length)

    inputs = {
        "u": normal(batch, channels, length),
        "delta": normal(batch, channels, length) - 1,
        "A": -4 * torch.rand(channels, states, generator=g, dtype=torch.float64),
        "B": projection(),
        "C": projection(),
    }
    if extras:
        inputs |= {
            "D": normal(channels),
            "z": normal(batch, channels, length),
            "delta_bias": normal(channels),
        }
    return inputs


def run(inputs, **options):
    return selective_scan(**inputs, delta_softplus=True, return_last_state=True, **options)


def gradients(inputs, backend, dtype=torch.float32):
    """Gradients of a fixed weighting of output and last state."""
    leaves = {name: x.to(dtype).requires_grad_() for name, x in inputs.items()}
    y, last = run(leaves, backend=backend)
    g = torch.Generator().manual_seed(9)
    loss = (y * torch.randn(y.shape, generator=g)).sum() + (last * torch.randn(last.shape, generator=g)).sum()
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def assert_close(actual: Tensor, expected, relative=1e-5, what=""):
    """Compare by the largest difference over the largest value."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(
        actual.double(), expected, rtol=0, atol=relative * scale + 1e-12, msg=what or None
    )


SHAPES = [
    pytest.param({}, id="usual"),
    pytest.param({"length": 1}, id="one token"),
    pytest.param({"length": 200, "channels": 33, "states": 16}, id="several blocks, channels left over"),
    pytest.param({"batch": 1, "channels": 32, "states": 21, "length": 65}, id="states left over"),
    pytest.param({"states": 1, "channels": 16, "length": 40}, id="one state"),
    pytest.param({"groups": 1}, id="one group"),
    pytest.param({"groups": 3}, id="three groups"),
    pytest.param({"groups": 6}, id="a group a channel"),
    pytest.param({"extras": False}, id="neither skip nor gate nor bias"),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_output_and_state_are_those_of_the_recurrence(shape, backend):
    inputs = make_inputs(**shape)
    expected = naive(**{name: x.numpy() for name, x in inputs.items()}, delta_softplus=True)
    device = "cuda" if backend == "cuda" else "cpu"
    y, last = run({name: x.to(device, torch.float32) for name, x in inputs.items()}, backend=backend)
    assert_close(y.cpu(), expected[0])
    assert_close(last.cpu(), expected[1])


@pytest.mark.parametrize("backend", ["auto", "reference", "torch"])
def test_projections_that_do_not_vary_over_tokens_are_scanned(backend):
    inputs = make_inputs(groups=0)
    expected = naive(**{name: x.numpy() for name, x in inputs.items()}, delta_softplus=True)
    y, last = run({name: x.float() for name, x in inputs.items()}, backend=backend)
    assert_close(y, expected[0])
    assert_close(last, expected[1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", FAST)
def test_gradients_are_those_of_autograd_through_the_recurrence_in_float64(shape, backend):
    inputs = make_inputs(**shape)
    expected = gradients(inputs, "reference", torch.float64)
    for name, grad in gradients(inputs, backend).items():
        assert_close(grad, expected[name], what=name)


@pytest.mark.parametrize("groups", [None, 0, 2])
def test_gradient_of_the_torch_form_is_its_numerical_derivative(groups, monkeypatch):
    monkeypatch.setattr(selective_scan_torch, "BUFFER_BYTES", 2 * 4 * 3 * 2 * 8)  # blocks of two tokens
    inputs = make_inputs(batch=2, channels=4, states=3, length=5, groups=groups)
    leaves = [x.requires_grad_() for x in inputs.values()]

    def function(*values):
        return run(dict(zip(NAMES, values, strict=True)), backend="torch")

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("groups", [None, 0, 2, 3])
@pytest.mark.parametrize("tokens", [1, 4, 7])
def test_blocks_of_any_size_give_the_same_gradients(groups, tokens, monkeypatch):
    inputs = make_inputs(groups=groups, length=13)
    monkeypatch.setattr(selective_scan_torch, "BUFFER_BYTES", tokens * 2 * 6 * 4 * 8)
    expected = gradients(inputs, "reference", torch.float64)
    for name, grad in gradients(inputs, "torch", torch.float64).items():
        assert_close(grad, expected[name], relative=1e-12, what=name)


@pytest.mark.parametrize("backend", FAST)
def test_projections_grouped_differently_and_one_constant_are_scanned_too(backend):
    inputs = make_inputs(groups=2)
    inputs["C"] = make_inputs(groups=3, seed=1)["C"]
    if backend == "torch":
        inputs["B"] = make_inputs(groups=0)["B"]
    else:
        inputs["C"] = make_inputs(groups=6, seed=1)["C"]
    expected = gradients(inputs, "reference", torch.float64)
    for name, grad in gradients(inputs, backend).items():
        assert_close(grad, expected[name], what=name)


@needs_extension
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 40),
    states=st.integers(1, 20),
    length=st.integers(0, 70),
    groups=st.integers(0, 4),
    channels_are_neighbours=st.booleans(),
    extras=st.booleans(),
)
def test_fast_forms_agree_over_many_shapes(
    batch, channels, states, length, groups, channels_are_neighbours, extras
):
    channels *= max(1, groups)
    inputs = make_inputs(batch, channels, states, length, groups or None, extras=extras)
    for name in ("u", "delta", "z") if channels_are_neighbours else ():
        if name in inputs:
            inputs[name] = inputs[name].transpose(1, 2).contiguous().transpose(1, 2)
    y, last = run(inputs, backend="torch")
    single = {name: x.float() for name, x in inputs.items()}
    fast_y, fast_last = run(single, backend="extension")
    assert_close(fast_y, y)
    assert_close(fast_last, last)
    if length:
        expected = gradients(inputs, "torch", torch.float64)
        for name, grad in gradients(inputs, "extension").items():
            assert_close(grad, expected[name], what=name)


@pytest.mark.parametrize("backend", BACKENDS[:3])
def test_no_sample_gives_an_output_without_samples(backend):
    y, last = run({name: x.float() for name, x in make_inputs(batch=0).items()}, backend=backend)
    assert y.shape == (0, 6, 19)
    assert last.shape == (0, 6, 4)


@pytest.mark.parametrize("backend", BACKENDS[:3])
def test_no_token_gives_no_output_and_a_state_of_zeros(backend):
    y, last = run({name: x.float() for name, x in make_inputs(length=0).items()}, backend=backend)
    assert y.shape == (2, 6, 0)
    assert torch.equal(last, torch.zeros(2, 6, 4))


@pytest.mark.parametrize("backend", BACKENDS[:3])
@pytest.mark.parametrize("step", [1e-6, 1.0, 1e4, 1e30])
def test_steps_of_any_size_stay_exact(backend, step):
    inputs = make_inputs(length=60, extras=False)
    inputs["delta"] = step * (0.5 + torch.rand(2, 6, 60, dtype=torch.float64))
    if step > 1e4:
        inputs["u"] /= step  # the output itself must fit float32
    leaves = {name: x.float().requires_grad_() for name, x in inputs.items()}
    y = selective_scan(**leaves, backend=backend)
    expected, _ = naive(**{name: x.detach().double().numpy() for name, x in leaves.items()})
    assert_close(y, expected)
    if step <= 1e4:
        grads = torch.autograd.grad(y.sum(), list(leaves.values()))
        assert all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("backend", FAST)
def test_small_errors_do_not_pile_up_over_many_tokens(backend):
    inputs = make_inputs(batch=1, channels=16, states=2, length=4000, extras=False)
    inputs["delta"] = 0.001 * (0.5 + torch.rand(1, 16, 4000, dtype=torch.float64))
    inputs["A"] = torch.full((16, 2), -0.5, dtype=torch.float64)
    inputs["u"], inputs["B"] = inputs["u"].abs(), inputs["B"].abs()
    single = {name: x.float() for name, x in inputs.items()}
    double = {name: x.double().numpy() for name, x in single.items()}
    assert_close(selective_scan(**single, backend=backend), naive(**double)[0])


@pytest.mark.parametrize("backend", BACKENDS[:3])
def test_value_that_is_not_a_number_is_not_hidden(backend):
    inputs = {name: x.float() for name, x in make_inputs().items()}
    for name in ("u", "delta", "z"):
        spoiled = inputs | {name: inputs[name].clone()}
        spoiled[name][1, 2, 7] = torch.nan
        y, _ = run(spoiled, backend=backend)
        assert torch.isnan(y[1, 2, 7])
        assert torch.isfinite(y[0]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["auto", "reference", "torch"])
def test_output_has_the_type_of_the_input_and_the_state_at_least_float32(dtype, backend):
    inputs = {name: x.to(dtype) for name, x in make_inputs().items()}
    y, last = run(inputs, backend=backend)
    expected = naive(**{name: x.double().numpy() for name, x in inputs.items()}, delta_softplus=True)
    assert y.dtype == dtype
    assert last.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(last, expected[1])
    assert_close(y, expected[0], relative=max(1e-5, torch.finfo(dtype).eps))


@pytest.mark.parametrize("backend", BACKENDS[:3])
def test_layout_in_memory_does_not_matter(backend):
    inputs = {name: x.float() for name, x in make_inputs(channels=16, length=32).items()}
    strided = {name: torch.stack([x, x], dim=-1)[..., 0] for name, x in inputs.items()}
    assert not strided["u"].is_contiguous()
    for actual, expected in zip(run(strided, backend=backend), run(inputs, backend=backend), strict=True):
        assert_close(actual, expected, relative=1e-6)


@pytest.mark.parametrize("backend", BACKENDS[:3])
def test_samples_of_a_batch_do_not_see_each_other(backend):
    inputs = {name: x.float() for name, x in make_inputs(batch=3).items()}
    alone = {
        name: x if x.shape[0] != 3 or name in ("A", "D", "delta_bias") else x[1:2]
        for name, x in inputs.items()
    }
    assert_close(run(alone, backend=backend)[0], run(inputs, backend=backend)[0][1:2], relative=1e-6)


@pytest.mark.parametrize("backend", FAST)
def test_autocast_does_not_make_the_scan_coarse(backend):
    inputs = {name: x.float().requires_grad_() for name, x in make_inputs().items()}
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = run(inputs, backend=backend)
        (grad,) = torch.autograd.grad(y.sum(), inputs["B"])
    expected, _ = run(inputs, backend=backend)
    assert torch.equal(y, expected)
    assert torch.equal(grad, torch.autograd.grad(expected.sum(), inputs["B"])[0])


@pytest.mark.parametrize("backend", BACKENDS[:3])
def test_tensor_with_metadata_comes_out_plain(backend):
    inputs = {name: x.float() for name, x in make_inputs().items()}
    y, _ = run(inputs | {"u": MetaTensor(inputs["u"])}, backend=backend)
    assert type(y) is Tensor
    assert torch.equal(y, run(inputs, backend=backend)[0])


def test_only_the_output_is_returned_when_no_state_is_asked_for():
    inputs = make_inputs()
    assert torch.equal(selective_scan(**inputs, delta_softplus=True), run(inputs)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"A": torch.zeros(6, 4, dtype=torch.complex64)},
            "A must be real floating point, got torch.complex64",
        ),
        ({"u": torch.zeros(6, 19)}, r"u must be shaped \(B, D, L\), got \(6, 19\)"),
        ({"delta": torch.zeros(2, 6, 18)}, r"delta must be shaped like u, \(2, 6, 19\), got \(2, 6, 18\)"),
        ({"A": torch.zeros(5, 4)}, r"A must be shaped \(D, N\) with D 6, got \(5, 4\)"),
        ({"B": torch.zeros(2, 4, 4, 19)}, r"G a divisor of D, got \(2, 4, 4, 19\)"),
        ({"C": torch.zeros(2, 3, 19)}, r"C must be shaped .* got \(2, 3, 19\)"),
        ({"D": torch.zeros(7)}, r"D must be shaped \(6,\), got \(7,\)"),
        ({"delta_bias": torch.zeros(6, 1)}, r"delta_bias must be shaped \(6,\), got \(6, 1\)"),
        ({"z": torch.zeros(2, 6, 19, dtype=torch.int64)}, "z must be real floating point, got torch.int64"),
        ({"backend": "extension"}, "Inputs must be at most float32, on the CPU, .* got torch.float64 on cpu"),
        ({"backend": "fast"}, "backend must be one of auto, cuda, extension, torch, reference, got 'fast'"),
    ],
)
def test_input_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**(make_inputs() | change))


@needs_extension
def test_backend_is_the_extension_where_it_can_be_used(monkeypatch):
    monkeypatch.delenv(dispatcher.SCAN_VARIABLE, raising=False)
    assert scan_backend_in_use() == "extension"


def test_backend_is_pinned_by_the_program_before_the_environment(monkeypatch):
    monkeypatch.setenv(dispatcher.SCAN_VARIABLE, "torch")
    assert scan_backend_in_use() == "torch"
    set_scan_backend("reference")
    try:
        assert scan_backend_in_use() == "reference"
    finally:
        set_scan_backend("auto")
    assert scan_backend_in_use() == "torch"


def test_backend_that_a_network_was_told_is_the_one_in_use():
    assert scan_backend_in_use(backend="torch") == "torch"
    assert scan_backend_in_use(backend="reference") == "reference"
    with pytest.raises(ValueError, match="backend must be one of auto"):
        scan_backend_in_use(backend="C++")


@pytest.mark.parametrize("name", ["", "C++"])
def test_unknown_backend_in_the_environment_is_refused(monkeypatch, name):
    monkeypatch.setenv(dispatcher.SCAN_VARIABLE, name)
    with pytest.raises(ValueError, match="SHARED_NETS_SCAN must be one of auto"):
        scan_backend_in_use()


@pytest.mark.skipif(has_cuda_kernel(), reason="mamba-ssm is installed")
def test_missing_cuda_kernel_says_what_to_install():
    with pytest.raises(RuntimeError, match="mamba-ssm must be installed"):
        selective_scan(**make_inputs(), backend="cuda")
