"""The Triton kernels of the denoising objective have the bits of the reference, on CUDA or in Triton's interpreter."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.address import Address
from fastlangevin.kernels.operands import Objective, Perturbation, Sums, Tables

pytest.importorskip("triton")

import triton
import triton.language as tl

from fastlangevin.kernels.triton import dsm, perturb
from fastlangevin.kernels.triton import sums as finishing

# The function of this name hides it in the package.
dsm_sums = importlib.import_module("fastlangevin.reference.dsm")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SIZES = (1, 3, 4, 5, 8, 27, 64, 128, 129, 784, 1000, 1025, 3072, 5001)
ADDRESS: dict[str, Any] = {"seed": 0x0123456789ABCDEF, "draw": 7, "sample_ids": None, "sample_offset": 0, "purpose": 2}
LEVEL_PURPOSE = 3
OUTSIDE = (-1, -(2**62), 2**40, 5)


def compute(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def values(shape: tuple[int, ...], dtype: torch.dtype, salt: int) -> Tensor:
    generator = torch.Generator().manual_seed(salt)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(DEVICE)


def normals(shape: tuple[int, ...], make: Callable[..., Tensor] = reference.randn, **address: Any) -> Tensor:
    address = {**ADDRESS, **address}
    ids, offset = address.pop("sample_ids"), address.pop("sample_offset")
    if ids is None:
        ids = torch.arange(shape[0], device=DEVICE) + offset
    return make(math.prod(shape[1:]), ids, **address).reshape(shape)


def poisoned(like: Tensor) -> Tensor:
    """Same layout, full of what a kernel that skips an element would leave: no result has this value."""
    return torch.full_like(like, -12345 if like.dtype == torch.int64 else -3e4)


def same(got: Tensor | None, want: Tensor | None) -> None:
    if got is None or want is None:
        assert got is want
    else:
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


@dataclasses.dataclass
class Problem:
    """A batch at some levels. A label may be outside of the ladder: the reference is then given one more level."""

    h: Tensor
    labels: Tensor
    scale: Tensor
    weight: Tensor
    slope: Tensor
    upstream: Tensor

    def inside(self) -> Tensor:
        """Labels for the reference: whatever is outside of the ladder is the level after the last."""
        levels = self.scale.numel()
        return torch.where((self.labels >= 0) & (self.labels < levels), self.labels, levels)

    def table(self, values: Tensor) -> Tensor:
        return torch.cat((values, values.new_full((1,), math.nan)))


def problem(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, levels: int = 5, upstreams: bool = True
) -> Problem:
    tables = values((3, levels), compute(dtype), 3).abs()
    labels = torch.randint(levels, shape[:1], generator=torch.Generator().manual_seed(4)).to(DEVICE)
    upstream = values(shape[:1], compute(dtype), 5) if upstreams else values((), compute(dtype), 5)
    return Problem(values(shape, dtype, 1), labels, tables[0], tables[1], tables[2], upstream)


def check_dsm(
    given: Problem,
    *,
    clean: Tensor | None = None,
    noise: Tensor | None = None,
    sums: bool = True,
    gradient: bool = True,
    into: Tensor | None = None,
    **address: Any,
) -> Sums:
    """Run the launcher and ask for the reference's bits; return the reference's sums, with the level of the others."""
    h, levels = given.h, given.scale.numel()
    z = normals(tuple(h.shape), **address) if noise is None and clean is None else noise
    tables = Tables(given.scale, given.weight, given.slope)
    objective = Objective(h, given.labels, tables, Address(**{**ADDRESS, **address}), noise, clean)
    exact = objective._replace(labels=given.inside(), tables=Tables(*map(given.table, tables)), noise=z)
    want, exact_derivative = reference.dsm(exact, given.upstream, gradient=True)
    wanted = want._replace(level_sums=want.level_sums[:levels], level_counts=want.level_counts[:levels])
    results = Sums(*map(poisoned, wanted))
    derivative = poisoned(h if into is None else into) if gradient else None
    segment = reference.segment_elements(math.prod(h.shape[1:]))
    dsm.dsm(results if sums else None, derivative, objective, given.upstream, segment)
    if sums:
        for got, one in zip(results, wanted, strict=True):
            same(got, one)
    if gradient:
        same(derivative, exact_derivative)
    return want


def check_perturb(
    x: Tensor,
    sigmas: Tensor,
    labels: Tensor | None = None,
    *,
    noise: Tensor | None = None,
    out: Tensor | None = None,
    **address: Any,
) -> Tensor:
    """As :func:`check_dsm`; return the labels."""
    batch, levels = x.shape[0], sigmas.numel()
    z = normals(tuple(x.shape), **address) if noise is None else noise
    wanted = labels
    if wanted is None:
        uniform = normals((batch, 1), reference.rand, **{**address, "purpose": LEVEL_PURPOSE})
        wanted = reference.level_of(uniform[:, 0], levels)
    inside = torch.where((wanted >= 0) & (wanted < levels), wanted, levels)
    given = Perturbation(x, sigmas, labels, Address(**{**ADDRESS, **address}), LEVEL_PURPOSE, noise)
    wider = torch.cat((sigmas, sigmas.new_full((1,), math.nan)))
    want, _ = reference.perturb(given._replace(sigmas=wider, labels=inside, noise=z))
    out = poisoned(x if out is None else out)
    drawn = poisoned(wanted) if labels is None else None
    perturb.perturb(out, drawn, given)
    same(out, want)
    same(drawn, wanted if labels is None else None)
    return wanted


@pytest.mark.parametrize("elements", SIZES)
def test_sizes(elements: int) -> None:
    given = problem((3, elements))
    check_dsm(given)
    check_perturb(given.h, given.scale)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("elements", SIZES)
def test_dtypes(elements: int, dtype: torch.dtype) -> None:
    given = problem((1 if elements > 1000 else 2, elements), dtype)
    check_dsm(given)
    # The interpreter takes its time for each program, and these have 25 and 33.
    if elements not in (784, 1025):
        check_perturb(given.h, given.scale)


@pytest.mark.parametrize("shape", [(300, 2), (70, 12), (33, 5), (9, 136)], ids=str)
def test_many_rows_in_a_program(shape: tuple[int, ...]) -> None:
    given = problem(shape)
    check_dsm(given)
    check_perturb(given.h, given.scale)
    check_perturb(given.h, given.scale, given.labels)


def test_samples_of_one_number() -> None:
    given = problem((3,))
    check_perturb(given.h, given.scale)
    check_perturb(given.h, given.scale, given.labels)


def test_more_segments_than_lanes() -> None:
    h, clean = (values((1, 257 * 1024), torch.float32, salt) for salt in (1, 2))
    check_dsm(dataclasses.replace(problem((1, 4)), h=h), clean=clean, gradient=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sums_of_segments_samples_and_levels(dtype: torch.dtype) -> None:
    for batch, segments, levels in ((3, 1, 2), (70, 3, 3), (2, 255, 1), (2, 257, 4), (2, 1000, 4), (600, 2, 3)):
        partial = values((batch, segments), dtype, 6).abs()
        given = problem((batch, 1), dtype, levels=levels)
        wanted = ((batch,), dtype), ((levels,), dtype), ((levels,), torch.int64), ((), dtype)
        found = Sums(*(torch.full(size, -3, dtype=kind, device=DEVICE) for size, kind in wanted))
        finishing.finish(found, partial, given.labels, given.weight)
        want = dsm_sums._across(partial) * 0.5 * given.weight[given.labels]
        own = given.labels == torch.arange(levels, device=DEVICE)[:, None]
        same(found.values, want)
        same(found.level_sums, dsm_sums._across(torch.where(own, want, 0.0)))
        same(found.level_counts, own.sum(1))
        same(found.total, dsm_sums._across(want))


def test_more_samples_and_levels_than_lanes() -> None:
    check_dsm(problem((600, 4), levels=3), noise=values((600, 4), torch.float32, 2))
    given = problem((40, 4), levels=300)
    check_dsm(given)
    assert check_perturb(given.h, given.scale).max() > 200


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("elements", [5, 136])
def test_what_is_wanted(elements: int, dtype: torch.dtype) -> None:
    for sums, upstreams in itertools.product((True, False), (True, False)):
        given = problem((3, elements), dtype, upstreams=upstreams)
        check_dsm(given, sums=sums)
        if sums:
            check_dsm(given, gradient=False)


@pytest.mark.parametrize("other", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_clean_data_and_given_noise(dtype: torch.dtype, other: torch.dtype) -> None:
    for elements in (5, 136):
        given, more = problem((3, elements), dtype), values((3, elements), other, 7)
        check_dsm(given, clean=more)
        check_dsm(given, noise=more)
        check_perturb(given.h, given.scale, given.labels, noise=more)


def test_clean_data_draw_no_noise() -> None:
    given = problem((2, 8))
    check_dsm(given, clean=values((2, 8), torch.float32, 7), noise=None, seed=1)
    check_dsm(given, clean=values((2, 8), torch.float32, 7), noise=None, seed=2)


def views() -> dict[str, Callable[[Tensor], Tensor]]:
    """A tensor (3, 6, 2, 10) with the same values in another memory layout."""

    def strided(x: Tensor) -> Tensor:
        wide = x.new_zeros(*x.shape[:-1], 3 * x.shape[-1])
        wide[..., 1::3] = x
        return wide[..., 1::3]

    def cropped(x: Tensor) -> Tensor:
        wide = x.new_zeros(x.shape[0] + 1, x.shape[1] + 2, *x.shape[2:])
        wide[1:, 1:-1] = x
        return wide[1:, 1:-1]

    return {
        "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
        "reversed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        "strided": strided,
        "cropped": cropped,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", views())
def test_memory_layouts(name: str, dtype: torch.dtype) -> None:
    view, given = views()[name], problem((3, 6, 2, 10), dtype)
    clean = values((3, 6, 2, 10), dtype, 2)
    odd = dataclasses.replace(given, h=view(given.h))
    check_dsm(odd)
    check_dsm(odd, into=given.h, clean=clean)
    check_dsm(given, into=odd.h, clean=view(clean))
    check_dsm(given, noise=view(clean))
    check_perturb(odd.h, given.scale)
    check_perturb(odd.h, given.scale, out=given.h)
    check_perturb(given.h, given.scale, given.labels, out=odd.h, noise=view(clean))


def test_nothing_is_written_between_strided_elements() -> None:
    given = problem((3, 2, 5))
    base = torch.full((3, 4, 9), 5.0, device=DEVICE)
    check = base[:, 1:3, ::2]
    address = Address(**ADDRESS)
    perturb.perturb(check, None, Perturbation(given.h, given.scale, given.labels, address, LEVEL_PURPOSE))
    assert not check.eq(5.0).any()
    check.fill_(5.0)
    assert base.eq(5.0).all()


@pytest.mark.parametrize("shape", [(5, 3), (5, 64), (2, 1024)], ids=str)
def test_labels_outside_of_the_ladder_are_nan_and_in_no_level(shape: tuple[int, ...]) -> None:
    given = problem(shape)
    given.labels[: len(OUTSIDE)] = torch.tensor(OUTSIDE[: shape[0]], device=DEVICE)
    want = check_dsm(given)
    assert want.values[: len(OUTSIDE)].isnan().all()
    assert want.level_counts[:5].sum() == max(shape[0] - len(OUTSIDE), 0)
    check_perturb(given.h, given.scale, given.labels)


@pytest.mark.parametrize("shape", [(5, 3), (5, 200), (2, 1024)], ids=str)
def test_addresses(shape: tuple[int, ...]) -> None:
    given, batch = problem(shape), shape[0]
    ids = torch.tensor([0, 2**32 - 1, 2**32, 2**56 - 1, 5], device=DEVICE)[:batch]
    seeds = torch.tensor([0, -1, 2**62 + 5, 3, 1 << 32], device=DEVICE)[:batch]
    for address in (
        {"seed": 2**64 - 1, "draw": 2**32 - 1, "sample_offset": 2**40},
        {"seed": seeds[1], "draw": torch.tensor(2**31, device=DEVICE), "sample_ids": ids},
        {"seed": seeds, "draw": torch.tensor(3, device=DEVICE), "purpose": 255},
    ):
        check_dsm(given, **address)
        check_perturb(given.h, given.scale, **address)


def test_drawn_levels_are_all_of_them() -> None:
    x = torch.zeros(400, 1, device=DEVICE)
    levels = check_perturb(x, torch.ones(10, device=DEVICE))
    # Each of ten levels misses 400 draws with probability 0.9^400 < 10^-18.
    assert levels.unique().tolist() == list(range(10))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 5)], ids=str)
def test_empty(shape: tuple[int, ...]) -> None:
    given = problem(shape)
    values, level_sums, total = (torch.full(size, math.nan, device=DEVICE) for size in (shape[:1], (5,), ()))
    sums = Sums(values, level_sums, torch.full((5,), -1, device=DEVICE), total)
    tables = Tables(given.scale, given.weight, given.slope)
    objective = Objective(given.h, given.labels, tables, Address(**ADDRESS))
    dsm.dsm(sums, torch.empty_like(given.h), objective, given.upstream, 4)
    assert all(each.eq(0).all() for each in (values, level_sums, total))
    assert torch.equal(sums.level_counts, given.labels.bincount(minlength=5))
    check_perturb(given.h, given.scale)
    check_perturb(given.h, given.scale, given.labels)


def test_rounding_once_more_or_in_another_order_would_be_seen() -> None:
    """The mutants: a fold of neighbours, fewer lanes, and a fused multiply-add each change bits of these inputs."""
    residual = values((8, 3072), torch.float32, 1)
    squares = residual * residual
    right = dsm_sums.sum_of_squares(residual)
    segments = squares.unflatten(-1, (3, 256, 4)).sum(-1)
    while segments.shape[-1] > 1:
        segments = segments[..., ::2] + segments[..., 1::2]
    assert not torch.equal(segments[..., 0].sum(-1), right)
    exact = squares.double().sum(-1).float()
    assert not torch.equal(exact, right)
    h, p, z = residual[:, :1000], 0.3, values((8, 1000), torch.float32, 2)
    fused = (h.double() * torch.tensor(p).double() + z.double()).float()
    assert not torch.equal(fused, h * torch.tensor(p) + z)


@triton.jit
def _fold_neighbours(values):
    """As ``kernels.sums.fold``, but each entry onto its neighbour."""
    size: tl.constexpr = values.shape[1]
    if size == 1:
        return tl.reshape(values, (values.shape[0],))
    else:
        pairs = tl.reshape(values, (values.shape[0], size // 2, 2))
        return _fold_neighbours(tl.sum(pairs, axis=2))


@pytest.mark.skipif(DEVICE.type == "cuda", reason="a compiled kernel does not look its functions up again")
def test_a_kernel_that_folds_in_another_order_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the sums of a thousand squares a quarter comes out otherwise: none of 16 would with probability 0.01.
    given = problem((16, 1000))
    check_dsm(given)
    monkeypatch.setattr(dsm, "fold", _fold_neighbours)
    with pytest.raises(AssertionError):
        check_dsm(given)
    monkeypatch.undo()
    given = problem((600, 4))
    monkeypatch.setattr(finishing, "fold", _fold_neighbours)
    with pytest.raises(AssertionError):
        check_dsm(given)
