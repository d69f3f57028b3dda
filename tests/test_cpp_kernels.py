"""The C++ kernels have the bits of the reference: every instruction set that runs here, dtype, layout, thread count."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from two_terms import formula, update_of

from fastlangevin import reference
from fastlangevin.kernels.address import Address
from fastlangevin.kernels.cpp import native

try:
    SETS = native.instruction_sets()
except RuntimeError as error:
    pytest.skip(f"no C++ kernels: {error}", allow_module_level=True)

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
PURPOSE = 1
ADDRESS: dict[str, Any] = {"seed": 5, "draw": 3, "sample_ids": None, "sample_offset": 0}


@pytest.fixture(params=SETS, autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    native.use_instruction_set(request.param)
    yield request.param
    native.use_instruction_set(None)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def ids_of(batch: int, sample_ids: Tensor | None, sample_offset: int) -> Tensor:
    return torch.arange(batch) + sample_offset if sample_ids is None else sample_ids


def noise_like(
    x: Tensor, *, seed: int | Tensor, draw: int | Tensor, sample_ids: Tensor | None, sample_offset: int
) -> Tensor:
    elements = x[0].numel() if x.shape[0] else 0
    ids = ids_of(x.shape[0], sample_ids, sample_offset)
    return reference.randn(elements, ids, seed=seed, draw=draw, purpose=PURPOSE).reshape(x.shape)


def expand(value: Any, x: Tensor) -> Any:
    """A coefficient as the launcher takes it."""
    if not isinstance(value, Tensor):
        return value
    return value.to(torch.float64 if x.dtype == torch.float64 else torch.float32).expand(x.shape)


def launch(out: Tensor, x: Tensor, score: Tensor, **arguments: Any) -> None:
    """The launcher with usual arguments."""
    native.step(out, update_of(x, score, **{"purpose": PURPOSE, **ADDRESS, **arguments}))


def check(
    x: Tensor,
    score: Tensor,
    *,
    c: Any = 1.0,
    a: Any = 0.3,
    b: Any = 0.7,
    seed: int | Tensor = 5,
    draw: int | Tensor = 3,
    sample_ids: Tensor | None = None,
    sample_offset: int = 0,
    noise: Tensor | None = None,
    mask: Tensor | None = None,
    known: Tensor | None = None,
    out: Tensor | None = None,
) -> None:
    address = {"seed": seed, "draw": draw, "sample_ids": sample_ids, "sample_offset": sample_offset}
    c, a, b = expand(c, x), expand(a, x), expand(b, x)
    z = noise if noise is not None or b is None or not x.numel() else noise_like(x, **address)
    want = formula(x, score, c, a, b, x if z is None else z, mask, known)
    out = torch.empty_like(x) if out is None else out
    launch(out, x, score, c=c, a=a, b=b, noise=noise, mask=mask, known=known, **address)
    assert out.dtype == want.dtype
    assert torch.equal(out, want)


def pair(
    *shape: int, dtype: torch.dtype = torch.float32, score_dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    return (
        torch.randn(shape, generator=generator).to(dtype),
        torch.randn(shape, generator=generator).to(score_dtype or dtype),
    )


@pytest.mark.parametrize(
    "elements", [1, 2, 3, 4, 5, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1023, 1025]
)
def test_sizes(elements: int) -> None:
    for batch in (1, 7, 300 if elements < 20 else 20):
        check(*pair(batch, elements))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 300_001), (40_000, 2), (30_000, 3), (70, 1025), (3, 3, 129, 131)])
def test_threads(shape: tuple[int, ...], threads: int) -> None:
    torch.set_num_threads(threads)
    check(*pair(*shape), c=0.9)


def test_large_results_are_written_past_the_caches(instruction_set: str) -> None:
    """2^22 elements and more take another loop where the result is aligned and not in place."""
    elements = 2**21 + 4
    x, score, out = (torch.full((2, elements), value) for value in (0.3, -0.7, 0.0))
    for c in (1.0, 0.9):
        launch(out, x, score, c=c, a=0.3, b=0.7)
        unaligned, place = torch.empty(2 * elements + 1)[1:].view(2, elements), x.clone()
        launch(unaligned, x, score, c=c, a=0.3, b=0.7)
        launch(place, place, score, c=c, a=0.3, b=0.7)
        assert torch.equal(out, unaligned)
        assert torch.equal(out, place)
        few = x[:, :5000], score[:, :5000]
        want = formula(*few, c, 0.3, 0.7, noise_like(few[0], **ADDRESS))
        assert torch.equal(out[:, :5000], want)


@pytest.mark.parametrize("score_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype: torch.dtype, score_dtype: torch.dtype) -> None:
    for shape in ((3, 5, 71), (200, 3), (2, 1100)):
        x, score = pair(*shape, dtype=dtype, score_dtype=score_dtype)
        check(x, score, c=0.97, a=1e-3, b=0.37)
        check(x, score, b=None)
        check(x, score, noise=torch.randn(shape, dtype=score_dtype))
        check(x, score, mask=torch.rand(shape) < 0.4, known=torch.randn(shape).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_of_halves(dtype: torch.dtype) -> None:
    """Every half and the points between neighbours, subnormals and overflow too, through both conversions."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    for scale in (1.0, 1 + 2.0**-11, 1 + 2.0**-12, 0.4999, 2.0**-10, 2.0**-8):
        x, out, score = values[None], torch.empty_like(values[None]), torch.zeros(1, values.numel())
        launch(out, x, score, c=scale, a=0.0, b=None)
        want = formula(x, score, scale, 0.0, None, None)
        assert torch.equal(out.isnan(), want.isnan())
        assert torch.equal(out[~out.isnan()], want[~want.isnan()])


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
    x, score = pair(3, 5, 12, 9, dtype=dtype)
    known, mask = x + 1, score < 0
    laid = LAYOUTS[layout]
    assert torch.equal(laid(x), x)
    for each in LAYOUTS.values():
        check(laid(x), each(score), out=torch.empty_like(laid(x)))
        check(each(x), laid(score), mask=each(mask), known=laid(known), out=laid(x.clone()))
    check(laid(x), score, noise=laid(known), out=each(x.clone()))


def test_expanded_views() -> None:
    x, score = pair(4, 6, 10, 11)
    check(x[:1].expand(4, -1, -1, -1), score)
    check(x, score[:, :1].expand(-1, 6, -1, -1))
    check(x, score, noise=score[:, :, :1].expand(-1, -1, 10, -1))
    mask = (torch.rand(10, 11) < 0.5).expand(4, 6, 10, 11)
    check(x, score, mask=mask, known=x[:1, :1, :1, :1].expand(4, 6, 10, 11))


def test_in_place() -> None:
    for view in (lambda t: t, lambda t: t.transpose(1, 2), lambda t: t[:, ::2]):
        x, score = pair(5, 40, 33)
        x, score = view(x), view(score)
        want = formula(x, score, 0.9, 0.3, 0.7, noise_like(x, **ADDRESS))
        launch(x, x, score, c=0.9, a=0.3, b=0.7)
        assert torch.equal(x, want)


def test_elements_outside_a_view_are_left_alone() -> None:
    x, score = pair(3, 7, 50)
    for view in (lambda t: t[:, 2:5, 3:41], lambda t: t[1:2, ::3, 1::2], lambda t: t[:, :, :5]):
        whole = torch.full_like(x, -77.0)
        check(view(x), view(score), out=view(whole))
        touched = torch.zeros_like(x, dtype=torch.bool)
        view(touched)[:] = True
        assert (whole[~touched] == -77.0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(6, 3, 8, 9), (40, 2), (2, 1500)])
def test_coefficients(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, score = pair(*shape, dtype=dtype)
    scalar = torch.tensor(0.123456789012345, dtype=torch.float64)
    row = torch.rand(shape[0], dtype=torch.float64).reshape(-1, *[1] * (len(shape) - 1)) + 0.5
    full = torch.rand(shape, dtype=torch.float64)
    some: list[Any] = [1.0, 0.123456789012345, scalar, row, full]
    for one in some:
        check(x, score, c=one)
        check(x, score, a=one, b=one)
        check(x, score, c=full, a=one, b=row, noise=score)
        check(x, score, c=one, a=row, b=None)


SEEDS = [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1]


@pytest.mark.parametrize("shape", [(3, 5), (3, 70), (2, 600)])
@pytest.mark.parametrize("seed", SEEDS)
def test_seeds_draws_and_samples(seed: int, shape: tuple[int, ...]) -> None:
    batch = shape[0]
    bits = torch.tensor(seed - 2**64 if seed >= 2**63 else seed)
    ids = torch.tensor([2**56 - 1, 2**32 + 7, 0])[:batch].contiguous()
    for draw in (0, 1, 2**31, 2**32 - 1):
        check(*pair(*shape), seed=seed, draw=draw, sample_offset=2**40 - 1)
        check(*pair(*shape), seed=seed, draw=torch.tensor(draw), sample_ids=ids)
        check(*pair(*shape), seed=bits, draw=draw, sample_ids=ids)
    each = torch.stack([bits + i * 12345 for i in range(batch)])
    check(*pair(*shape), seed=each)
    check(*pair(*shape), seed=each.repeat_interleave(2)[::2], draw=torch.tensor(9), sample_ids=ids)


@pytest.mark.parametrize("dtype", DTYPES)
def test_randn_and_rand(dtype: torch.dtype) -> None:
    ids = torch.tensor([3, 2**33, 7, 11])
    for shape in ((4,), (4, 1), (4, 6), (4, 3, 7), (4, 77), (4, 1027)):
        for uniform, make in ((False, reference.randn), (True, reference.rand)):
            elements = torch.empty(shape)[0].numel()
            want = make(elements, ids, seed=8, draw=2, purpose=200).reshape(shape).to(dtype)
            for out in (torch.empty(shape, dtype=dtype), torch.empty(*shape, 3, dtype=dtype)[..., 1]):
                native.randn(out, Address(8, 2, ids, 0, 200), uniform=uniform)
                assert torch.equal(out, want)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (4, 0), (3, 0, 7), (0, 0)])
def test_nothing_to_do(shape: tuple[int, ...]) -> None:
    check(*pair(*shape))
    check(*pair(*shape), mask=torch.zeros(shape, dtype=torch.bool), known=torch.zeros(shape))
    native.randn(torch.empty(shape), Address(purpose=PURPOSE, **ADDRESS), uniform=False)


def test_one_dimension_and_many() -> None:
    check(*pair(9))
    check(*pair(2, *[1] * 70, 3))
    check(*pair(*[2] * 11))
    x, score = pair(*[2] * 11)
    order = [0, *range(10, 0, -1)]
    check(x.permute(order), score, out=torch.empty_like(x))


def test_flush_mode_of_the_caller_changes_nothing() -> None:
    """Subnormal inputs and results are kept, on the calling thread and on the workers, and the mode stays as it was."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals")
    torch.set_flush_denormal(False)
    torch.set_num_threads(2)
    tiny = torch.finfo(torch.float32).tiny
    x, score = pair(2, 50_000)
    x, score = x * tiny, score * tiny
    noise = noise_like(x, **ADDRESS)
    want = formula(x, score, 0.5, 0.3, 1e-40, noise)
    half = torch.arange(1, 1000, dtype=torch.int16).view(torch.float16)[None]
    out, out_half = torch.empty_like(x), torch.empty_like(half)
    torch.set_flush_denormal(True)
    try:
        launch(out, x, score, c=0.5, a=0.3, b=1e-40)
        launch(out_half, half, half, c=0.5, a=0.25, b=None)
        still = (torch.full((3,), 1e-38) * 0.1).tolist() == [0.0] * 3
    finally:
        torch.set_flush_denormal(False)
    assert still
    assert torch.equal(out, want)
    assert torch.equal(out_half, formula(half, half, 0.5, 0.25, None, None))


def test_two_python_threads() -> None:
    torch.set_num_threads(2)
    x, score = pair(3, 20_000)
    wants = [formula(x, score, 1.0, 0.3, 0.7, noise_like(x, **{**ADDRESS, "seed": s})) for s in range(2)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(15):
            out = torch.empty_like(x)
            launch(out, x, score, c=1.0, a=0.3, b=0.7, **{**ADDRESS, "seed": seed})
            if not torch.equal(out, wants[seed]):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_after_a_threaded_call() -> None:
    torch.set_num_threads(2)
    x, score = pair(2, 40_000)
    check(x, score)
    out, noise = torch.empty_like(x), noise_like(x, **ADDRESS)
    want = formula(x, score, 1.0, 0.3, 0.7, noise)
    child = os.fork()
    if child == 0:
        # torch's own threads do not survive a fork, so nothing but the launcher and NumPy runs here.
        code = 3
        try:
            for _ in range(3):
                launch(out, x, score, c=1.0, a=0.3, b=0.7)
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
    check(x, score)


def test_offsets_beyond_two_to_the_31(instruction_set: str) -> None:
    """Rows 2^30 elements apart; the memory between them is never touched, so never there."""
    stride, shape = 2**30 + 5, (4, 700)
    # NumPy's memory, which pytest --poison does not fill.
    apart = torch.from_numpy(np.empty(3 * stride + 700, dtype=np.float16)).as_strided(shape, (stride, 1))
    x, score = pair(*shape, dtype=torch.float16)
    check(x, score, out=apart)
    check(apart, score)


def test_a_sample_of_more_than_two_to_the_31_elements(instruction_set: str) -> None:
    """All rows of the sample lie on one another, so that one thread, in order, leaves the last."""
    if instruction_set != SETS[0]:
        pytest.skip("takes seconds, and the counting is shared: the best instruction set is enough")
    torch.set_num_threads(1)
    rows, row = 2**16 + 2, 2**15
    last = torch.empty(row)
    every = last.as_strided((1, rows, row), (0, 0, 1))
    native.randn(every, Address(purpose=PURPOSE, **{**ADDRESS, "sample_offset": 9}), uniform=False)
    block = (rows - 1) * row // 4 + torch.arange(row // 4)
    words = reference.philox(block, *(torch.tensor(word) for word in (9, 3, PURPOSE << 24, 5, 0)))
    want = torch.stack((*reference.normal_pair(*words[:2]), *reference.normal_pair(*words[2:])), dim=-1)
    assert torch.equal(last, want.flatten())


def test_polar_agrees_with_the_reference() -> None:
    edges = [0, 1, 2, 2**29 - 1, 2**29, 2**30, 2**31 - 1, 2**31, 2**31 + 1, 3 * 2**30, 2**32 - 2, 2**32 - 1]
    words = torch.cat(
        [torch.tensor(edges), torch.randint(0, 2**32, (100_003,), generator=torch.Generator().manual_seed(1))]
    )
    length, cosine, sine = native.polar(words.to(torch.int32))
    assert torch.equal(length, reference.radius(words))
    assert torch.equal(torch.stack([cosine, sine]), torch.stack(reference.cos_sin(words)))


def test_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(ValueError, match="does not run here"):
        native.use_instruction_set("mmx")
