"""The Triton kernels of InstanceNorm++ against the PyTorch function in fp64, on CUDA or in Triton's interpreter."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from instance_norm_bounds import EPSILON, Case
from torch import Tensor

pytest.importorskip("triton")

import triton
import triton.language as tl

from fastlangevin.kernels.operands import InstanceNorm, InstanceNormGradients, Statistics
from fastlangevin.kernels.triton import instance_norm as forward
from fastlangevin.kernels.triton import instance_norm_backward as backward
from fastlangevin.kernels.triton import planes

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SIZES = [(1, 1), (1, 2), (2, 2), (3, 5), (8, 8), (7, 16), (33, 17), (32, 32)]


class Problem(Case):
    """Operands of both launchers, and what they write."""

    def operands(self) -> InstanceNorm:
        return InstanceNorm(self.x, self.gamma, self.alpha, self.beta, self.activation, self.residual)

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        out = torch.full_like(self.x, math.nan)
        mean, rstd = (torch.full_like(self.x[:, :, 0, 0], math.nan, dtype=self.gamma.dtype) for _ in range(2))
        mean, rstd = mean.contiguous(), rstd.contiguous()
        total = None if self.residual is None else torch.full_like(self.x, math.nan)
        forward.instance_norm(out, total, Statistics(mean, rstd), self.operands())
        if total is not None:
            assert torch.equal(total, self.total())
        return out, mean, rstd

    def backward(self, mean: Tensor, rstd: Tensor) -> InstanceNormGradients:
        rows = (torch.full_like(mean, math.nan) for _ in range(3))
        results = InstanceNormGradients(torch.full_like(self.x, math.nan), *rows)
        given = self.operands()._replace(x=self.total(), residual=None)
        backward.instance_norm_backward(results, self.upstream, given, Statistics(mean, rstd))
        return results


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

    x, upstream, more = (draw(shape, dtype).contiguous(memory_format=memory_format) for _ in range(3))
    x += draw((*shape[:2], 1, 1), dtype)
    gamma, alpha, beta = (draw((1 if shared else shape[0], shape[1]), compute).expand(shape[:2]) for _ in range(3))
    return Problem(x, upstream, more if residual else None, gamma, alpha, beta, activation)


def check(given: Problem) -> None:
    """Run both launchers on poisoned results and compare."""
    out, mean, rstd = given.forward()
    given.check([out, *given.backward(mean, rstd)])


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
            for each in (given.x, given.upstream, given.residual, given.gamma, given.alpha, given.beta)
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
    want, mean, rstd = rows.forward()
    labels[2], labels[4] = 7, -1
    out, total = torch.zeros_like(given.x), torch.zeros_like(given.x)
    operands = InstanceNorm(given.x, *table.chunk(3, 1), True, given.residual, labels)
    forward.instance_norm(out, total, Statistics(mean, rstd), operands)
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
    forward.instance_norm(given.x.clone(), None, Statistics(rows, rows.clone()), given.operands())
    assert given.backward(rows, rows).x.shape == shape
