"""The Triton kernels of InstanceNorm++ against the PyTorch function in fp64, on CUDA or in Triton's interpreter."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.reference.norm import EPSILON

pytest.importorskip("triton")

import triton
import triton.language as tl

from fastlangevin.kernels import instance_norm as forward
from fastlangevin.kernels import instance_norm_backward as backward
from fastlangevin.kernels import planes

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SIZES = [(1, 1), (1, 2), (2, 2), (3, 5), (8, 8), (7, 16), (33, 17), (32, 32)]


@dataclasses.dataclass
class Problem:
    """Operands of both launchers, and what they write."""

    x: Tensor
    grad_out: Tensor
    residual: Tensor | None
    gamma: Tensor
    alpha: Tensor
    beta: Tensor
    activation: bool = True

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        out = torch.full_like(self.x, math.nan)
        mean, rstd = (torch.full_like(self.x[:, :, 0, 0], math.nan, dtype=self.gamma.dtype) for _ in range(2))
        mean, rstd = mean.contiguous(), rstd.contiguous()
        parameters = self.gamma, self.alpha, self.beta
        total = None if self.residual is None else torch.full_like(self.x, math.nan)
        forward.instance_norm(out, self.x, self.residual, total, *parameters, mean, rstd, activation=self.activation)
        if total is not None:
            assert torch.equal(total, self.total())
        return out, mean, rstd

    def total(self) -> Tensor:
        """What is normalised."""
        return self.x if self.residual is None else self.x + self.residual

    def backward(self, mean: Tensor, rstd: Tensor) -> tuple[Tensor, ...]:
        results = [torch.full_like(self.x, math.nan), *(torch.full_like(mean, math.nan) for _ in range(3))]
        operands = self.grad_out, self.total(), self.gamma, self.alpha, self.beta, mean, rstd
        backward.instance_norm_backward(*results, *operands, activation=self.activation)
        return tuple(results)

    def wanted(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The result and the gradients of x and, for each sample, gamma, alpha and beta, in fp64."""
        leaves = [each.double().clone().requires_grad_() for each in (self.total(), self.gamma, self.alpha, self.beta)]
        out = reference.instance_norm(*leaves, activation=self.activation)[0]
        gradients = torch.autograd.grad(out, leaves, self.grad_out.double())
        return out.detach(), gradients


def problem(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
    *,
    activation: bool = True,
    residual: bool = True,
    shared: bool = False,
) -> Problem:
    """Planes whose mean is as large as their deviation; ``shared`` parameters have the stride 0."""
    generator = torch.Generator().manual_seed(7)
    compute = torch.float64 if dtype == torch.float64 else torch.float32

    def draw(size: tuple[int, ...], kind: torch.dtype) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(kind).to(DEVICE)

    x, grad_out, more = (draw(shape, dtype).contiguous(memory_format=memory_format) for _ in range(3))
    x += draw((*shape[:2], 1, 1), dtype)
    gamma, alpha, beta = (draw((1 if shared else shape[0], shape[1]), compute).expand(shape[:2]) for _ in range(3))
    return Problem(x, grad_out, more if residual else None, gamma, alpha, beta, activation)


def tolerances(given: Problem) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Bounds of the errors of the result and of the gradients, in fp64.

    A sum of N numbers loses u sqrt(N) of its terms, u = 2^-24 or 2^-53, as roundings walk; with the few operations
    around it, every mean is wrong by w u X, w = 8 + 2 sqrt(HW) + 2 sqrt(C), X the largest |x| of the sample, and every
    r, 1 / sqrt(var mu) and S by w u of itself. So n is wrong by w u (|n| + r X) and m by w u (|m| + 2 M X (1 + |m|)),
    and the error of y, which ELU does not enlarge, follows. In the gradients each term is wrong by w u (1 + K) of its
    largest value, K being what the errors of n, m and y are with w u = 1. Rounding the result adds half an ulp.
    """
    x, gamma, alpha, beta = (each.double() for each in (given.total(), given.gamma, given.alpha, given.beta))
    gamma, alpha, beta = (each.abs()[:, :, None, None] for each in (gamma, alpha, beta))
    pixels, channels = x.shape[2] * x.shape[3], x.shape[1]
    unit = 2.0**-53 if given.x.dtype == torch.float64 else 2.0**-24
    walk = unit * (8 + 2 * math.sqrt(pixels) + 2 * math.sqrt(channels))
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    spread, centre = torch.var_mean(mean, 1, correction=1, keepdim=True)
    rstd, sharpness = (variance + EPSILON).rsqrt(), (spread + EPSILON).rsqrt()
    n, m = ((x - mean) * rstd).abs(), ((mean - centre) * sharpness).abs()
    largest = x.abs().amax((1, 2, 3), keepdim=True)
    of_n, of_m = n + rstd * largest, m + 2 * sharpness * largest * (1 + m)
    of_y = gamma * (of_n + alpha * of_m) + beta
    last = torch.finfo(given.x.dtype)

    def rounded(bound: Tensor, wanted: Tensor) -> Tensor:
        return bound + wanted.abs() * (last.eps / 2) + last.tiny * last.eps

    def top(values: Tensor) -> Tensor:
        return values.amax((2, 3), keepdim=True)

    out, gradients = given.wanted()
    g = given.grad_out.double().abs()
    conditions = 1 + top(of_n) + of_m + top(of_y)
    total = g.sum((2, 3), keepdim=True)
    everywhere = conditions.amax(1, keepdim=True)
    through_mean = sharpness * (gamma * alpha * total * (1 + m) ** 2).amax(1, keepdim=True) * (1 + m) / pixels
    of_x = rstd * gamma * (g + total / pixels * (1 + n * top(n))) * conditions + through_mean * everywhere * 2
    of_sums = [(top(n) + alpha * m) * total * conditions, gamma * (1 + m) * total * conditions, total * conditions]
    small = [walk * each[:, :, 0, 0] for each in of_sums]
    return rounded(walk * of_y, out), (rounded(walk * of_x, gradients[0]), *small)


def check(given: Problem) -> None:
    """Run both launchers on poisoned results and compare."""
    out, mean, rstd = given.forward()
    wanted, gradients = given.wanted()
    bound, bounds = tolerances(given)
    assert ((out.double() - wanted).abs() <= bound).all()
    found = given.backward(mean, rstd)
    for name, got, want, limit in zip(("x", "gamma", "alpha", "beta"), found, gradients, bounds, strict=True):
        assert ((got.double() - want).abs() <= limit).all(), name


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [2, 3, 8])
def test_sizes(channels: int, size: tuple[int, int], name: str) -> None:
    check(problem((2 if channels == 3 else 1, channels, *size), memory_format=FORMATS[name]))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 7), (32, 32)], ids=str)
def test_many_channels(size: tuple[int, int], name: str) -> None:
    check(problem((1, 128, *size), memory_format=FORMATS[name]))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_and_what_is_wanted(dtype: torch.dtype, name: str) -> None:
    for activation, residual, shared in itertools.product((True, False), repeat=3):
        options = {"activation": activation, "residual": residual, "shared": shared}
        check(problem((1, 3, 3, 5) if residual else (2, 16, 4, 8), dtype, FORMATS[name], **options))


@pytest.mark.parametrize("name", FORMATS)
def test_planes_of_several_splits_and_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = problem((1, 4, 17, 36), memory_format=FORMATS[name])
    monkeypatch.setattr(planes, "TILE", 512)
    found = []
    for programs in (512, 2, 1):
        monkeypatch.setattr(planes, "PROGRAMS", programs)
        found.append(planes.planes_of(given.x))
        check(given)
    assert found[0].steps == 1 < found[0].splits
    assert found[-1].splits == 1 < found[-1].steps


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(3, 3, 7, 5), (3, 2, 65, 65), (3, 40, 8, 8)], ids=str)
def test_a_sample_has_the_same_bits_in_any_batch(shape: tuple[int, ...], name: str) -> None:
    given = problem(shape, memory_format=FORMATS[name])
    whole = given.forward()
    gradients = given.backward(*whole[1:])
    for row in range(shape[0]):
        # A copy of the slice: a pointer that is not a multiple of 16 would be read in another layout on a GPU.
        parts = [
            each[row : row + 1].clone(memory_format=torch.preserve_format)
            for each in (given.x, given.grad_out, given.residual, given.gamma, given.alpha, given.beta)
        ]
        alone = Problem(*parts)
        some = alone.forward()
        for one, other in zip((*some, *alone.backward(*some[1:])), (*whole, *gradients), strict=True):
            assert torch.equal(one[0], other[row])


def test_a_large_mean_does_not_cancel() -> None:
    given = problem((1, 2, 33, 17), residual=False)
    given.x += 1000.0
    check(given)
    _, _, rstd = given.forward()
    exact = (given.x.double().var((2, 3), correction=0) + EPSILON).rsqrt()
    # Mean square minus square of the mean would lose 10^6 2^-24, a sixteenth, of the variance.
    torch.testing.assert_close(rstd.double(), exact, rtol=1e-5, atol=0)


def test_parameters_in_a_wider_table() -> None:
    given = problem((3, 5, 4, 4))
    table = torch.stack((given.gamma, given.alpha, given.beta), 1).flatten(1)
    gamma, alpha, beta = table.chunk(3, dim=-1)
    assert gamma.stride(0) == 15
    check(dataclasses.replace(given, gamma=gamma, alpha=alpha, beta=beta))


@triton.jit
def _elu_kernel(out_ptr, y_ptr, COUNT: tl.constexpr):
    at = tl.arange(0, COUNT)
    tl.store(out_ptr + at, forward.elu(tl.load(y_ptr + at)))


def test_labels_choose_rows_and_one_out_of_range_makes_its_sample_nan() -> None:
    given = problem((5, 6, 4, 6))
    table = torch.randn(7, 18, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    labels = torch.tensor([6, 0, 3, 3, 1], device=DEVICE)
    rows = dataclasses.replace(given, **dict(zip(("gamma", "alpha", "beta"), table[labels].chunk(3, 1), strict=True)))
    want, *statistics = rows.forward()
    labels[2], labels[4] = 7, -1
    out = torch.zeros_like(given.x)
    total = torch.zeros_like(out)
    forward.instance_norm(
        out, given.x, given.residual, total, *table.chunk(3, 1), *statistics, activation=True, labels=labels
    )
    good = [0, 1, 3]
    assert torch.equal(out[good], want[good])
    assert out[[2, 4]].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_elu_near_zero_and_at_the_edges(dtype: torch.dtype) -> None:
    small = -torch.logspace(-30, 2, 4096 - 8, dtype=torch.float64)
    # numpy, under the interpreter, warns of what comes of infinities in the branch that is not taken.
    far = math.inf if DEVICE.type == "cuda" else 80.0
    edges = [0.0, -0.0, far, -far, math.nan, 1e-30, 5.0, -0.5]
    y = torch.cat((small, torch.tensor(edges, dtype=torch.float64))).to(dtype).to(DEVICE)
    out = torch.empty_like(y)
    _elu_kernel[(1,)](out, y, COUNT=4096)
    # expm1 of fp64 is right to its last place; the compiled exp is good to 2 ulp of at most 0.61 where 0.39 is left.
    want = torch.where(y > 0, y.double(), y.double().expm1())
    torch.testing.assert_close(out.double(), want, rtol=6 * torch.finfo(dtype).eps, atol=0, equal_nan=True)


@triton.jit
def _across_biased(means, valid, channels):
    centre = tl.sum(means) / channels.to(means.dtype)
    away = tl.where(valid, means - centre, 0)
    return centre, tl.rsqrt(tl.sum(away * away) / channels.to(means.dtype) + 1e-5)


@triton.jit
def _reduce_all_but_little(values, IS_LAST: tl.constexpr):
    return tl.sum(values, axis=0 if IS_LAST else 1) * 0.99


@pytest.mark.skipif(DEVICE.type == "cuda", reason="a compiled kernel does not look its functions up again")
@pytest.mark.parametrize(
    ("module", "name", "wrong"),
    [
        (forward, "across", _across_biased),
        (backward, "across", _across_biased),
        (forward, "reduce_pixels", _reduce_all_but_little),
        # Where the sums of the gradients are made.
        (planes, "reduce_pixels", _reduce_all_but_little),
    ],
    ids=["forward-across", "backward-across", "forward-reduce_pixels", "backward-reduce_pixels"],
)
def test_kernels_of_another_formula_are_caught(
    module: object, name: str, wrong: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = problem((2, 8, 8, 8))
    check(given)
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(AssertionError):
        check(given)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4)], ids=str)
def test_empty(shape: tuple[int, ...]) -> None:
    given = problem(shape)
    rows = torch.zeros(shape[:2], device=DEVICE)
    forward.instance_norm(
        given.x.clone(), given.x, None, given.gamma, given.alpha, given.beta, rows, rows.clone(), activation=True
    )
    assert given.backward(rows, rows)[0].shape == shape
