"""The Triton kernels of GroupNorm against PyTorch's own functions in fp64, on CUDA or in Triton's interpreter."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from group_norm_bounds import Case, case
from torch import Tensor

pytest.importorskip("triton")

import triton
import triton.language as tl

from fastlangevin.kernels.operands import GroupNorm, GroupNormGradients, Statistics
from fastlangevin.kernels.triton import group_norm as forward
from fastlangevin.kernels.triton import group_norm_backward as backward
from fastlangevin.kernels.triton import planes

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def launch(given: Case) -> tuple[Tensor, ...]:
    """Both launchers on poisoned results: the result, the gradients of x, weight and bias, and mean and rstd."""
    x, upstream, weight, bias = (each.to(DEVICE) for each in (given.x, given.upstream, given.weight, given.bias))
    mean, rstd = (weight.new_full((len(x), given.groups), math.nan) for _ in range(2))
    rows = [weight.new_full(x.shape[:2], math.nan) for _ in range(2)]
    out, by_x = (torch.full_like(x, math.nan) for _ in range(2))
    operands, statistics = GroupNorm(x, weight, bias, given.groups, given.activation), Statistics(mean, rstd)
    forward.group_norm(out, statistics, operands, given.eps)
    backward.group_norm_backward(GroupNormGradients(by_x, *rows), upstream, operands, statistics)
    return out, by_x, *rows, mean, rstd


def check(given: Case) -> None:
    *found, mean, rstd = launch(given)
    given.check(tuple(found))
    assert mean.isfinite().all()
    assert rstd.isfinite().all()


# Groups of which a tile has many, one, a part, and that lie across tiles; channels and pixels that are no power of two.
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 1, 1, 1), 1),
        ((2, 6, 1, 1), 2),
        ((2, 6, 1, 2), 6),
        ((2, 12, 3, 5), 3),
        ((1, 40, 8, 8), 4),
        ((1, 33, 4, 4), 3),
        ((1, 33, 4, 4), 11),
        ((1, 100, 5, 7), 10),
        ((1, 130, 2, 2), 1),
        ((1, 48, 8, 8), 3),
        ((1, 51, 8, 8), 17),
        ((1, 128, 4, 4), 32),
        ((1, 3, 33, 17), 1),
        ((1, 10, 16, 32), 2),
    ],
    ids=str,
)
def test_sizes(shape: tuple[int, ...], groups: int, name: str) -> None:
    check(case(shape, groups, memory_format=FORMATS[name]))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtypes_and_no_activation(dtype: torch.dtype, name: str) -> None:
    for activation in (False, True):
        check(case((1, 12, 3, 8), 3, dtype, FORMATS[name], activation=activation))


@pytest.mark.parametrize("name", FORMATS)
def test_a_program_has_all_groups_that_its_channels_are_in(name: str) -> None:
    for members in range(1, 40):
        for groups in range(1, 40):
            x = torch.empty(1, members * groups, 8, 12, device="meta").contiguous(memory_format=FORMATS[name])
            found = planes.planes_of(x, groups)
            own = found.constants["COLUMNS" if found.is_last else "ROWS"]
            blocks = range(0, members * groups, own)
            ends = [(first // members, (min(first + own, members * groups) - 1) // members) for first in blocks]
            met = max(last - first + 1 for first, last in ends)
            # No more than it needs where there are enough blocks for one to begin anywhere in a group.
            assert met == found.touched if own * members <= members * groups else met <= found.touched <= groups


@pytest.mark.parametrize("name", FORMATS)
def test_planes_of_several_splits_and_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = case((1, 4, 17, 36), 2, memory_format=FORMATS[name])
    monkeypatch.setattr(planes, "TILE", 512)
    found = []
    for programs in (512, 4, 1):
        monkeypatch.setattr(planes, "PROGRAMS", programs)
        found.append(planes.planes_of(given.x, 2))
        check(given)
    assert found[0].steps == 1 < found[0].splits
    assert found[-1].splits == 1 < found[-1].steps


def test_one_sample_of_few_groups_fills_a_device() -> None:
    for name, memory_format in FORMATS.items():
        x = torch.empty(1, 128, 256, 256, device="meta").contiguous(memory_format=memory_format)
        found = planes.planes_of(x, 4)
        assert found.splits * found.blocks >= 128, name


@triton.jit
def _activation_kernel(out_ptr, slope_ptr, y_ptr, COUNT: tl.constexpr):
    at = tl.arange(0, COUNT)
    tl.store(out_ptr + at, forward.silu(tl.load(y_ptr + at)))
    tl.store(slope_ptr + at, backward.through_silu(1.0, tl.load(y_ptr + at)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_silu_and_its_slope(dtype: torch.dtype) -> None:
    # Beyond 103 in fp32 and 745 in fp64 the exponential is 0; the largest numbers are finite.
    last = 0.9 * math.log(torch.finfo(dtype).max)
    small = torch.logspace(-30, 0, 1024, dtype=torch.float64)
    large = torch.linspace(1, last, 1024 - 4, dtype=torch.float64)
    edges = torch.tensor([0.0, 1e3, 1e30, torch.finfo(dtype).max], dtype=torch.float64)
    y = torch.cat((small, large, edges)).to(dtype)
    y = torch.cat((y, -y)).to(DEVICE)
    out, slope = torch.empty_like(y), torch.empty_like(y)
    _activation_kernel[(1,)](out, slope, y, COUNT=4096)
    wide = y.double()
    value = wide * torch.sigmoid(wide)
    gate = torch.sigmoid(wide)
    exact = gate + value * torch.sigmoid(-wide)
    unit = torch.finfo(dtype).eps / 2
    # exp(-|y|) is good to 2 ulp and, its argument being rounded, |y| unit of itself; then a handful of operations. The
    # terms of the slope are below 1.1 and cancel.
    relative = (10 + wide.abs() * (wide < 0)) * unit
    assert ((out.double() - value).abs() <= relative * value.abs() + torch.finfo(dtype).tiny).all()
    assert ((slope.double() - exact).abs() <= 20 * unit).all()
    assert out.isfinite().all()
    special = torch.full_like(y, math.nan)
    _activation_kernel[(1,)](out, slope, special, COUNT=4096)
    assert out.isnan().all()
    assert slope.isnan().all()


@triton.jit
def _interleaved(first_channel, groups, members, GROUPS: tl.constexpr, MEMBERS: tl.constexpr):
    first_group = first_channel // members
    place = tl.arange(0, GROUPS * MEMBERS)
    group = first_group + place // MEMBERS
    member = place % MEMBERS
    return first_group + tl.arange(0, GROUPS), member * groups + group, (member < members) & (group < groups)


@triton.jit
def _sums_of_all_but_little(values, GROUPS: tl.constexpr, MEMBERS: tl.constexpr):
    return tl.sum(tl.reshape(values, (GROUPS, MEMBERS)), axis=1) * 0.999


@triton.jit
def _silu_of_an_approximation(y):
    return y * tl.minimum(tl.maximum(y / 6 + 0.5, 0), 1)


@triton.jit
def _through_the_gate_alone(gradient, y):
    small, large = forward.logistic(y)
    return gradient * tl.where(y > 0, large, small * large)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="a compiled kernel does not look its functions up again")
@pytest.mark.parametrize(
    ("module", "name", "wrong", "which"),
    [
        (forward, "members_of", _interleaved, "out"),
        (forward, "by_group", _sums_of_all_but_little, "out"),
        (forward, "silu", _silu_of_an_approximation, "out"),
        (backward, "members_of", _interleaved, "by_x"),
        (backward, "by_group", _sums_of_all_but_little, "by_x"),
        (backward, "through_silu", _through_the_gate_alone, "by_x"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kernels_of_another_formula_are_caught(
    module: object, name: str, wrong: object, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = case((2, 12, 4, 4), 3)
    check(given)
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(AssertionError, match=which):
        check(given)


@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_the_epsilon_is_the_caller_s(eps: float) -> None:
    given = dataclasses.replace(case((2, 6, 3, 5), 2, deviation=0.01), eps=eps)
    check(given)
    with pytest.raises(AssertionError, match="out"):
        dataclasses.replace(given, eps=2 * eps).check(launch(given)[:4])


def test_empty() -> None:
    x = torch.zeros(0, 6, 4, 4, device=DEVICE)
    found = launch(Case(x, x, torch.ones(6), torch.ones(6), 3))
    assert found[0].shape == x.shape
    assert found[2].shape == (0, 6)
