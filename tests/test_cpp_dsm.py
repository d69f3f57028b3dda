"""The C++ kernels of denoising score matching have the bits of the reference: every instruction set that runs here."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.address import Address
from fastlangevin.kernels.cpp import dsm, native
from fastlangevin.kernels.operands import Objective, Perturbation, Sums, Tables

try:
    SETS = native.instruction_sets()
except RuntimeError as error:
    pytest.skip(f"no C++ kernels: {error}", allow_module_level=True)

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
# The elements at which segments, chunks or whether a sample is cut change, and with them some whose last are few.
ELEMENTS = [1, 2, 3, 4, 5, 8, 27, 33, 64, 128, 129, 257, 513, 784, 1000, 1025, 3072, 5001]
NOISE, LEVEL = 4, 6
ADDRESS: dict[str, Any] = {"seed": 5, "draw": 3, "sample_ids": None, "sample_offset": 0}
PLAIN = Address(**ADDRESS, purpose=NOISE)
NAN = float("nan")


@pytest.fixture(params=SETS, autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    native.use_instruction_set(request.param)
    yield request.param
    native.use_instruction_set(None)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_same(found: Tensor, want: Tensor) -> None:
    """Equal bits, where a NaN is any NaN."""
    assert found.dtype == want.dtype
    assert torch.equal(found.isnan(), want.isnan())
    assert torch.equal(found.nan_to_num(nan=0.0), want.nan_to_num(nan=0.0))


def compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@functools.cache
def tensor(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + seed)).to(dtype)


@functools.cache
def plain_noise(batch: int, elements: int) -> Tensor:
    return reference.randn(elements, torch.arange(batch), seed=5, draw=3, purpose=NOISE)


def sample_numbers(batch: int, sample_ids: Tensor | None, sample_offset: int) -> Tensor:
    return torch.arange(batch) + sample_offset if sample_ids is None else sample_ids


def noise_like(x: Tensor, address: dict[str, Any]) -> Tensor:
    elements = x[0].numel()
    if all(value is ADDRESS[key] for key, value in address.items()):
        return plain_noise(x.shape[0], elements).view(x.shape)
    ids = sample_numbers(x.shape[0], address["sample_ids"], address["sample_offset"])
    return reference.randn(elements, ids, seed=address["seed"], draw=address["draw"], purpose=NOISE).view(x.shape)


def some_labels(batch: int, levels: int) -> Tensor:
    return torch.randint(levels, (batch,), generator=torch.Generator().manual_seed(batch + levels))


def ladder(levels: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.rand(levels, dtype=torch.float64, generator=torch.Generator().manual_seed(levels + seed)).to(dtype)


def with_no_level(tables: tuple[Tensor, ...], labels: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """For the reference: one more level, of NaN, which labels that are none stand for."""
    levels = tables[0].numel()
    nothing = torch.full((1,), NAN, dtype=tables[0].dtype)
    valid = (labels >= 0) & (labels < levels)
    return tuple(torch.cat([table, nothing]) for table in tables), torch.where(valid, labels, levels)


def empty_sums(batch: int, levels: int, dtype: torch.dtype = torch.float32) -> Sums:
    """Full of what no kernel writes."""
    values, level_sums, total = (torch.full(shape, NAN, dtype=dtype) for shape in ((batch,), (levels,), ()))
    return Sums(values, level_sums, torch.full((levels,), -9), total)


def check_perturb(
    x: Tensor,
    *,
    levels: int = 7,
    labels: Tensor | None = None,
    noise: Tensor | None = None,
    out: Tensor | None = None,
    **address: Any,
) -> None:
    address = {**ADDRESS, **address}
    sigmas = ladder(levels, compute_dtype(x))
    out = (torch.empty_like(x) if out is None else out).fill_(NAN)
    drawn = torch.full((x.shape[0],), -9) if labels is None else None
    given = Perturbation(x, sigmas, labels, Address(**address, purpose=NOISE), LEVEL, noise)
    dsm.perturb(out, drawn, given)
    if labels is None:
        ids = sample_numbers(x.shape[0], address["sample_ids"], address["sample_offset"])
        uniform = reference.rand(1, ids, seed=address["seed"], draw=address["draw"], purpose=LEVEL)
        labels = ((uniform[:, 0].double() * 2**24).long() * levels) >> 24
        assert drawn is not None
        assert torch.equal(drawn, labels)
    (sigmas,), labels = with_no_level((sigmas,), labels)
    noise = noise_like(x, address) if noise is None else noise
    assert_same(out, reference.perturb(given._replace(sigmas=sigmas, labels=labels, noise=noise))[0])


def check_dsm(
    output: Tensor,
    *,
    levels: int = 7,
    labels: Tensor | None = None,
    upstream: Tensor | None = None,
    clean: Tensor | None = None,
    noise: Tensor | None = None,
    values: bool = True,
    gradient: Tensor | bool = True,
    **address: Any,
) -> None:
    address = {**ADDRESS, **address}
    dtype, batch = compute_dtype(output), output.shape[0]
    tables = Tables(*(ladder(levels, dtype, seed) for seed in range(3)))
    labels = some_labels(batch, levels) if labels is None else labels
    upstream = torch.tensor(0.7, dtype=dtype) if upstream is None else upstream.to(dtype)
    sums = empty_sums(batch, levels, dtype)
    if gradient is True:
        gradient = torch.empty_like(output)
    if isinstance(gradient, Tensor):
        gradient.fill_(NAN)
    wanted = gradient if isinstance(gradient, Tensor) else None
    given = Objective(output, labels, tables, Address(**address, purpose=NOISE), noise, clean)
    dsm.dsm(sums if values else None, wanted, given, upstream, reference.segment_elements(output[0].numel()))
    if noise is None and clean is None:
        noise = noise_like(output, address)
    wider, labels = with_no_level(tables, labels)
    exact = given._replace(labels=labels, tables=Tables(*wider), noise=noise)
    want, derivative = reference.dsm(exact, upstream, gradient=wanted is not None)
    if values:
        assert_same(sums.values, want.values)
        assert_same(sums.level_sums, want.level_sums[:levels])
        assert torch.equal(sums.level_counts, want.level_counts[:levels])
        assert_same(sums.total, want.total)
    if wanted is not None:
        assert derivative is not None
        assert_same(wanted, derivative)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("elements", ELEMENTS)
def test_sizes(elements: int, dtype: torch.dtype) -> None:
    for batch in (1, 7, 300) if elements < 1000 else (3,):
        x = tensor(batch, elements, dtype=dtype)
        check_perturb(x)
        check_dsm(x, upstream=ladder(batch, torch.float32))


def test_more_segments_than_lanes() -> None:
    """300 segments of 1,024 elements: 44 of the 256 lanes take two."""
    x = tensor(2, 300 * 1024)
    check_perturb(x)
    check_dsm(x)


@pytest.mark.parametrize(("batch", "elements"), [(255, 3), (256, 3), (257, 3), (1024, 1), (1025, 2), (5000, 2)])
def test_batches(batch: int, elements: int) -> None:
    """More samples than lanes, and than are sorted without scratch."""
    for dtype in (torch.float32, torch.float64):
        x = tensor(batch, elements, dtype=dtype)
        check_perturb(x)
        for levels in (1, 2, 300):
            check_dsm(x, levels=levels)


def test_most_levels() -> None:
    # One less: the half of a uniform's last place, (word // 2^9 + 1/2) 2^-23, decides every other level.
    for levels in (2**23 - 1, 2**23):
        check_perturb(tensor(50, 4), levels=levels)
    check_dsm(tensor(50, 4), levels=2**14)


@pytest.mark.parametrize("shape", [(3, 40_001), (40_000, 2), (90, 784), (30, 3, 32, 32)])
def test_threads(shape: tuple[int, ...]) -> None:
    x = tensor(*shape)
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        check_perturb(x)
        check_dsm(x)


def test_large_results_are_written_past_the_caches(instruction_set: str) -> None:
    """2^22 elements and more take another loop, where the result is aligned."""
    if instruction_set != SETS[0]:
        pytest.skip("one address is enough of so many elements")
    for shape in ((2, 2**21), (2**15, 128)):
        x = tensor(*shape)
        check_dsm(x, labels=some_labels(shape[0], 7), gradient=True, noise=x)
        check_perturb(x, labels=some_labels(shape[0], 7), noise=x)
        unaligned = torch.empty(x.numel() + 1)[1:].view(shape)
        check_dsm(x, labels=some_labels(shape[0], 7), gradient=unaligned, noise=x)


@pytest.mark.parametrize("other", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_given_noise_and_clean_samples(dtype: torch.dtype, other: torch.dtype) -> None:
    for shape in ((200, 3), (3, 5, 71), (2, 1100)):
        x, z = tensor(*shape, dtype=dtype), tensor(*shape, dtype=other, seed=1)
        check_perturb(x, labels=some_labels(shape[0], 7), noise=z)
        check_dsm(x, noise=z)
        check_dsm(x, clean=z)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "batch_last": lambda t: t.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "stepped": lambda t: t.repeat_interleave(2, 3)[..., ::2],
    "offset": lambda t: torch.cat([t[:1], t])[1:],
    "cropped": lambda t: torch.nn.functional.pad(t.double(), (1, 2, 3, 1)).to(t.dtype)[..., 3:-1, 1:-2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_layouts(layout: str, dtype: torch.dtype) -> None:
    for shape in ((3, 5, 12, 9), (4, 3, 20, 21)):
        x, z = tensor(*shape, dtype=dtype), tensor(*shape, dtype=dtype, seed=1)
        laid = LAYOUTS[layout]
        assert torch.equal(laid(x), x)
        for each in LAYOUTS.values():
            check_perturb(laid(x), out=each(torch.empty_like(x)))
            check_dsm(laid(x), gradient=each(torch.empty_like(x)))
        check_dsm(x, clean=laid(z))
        check_dsm(laid(x), noise=z.transpose(2, 3).contiguous().transpose(2, 3))
        check_perturb(laid(x), labels=some_labels(shape[0], 7), noise=laid(z))


def test_elements_outside_a_view_are_left_alone() -> None:
    x = tensor(3, 7, 50)
    for view in (lambda t: t[:, 2:5, 3:41], lambda t: t[1:2, ::3, 1::2], lambda t: t[:, :, :5]):
        whole = torch.full_like(x, -77.0)
        touched = torch.zeros_like(x, dtype=torch.bool)
        view(touched)[:] = True
        check_perturb(view(x), out=view(whole))
        assert (whole[~touched] == -77.0).all()
        check_dsm(view(x), gradient=view(whole))
        assert (whole[~touched] == -77.0).all()


@pytest.mark.parametrize("elements", [3, 70, 1100])
def test_addresses(elements: int) -> None:
    x = tensor(40, elements)
    seeds = torch.arange(40) * 2**40 - 7
    ids = torch.arange(40).flip(0) * (2**51 + 3)
    for address in (
        {"seed": 2**64 - 1, "draw": 2**32 - 1, "sample_offset": 2**40 + 5},
        {"seed": torch.tensor(-3), "draw": torch.tensor(9)},
        {"seed": seeds, "draw": torch.tensor(2**32 - 1)},
        {"seed": seeds[::2].repeat_interleave(2), "sample_ids": ids},
        {"seed": torch.arange(80)[::2]},
        {"sample_ids": ids.clone()},
    ):
        check_perturb(x, **address)
        check_perturb(x, labels=some_labels(40, 7), **address)
        check_dsm(x, **address)


@pytest.mark.parametrize("shape", [(20, 3), (20, 100), (20, 1300)])
def test_labels_that_are_no_level_give_nan_and_are_counted_nowhere(shape: tuple[int, ...]) -> None:
    labels = some_labels(20, 7)
    labels[[1, 5, 6, 19]] = torch.tensor([-1, 7, 2**62, -(2**63)])
    check_perturb(tensor(*shape), labels=labels)
    check_dsm(tensor(*shape), labels=labels)
    check_dsm(tensor(*shape), labels=labels, clean=tensor(*shape, seed=1), upstream=ladder(20, torch.float32))


@pytest.mark.parametrize("elements", [2, 100, 784, 1025])
def test_parts_of_the_result(elements: int) -> None:
    for dtype in DTYPES:
        x = tensor(30, elements, dtype=dtype)
        check_dsm(x, gradient=False)
        check_dsm(x, values=False)
        check_dsm(x, values=False, upstream=ladder(30, torch.float32), clean=x + 1)


def test_empty_tensors() -> None:
    labels, table = torch.tensor([2, 0, 2, -1]), torch.ones(3)
    for batch, wanted in ((0, [0, 0, 0]), (4, [1, 0, 2])):
        output, sums = torch.empty(batch, 0 if batch else 5), empty_sums(batch, 3)
        given = Objective(output, labels[:batch], Tables(table, table, table), PLAIN)
        dsm.dsm(sums, torch.empty_like(output), given, torch.ones(()), 4)
        assert sums.level_counts.tolist() == wanted
        assert not torch.cat([sums.values, sums.level_sums, sums.total[None]]).count_nonzero()
        drawn = torch.full((batch,), -9)
        dsm.perturb(output.clone(), drawn, Perturbation(output, table, None, PLAIN, LEVEL))
        assert ((drawn >= 0) & (drawn < 3)).all()


def test_the_order_of_the_sums_is_seen() -> None:
    """The bits of torch's own sums are others, so that the equality above is no matter of course."""
    x = tensor(300, 784)
    labels, one = torch.zeros(300, dtype=torch.int64), torch.ones(1)
    given = Objective(x, labels, Tables(one, one, one), PLAIN, clean=x * 0)
    sums, _ = reference.dsm(given, one[0], gradient=False)
    assert not torch.equal(sums.values, x.square().sum(1) * 0.5)
    check_dsm(x, levels=1, labels=labels, clean=x * 0)


def test_flush_mode_of_the_caller_changes_nothing() -> None:
    """Subnormal inputs, squares and sums are kept, on the calling thread and on the workers."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals")
    torch.set_flush_denormal(False)
    torch.set_num_threads(2)
    x = tensor(20, 5000) * 2.0**-67
    clean, labels = x * 0.5, some_labels(20, 7)
    tables, upstream = Tables(*(ladder(7, torch.float32, seed) for seed in range(3))), torch.tensor(2.0**-70)
    objective = Objective(x, labels, tables, PLAIN, clean=clean)
    want, derivative = reference.dsm(objective, upstream, gradient=True)
    assert derivative is not None
    assert 0 < want.values.min() < want.values.max() < torch.finfo(torch.float32).tiny * 64
    perturbation = Perturbation(x, tables.scale * 2.0**-70, labels, PLAIN, LEVEL, clean)
    perturbed, _ = reference.perturb(perturbation)
    sums, gradient, out = empty_sums(20, 7), torch.empty_like(x), torch.empty_like(x)
    torch.set_flush_denormal(True)
    try:
        dsm.dsm(sums, gradient, objective, upstream, reference.segment_elements(5000))
        dsm.perturb(out, None, perturbation)
    finally:
        torch.set_flush_denormal(False)
    for found, wanted in zip((*sums, gradient, out), (*want, derivative, perturbed), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_after_a_threaded_call() -> None:
    torch.set_num_threads(2)
    x = tensor(20, 4000)
    check_perturb(x)
    check_dsm(x)
    given, out = Perturbation(x, ladder(7, torch.float32), some_labels(20, 7), PLAIN, LEVEL), torch.full_like(x, NAN)
    want, _ = reference.perturb(given)
    child = os.fork()
    if child == 0:
        # torch's own threads do not survive a fork, so nothing but the launcher and NumPy runs here.
        code = 3
        try:
            dsm.perturb(out, None, given)
            code = 0 if bool((out.numpy() == want.numpy()).all()) else 4
        finally:
            os._exit(code)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        threading.Event().wait(0.1)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child did not come back")
    assert os.waitstatus_to_exitcode(status) == 0


def test_rows_beyond_two_to_the_31_elements() -> None:
    """Rows 2^30 elements apart; the memory between them is never touched, so never there."""
    stride, shape = 2**30 + 5, (4, 700)
    # NumPy's memory, which pytest --poison does not fill.
    apart = torch.from_numpy(np.empty(3 * stride + 700, dtype=np.float16)).as_strided(shape, (stride, 1))
    x = tensor(*shape, dtype=torch.float16)
    check_perturb(x, out=apart)
    check_dsm(apart)
    check_dsm(x, gradient=apart)
