"""Tensors whose memory is not their value, and calls that something else than the operation sees: transforms, tracers,
dispatch modes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.masked import masked_tensor
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.flop_counter import FlopCounterMode

import fastlangevin as fl
from fastlangevin import ops
from fastlangevin.ops.sample_norms import norms_with_noise

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors", "ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]

SIGMAS = [1.0, 0.5]
UPDATE = {"a": 0.1, "b": 0.1, "seed": 0}
CHAIN = {"epsilon": 0.01, "steps_per_level": 2, "seed": 0}


def numbers(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def negated(shape=(4, 3)):
    """A view that PyTorch negates as it reads, and the same numbers in memory."""
    view = torch.complex(numbers(shape), numbers(shape, 1)).conj().imag
    assert view.is_neg()
    return view, view.resolve_neg().clone()


def contiguous_negated():
    value = numbers((4, 3))
    return torch._neg_view(value), -value


def zeros(shape=(4, 3)):
    return torch._efficientzerotensor(shape), torch.zeros(shape)


OTHER = numbers((4, 3), 2)
MIXTURE = fl.GaussianMixture([0.4, 0.6], [[0.0, 1.0, 2.0], [1.0, 0.0, -1.0]], 1.0)
CALLS = {
    "state": lambda v, impl: fl.step(v, OTHER, **UPDATE, impl=impl),
    "score": lambda v, impl: fl.step(OTHER, v, **UPDATE, impl=impl),
    "both": lambda v, impl: fl.step(v, v, **UPDATE, impl=impl),
    "score in place": lambda v, impl: fl.step_(OTHER.clone(), v, **UPDATE, impl=impl),
    "noise": lambda v, impl: fl.step(OTHER, OTHER, a=0.1, b=0.1, noise=v, impl=impl),
    "known": lambda v, impl: fl.step(OTHER, OTHER, mask=OTHER > 0, known=v, **UPDATE, impl=impl),
    "coefficient": lambda v, impl: fl.step(OTHER, OTHER, a=v, b=0.1, seed=0, impl=impl),
    "perturb": lambda v, impl: fl.perturb(v, torch.tensor(SIGMAS), seed=0, impl=impl)[0],
    "network": lambda v, impl: fl.dsm_loss(lambda x, labels: v, OTHER, SIGMAS, seed=0, impl=impl),
    "data": lambda v, impl: fl.dsm_loss(lambda x, labels: x * 2, v, SIGMAS, seed=0, output="denoised", impl=impl),
    "norms": lambda v, impl: torch.stack(norms_with_noise(v, noise=v, impl=impl)),
    "sum": lambda v, impl: ops.add_elu(v, OTHER, v, impl=impl)[1],
    "mixture": lambda v, impl: MIXTURE.perturbed(SIGMAS, impl=impl)(v, torch.tensor([0, 1, 1, 0])),
    "chain": lambda v, impl: fl.annealed_langevin(MIXTURE, SIGMAS, init=v, impl=impl, **CHAIN),
    "sampler": lambda v, impl: fl.annealed_langevin(lambda x, labels: v, SIGMAS, init=v, impl=impl, **CHAIN),
    "corrector": lambda v, impl: fl.predictor_corrector(
        lambda x, labels: v if v.any() else OTHER, SIGMAS, init=v, snr=0.1, seed=0, impl=impl
    ),
}


@pytest.mark.parametrize("made", [negated, contiguous_negated, zeros], ids=lambda made: made.__name__)
@pytest.mark.parametrize("call", CALLS)
def test_the_value_is_read_and_not_the_memory(impl, call, made):
    view, plain = made()
    assert torch.equal(CALLS[call](view, impl), CALLS[call](plain, impl))


@pytest.mark.parametrize("made", [negated, zeros], ids=lambda made: made.__name__)
def test_norms_read_values(impl, made):
    (x, plain_x), (p, plain_p) = made((2, 4, 3, 3)), made((4,))
    for norm in (
        lambda x, p: ops.group_norm(x, 2, p, p, impl=impl),
        lambda x, p: ops.add_instance_norm(x, x, p, p, p, impl=impl)[0],
        lambda x, p: ops.instance_norm(
            x, *[torch.stack([p, p])] * 3, labels=torch._efficientzerotensor((2,), dtype=torch.int64), impl=impl
        ),
    ):
        assert torch.equal(norm(x, p), norm(plain_x, plain_p))
        leaf = numbers((2, 4, 3, 3), 3).requires_grad_()
        found, expected = (torch.autograd.grad(norm(leaf, plain_p), leaf, by)[0] for by in (x, plain_x))
        assert torch.equal(found, expected)


def test_addresses_and_masks_of_zeros_are_read(impl):
    def none(*shape, dtype=torch.int64):
        return torch._efficientzerotensor(shape, dtype=dtype)

    address = {"seed": none(), "draw": none(), "sample_ids": none(4)}
    expected = fl.step(OTHER, OTHER, **UPDATE, sample_ids=[0] * 4, impl=impl)
    masked = {"mask": none(4, 3, dtype=torch.bool), "known": OTHER}
    assert torch.equal(fl.step(OTHER, OTHER, a=0.1, b=0.1, **address, **masked, impl=impl), expected)
    drawn = fl.randn((4, 3), **address, impl=impl)
    assert torch.equal(drawn, fl.randn((4, 3), seed=0, sample_ids=[0] * 4, impl=impl))
    found = fl.perturb(OTHER, torch.tensor(SIGMAS), labels=none(4), **address, impl=impl)[0]
    labels = torch.zeros(4, dtype=torch.int64)
    plain = fl.perturb(OTHER, torch.tensor(SIGMAS), labels=labels, seed=0, sample_ids=[0] * 4, impl=impl)[0]
    assert torch.equal(found, plain)


@pytest.mark.parametrize("made", [negated, contiguous_negated, zeros], ids=lambda made: made.__name__)
def test_what_cannot_be_written_is_refused(impl, made):
    view, _ = made()
    before = view.clone()
    for call in (
        lambda: fl.step_(view, OTHER, **UPDATE, impl=impl),
        lambda: fl.step(OTHER, OTHER, out=view, **UPDATE, impl=impl),
    ):
        with pytest.raises(ValueError, match=r"(x|out) is a view that PyTorch negates .* pass \w+\.resolve_neg"):
            call()
    assert torch.equal(view, before)
    with pytest.raises(ValueError, match="fault is a view"):
        fl.step(OTHER, OTHER, fault=torch._efficientzerotensor((4,), dtype=torch.int64), **UPDATE, impl=impl)


DIFFERENTIABLE = {
    "step": lambda x, impl: fl.step(x, x * x, **UPDATE, impl=impl),
    "mask": lambda x, impl: fl.step(x, x * x, mask=OTHER > 0, known=3 * x, **UPDATE, impl=impl),
    "noise": lambda x, impl: fl.step(x, x, a=0.1, b=0.1, noise=x * x, impl=impl),
    "perturb": lambda x, impl: fl.perturb(x, torch.tensor(SIGMAS), seed=0, impl=impl)[0],
    "loss": lambda x, impl: fl.dsm_loss(lambda y, labels: y * y, x, SIGMAS, seed=0, impl=impl),
    "denoised": lambda x, impl: fl.dsm_loss(
        lambda y, labels: y * y, x, SIGMAS, seed=0, output="denoised", reduction="none", impl=impl
    ),
    "mixture": lambda x, impl: MIXTURE.perturbed(SIGMAS, impl=impl)(x, torch.tensor([0, 1, 1, 0])),
    "add_elu": lambda x, impl: ops.add_elu(x, x * x, impl=impl)[1],
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_every_transform_sees_through(impl, name):
    def f(x):
        return DIFFERENTIABLE[name](x, impl)

    x, tangent = numbers((4, 3)).double(), numbers((4, 3), 1).double()
    h = 1e-6
    # Central differences are off by h^2 |f'''| / 6 and by 2^-52 |f| / h: 1e-12 and 2e-10 of values up to 100.
    expected = (f(x + h * tangent) - f(x - h * tangent)) / (2 * h)
    with torch.no_grad(), forward_ad.dual_level():
        found = forward_ad.unpack_dual(f(forward_ad.make_dual(x, tangent)))
        torch.testing.assert_close(found.primal.clone(), f(x), rtol=1e-14, atol=0)
        torch.testing.assert_close(found.tangent, expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(torch.func.jvp(f, (x,), (tangent,))[1], expected, rtol=1e-7, atol=1e-7)
    leaf = x.clone().requires_grad_()
    (by_leaf,) = torch.autograd.grad(f(leaf).sum(), leaf)
    torch.testing.assert_close(torch.func.grad(lambda x: f(x).sum())(x), by_leaf, rtol=1e-12, atol=1e-14)
    both = torch.stack([x, tangent])
    torch.testing.assert_close(torch.func.vmap(f)(both), torch.stack([f(x), f(tangent)]), rtol=1e-14, atol=0)


def test_fp32_tangents_keep_the_bits_of_the_update(impl):
    x, tangent = numbers((4, 3)), numbers((4, 3), 1)
    with forward_ad.dual_level():
        state = forward_ad.make_dual(x, tangent)
        found = forward_ad.unpack_dual(fl.step(state, state, **UPDATE, impl=impl))
        assert torch.equal(found.primal, fl.step(x, x, **UPDATE, impl=impl))
        assert torch.equal(found.tangent, tangent + 0.1 * tangent)
        written = state.clone()
        assert forward_ad.unpack_dual(fl.step_(written, state, **UPDATE, impl=impl)).tangent is not None
        out = torch.empty(4, 3)
        assert forward_ad.unpack_dual(fl.step(state, state, out=out, **UPDATE, impl=impl)).tangent is not None
        assert forward_ad.unpack_dual(MIXTURE.score(state)).tangent is not None


def test_a_backward_pass_of_the_loss_inside_of_a_transform_is_refused(impl):
    h = OTHER.clone().requires_grad_()
    loss = fl.dsm_loss(lambda x, labels: h, OTHER, SIGMAS, seed=0, reduction="none", impl=impl)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(loss, h, torch.ones(2, 4), is_grads_batched=True)


def networks():
    small = {"channels": 1, "width": 8}
    yield fl.models.NCSN(SIGMAS, fl.models.NCSNConfig(**small))
    yield fl.models.NCSNv2(SIGMAS, fl.models.NCSNv2Config(**small))
    plain = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.SiLU())
    fl.fuse(plain, numbers((2, 1, 8, 8)))
    yield plain


@pytest.mark.long
@pytest.mark.parametrize("index", range(3), ids=["NCSN", "NCSNv2", "fused"])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "training"])
def test_networks_are_seen_whole(index, frozen):
    net = list(networks())[index].eval().requires_grad_(not frozen)
    x, other, labels = numbers((2, 1, 8, 8)), numbers((2, 1, 8, 8), 1), torch.tensor([0, 1])
    rest = () if index == 2 else (labels,)
    with torch.set_grad_enabled(not frozen):
        expected = net(other, *rest)
        assert torch.equal(torch.jit.trace(net, (x, *rest), check_trace=False)(other, *rest), expected)
        assert torch.equal(make_fx(net)(x, *rest)(other, *rest), expected)
        with FlopCounterMode(display=False):
            assert torch.equal(net(other, *rest), expected)
    wide = net.double()
    x, tangent = x.double(), numbers((2, 1, 8, 8), 2).double()
    with torch.no_grad():
        # The norms' second derivatives times h^2 are below 1e-6 of the result.
        h = 1e-5
        difference = (wide(x + h * tangent, *rest) - wide(x - h * tangent, *rest)) / (2 * h)
        with forward_ad.dual_level():
            found = forward_ad.unpack_dual(wide(forward_ad.make_dual(x, tangent), *rest)).tangent
        scale = difference.abs().max().item()
        torch.testing.assert_close(found, difference, rtol=0, atol=1e-5 * scale)
    jvp = torch.func.jvp(lambda x: wide(x, *rest), (x,), (tangent,))[1]
    torch.testing.assert_close(jvp, difference, rtol=0, atol=1e-5 * scale)


def test_updates_are_recorded(impl):
    def update(x, s):
        return fl.step(x, s, c=0.5, mask=x > 0, known=s, **UPDATE, impl=impl)

    def in_place(x, s):
        return fl.step_(x.clone(), s, **UPDATE, impl=impl)

    def loss(x, s):
        return fl.dsm_loss(lambda x, labels: x * s, x, SIGMAS, seed=0, impl=impl)

    def mixture(x, s):
        return MIXTURE.perturbed(SIGMAS, impl=impl)(x * s, torch.tensor([0, 1, 1, 0]))

    def sums(x, s):
        return torch.stack(norms_with_noise(x, noise=s, impl=impl))

    x, y = OTHER, numbers((4, 3), 5)
    for f in (update, in_place, loss, mixture, sums):
        expected = f(y, x)
        assert torch.equal(torch.jit.trace(f, (x, y), check_trace=False)(y, x), expected), f.__name__
        if f is not mixture:
            assert torch.equal(make_fx(f)(x, y)(y, x), expected), f.__name__


def test_fake_tensors_have_shapes():
    net = nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU())
    fl.fuse(net, numbers((2, 8, 3, 3)))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(numbers((2, 8, 3, 3)))
        for made in (
            fl.step(x, x, **UPDATE),
            fl.step_(x.clone(), x, **UPDATE),
            fl.perturb(x, torch.ones(2), seed=0)[0],
            fl.randn((2, 8, 3, 3), seed=0),
            ops.add_elu(x, x)[1],
            net(x),
        ):
            assert made.shape == x.shape
        net(x).sum().backward()


# In a process of their own: they used to end it.
ELSEWHERE = {
    "masked": lambda: masked_tensor(numbers((4, 3)), torch.ones(4, 3, dtype=torch.bool)),
    "two": lambda: TwoTensor(numbers((4, 3)), numbers((4, 3))),
    "fake": lambda: FakeTensorMode().from_tensor(numbers((4, 3))),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_values_that_stand_elsewhere_are_refused(kind):
    code = f"import test_memory; test_memory.refuse({kind!r})"
    at = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=at)
    assert done.returncode == 0, done.stderr


def refuse(kind):
    value = ELSEWHERE[kind]()
    for name, call in {
        "x": lambda: fl.step(value, OTHER, **UPDATE),
        "score": lambda: fl.step(OTHER, value, **UPDATE),
        "known": lambda: fl.step(OTHER, OTHER, mask=OTHER > 0, known=value, **UPDATE),
        "out": lambda: fl.step(OTHER, OTHER, out=value, **UPDATE),
        "the score that net returns": lambda: fl.dsm_loss(lambda x, labels: value, OTHER, SIGMAS, seed=0),
        r"terms\[1\]": lambda: ops.add_elu(OTHER, value),
        "weight": lambda: ops.group_norm(OTHER, 3, value[0]),
    }.items():
        with pytest.raises(TypeError, match=f"{name} is a .*Tensor, which keeps its values apart"):
            call()
    with pytest.raises(TypeError, match=r"x is a .*Tensor, which keeps"):
        fl.step_(value, OTHER, **UPDATE)
