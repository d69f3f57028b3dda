"""The Triton kernel of a move has the bits of the reference: any terms, draws, kinds of coefficients and dtypes.

On CUDA where there is a device, else in Triton's interpreter.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastlangevin.kernels.address import MAX_DRAWS, MAX_TERMS, Address, Draw, DrawTable, Term, Update
from fastlangevin.reference import update as reference

pytest.importorskip("triton")

from fastlangevin.kernels.triton import step

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
AT = Address(0x0123456789ABCDEF, 7, None, 0, 1)
NUMBER = 2**32 + 4
WEIGHTS = (0.7, -1.3, 1 / 3, 0.1)
FACTORS = (0.9, 0.3, -1.1, 1 / 7, 0.01, -0.6)
# Neither a multiple of a group of four elements, nor of a program's rows; then one of both.
SHAPES = ((3, 5), (5, 2, 8))


def computing(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@functools.cache
def values(shape: tuple[int, ...], dtype: torch.dtype, salt: int) -> Tensor:
    generator = torch.Generator().manual_seed(salt)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(DEVICE)


def terms_of(
    shape: tuple[int, ...], dtype: torch.dtype, count: int, histories: torch.dtype | None = None
) -> tuple[Term, ...]:
    """A state and others, of another dtype where one is given."""
    kinds = [dtype, *[histories or dtype] * (count - 1)]
    return tuple(Term(FACTORS[place], values(shape, kind, place)) for place, kind in enumerate(kinds))


def table_of(numbers: list[int], dtype: torch.dtype) -> DrawTable:
    weights = [math.sin(1 + place) for place in range(len(numbers))]
    kind = computing(dtype)
    return DrawTable(torch.tensor(weights, dtype=kind, device=DEVICE), torch.tensor(numbers, device=DEVICE))


def draws_of(count: int) -> tuple[Draw, ...]:
    return tuple(Draw(WEIGHTS[place], 3 * place - 1) for place in range(count))


def of(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, count: int = 2, **changes: Any) -> Update:
    """An update with noise."""
    return Update(terms_of(shape, dtype, count), 1.1, AT, NUMBER)._replace(**changes)


def expanded(update: Update) -> Update:
    """With what is of the state's shape expanded to it, as launchers are given it."""
    shape = update.state.shape

    def spread(value: Any) -> Any:
        return value.expand(shape) if isinstance(value, Tensor) else value

    rest = {name: spread(getattr(update, name)) for name in ("b", "noise", "mask", "known")}
    return update._replace(terms=tuple(Term(spread(a), spread(slot)) for a, slot in update.terms), **rest)


def results(update: Update, out: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """What the kernel and the reference write, and their records of faults."""
    fault = update.fault
    other = None if fault is None else fault.clone()
    want = reference.step(update._replace(fault=other))
    if out is None:
        out = torch.full_like(update.state, -3e4)
    own = None if fault is None else fault.clone()
    step.step(out, expanded(update)._replace(fault=own))
    return out, want, own, other


def check(update: Update, out: Tensor | None = None) -> Tensor:
    got, want, found, wanted = results(update, out)
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(torch.signbit(got), torch.signbit(want)) or want.isnan().any()
    if wanted is not None:
        assert found is not None
        assert torch.equal(found, wanted)
    return want


def differs(update: Update, mistaken: Update) -> bool:
    """Whether the kernel's result is not the reference's of a mistaken update: the twin of a test that asks for it."""
    got = torch.empty_like(update.state)
    step.step(got, expanded(update))
    return not torch.equal(got, reference.step(mistaken))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", range(1, MAX_TERMS + 1))
def test_terms(count: int, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    check(of(shape, dtype, count))
    check(of(shape, dtype, count, b=None))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", range(1, MAX_DRAWS + 1))
def test_draws_as_arguments(count: int, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    check(of(shape, dtype, draws=draws_of(count)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [1, 5, 40])
def test_a_table_of_draws(count: int, dtype: torch.dtype) -> None:
    numbers = [(2**32 - 3 + 977 * place) % 2**32 for place in range(count)]
    check(of((3, 5), dtype, draws=table_of(numbers, dtype)))
    if count < 40:
        check(of((5, 2, 8), dtype, MAX_TERMS, draws=table_of(numbers, dtype)))


def test_a_table_has_the_draws_that_arguments_have() -> None:
    at = AT._replace(draw=2**32 - 2)
    table = DrawTable(torch.tensor(WEIGHTS, device=DEVICE), torch.tensor([2**32 - 3, 0, 3, 6], device=DEVICE))
    draws = tuple(Draw(float(weight), offset) for weight, offset in zip(WEIGHTS, (-1, 2, 5, 8), strict=True))
    one, other = (torch.empty((3, 5), device=DEVICE) for _ in range(2))
    step.step(one, of((3, 5), address=at, draws=draws))
    step.step(other, of((3, 5), draws=table))
    assert torch.equal(one, other)


@pytest.mark.parametrize("offset", [0, 1, 5, -7, 2**32 - 8, 2**32 - 7])
def test_one_draw_further_on(offset: int) -> None:
    for weight in (1.0, 0.5):
        check(of((3, 5), draws=(Draw(weight, offset),)))
        at = AT._replace(draw=torch.tensor(7, device=DEVICE))
        check(of((3, 5), address=at, draws=(Draw(weight, offset),)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_zero_of_draws_keeps_its_sign(dtype: torch.dtype) -> None:
    """Each product with a weight of 0 has the sign of a normal, and a sum of negative ones is -0."""
    zero = torch.zeros((40, 4), dtype=dtype, device=DEVICE)
    for count in (1, 2):
        table = table_of([9, 11][:count], dtype)
        table.weights.fill_(0.0)
        want = check(of((40, 4), dtype, terms=(Term(-1.0, zero),), b=1.0, draws=table))
        assert 0 < torch.signbit(want).sum() < want.numel()
    check(of((40, 4), dtype, terms=(Term(-1.0, zero),), b=1.0, draws=(Draw(0.0, 0), Draw(0.0, 1))))


@pytest.mark.parametrize("histories", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_slots_of_other_dtypes(dtype: torch.dtype, histories: torch.dtype) -> None:
    for shape in SHAPES:
        check(of(shape, terms=terms_of(shape, dtype, 4, histories), draws=draws_of(2)))


def test_every_slot_of_its_own_dtype() -> None:
    for dtype in DTYPES:
        kinds = (dtype, torch.bfloat16, torch.float64, torch.float32, torch.float16, torch.bfloat16)
        terms = tuple(Term(FACTORS[place], values((3, 8), kind, place)) for place, kind in enumerate(kinds))
        check(of((3, 8), terms=terms))


def views() -> dict[str, Callable[[Tensor], Tensor]]:
    """A tensor (4, 3, 2, 6) with the same values in another memory layout."""

    def strided(x: Tensor) -> Tensor:
        wide = x.new_zeros(*x.shape[:-1], 3 * x.shape[-1])
        wide[..., 1::3] = x
        return wide[..., 1::3]

    def offset(x: Tensor) -> Tensor:
        flat = x.new_zeros(x.numel() + 1)
        flat[1:] = x.flatten()
        return flat[1:].view(x.shape)

    return {
        "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
        "reversed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        "strided": strided,
        "misaligned": offset,
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", views())
def test_memory_layouts(name: str, dtype: torch.dtype) -> None:
    shape = (4, 3, 2, 6)
    view, given = views()[name], of(shape, dtype, MAX_TERMS, draws=table_of([3, 4], dtype))
    kinds = tuple(views().values())
    # Each slot in an arrangement of its own, and each coefficient in that of the next.
    factors = [values(shape, computing(dtype), 20 + place) for place in range(MAX_TERMS)]
    mixed = tuple(
        Term(kinds[(place + 1) % 4](factors[place]), kinds[place % 4](slot))
        for place, (_, slot) in enumerate(given.terms)
    )
    check(given._replace(terms=mixed), out=view(torch.zeros(shape, dtype=dtype, device=DEVICE)))
    check(given._replace(terms=tuple(Term(a, view(slot)) for a, slot in given.terms)))
    check(given, out=view(torch.zeros(shape, dtype=dtype, device=DEVICE)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5, 2, 8), (5, 3, 3)], ids=str)
@pytest.mark.parametrize("first", range(4))
def test_kinds_of_coefficients(first: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    kind = computing(dtype)
    every: list[float | Tensor] = [
        1 / 3,
        torch.tensor(0.7, dtype=kind, device=DEVICE),
        values((5, 2), kind, 6)[:, 1].reshape(-1, 1, 1),
        values(shape, kind, 7),
    ]
    slots = [slot for _, slot in terms_of(shape, dtype, MAX_TERMS)]
    terms = tuple(Term(every[(first + place) % 4], slot) for place, slot in enumerate(slots))
    check(of(shape, terms=terms, b=every[(first + 3) % 4], draws=draws_of(2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("noise", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_noise_given(noise: torch.dtype, dtype: torch.dtype) -> None:
    for shape in SHAPES:
        check(of(shape, dtype, 3, noise=values(shape, noise, 30), draws=draws_of(3)))
        check(of(shape, dtype, 3, noise=values(shape, noise, 30), b=None))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 2, 8), (3, 2, 3)], ids=str)
def test_mask_and_known(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    mask, known = values(shape, torch.float32, 8) > 0, values(shape, dtype, 9)
    check(of(shape, dtype, 4, mask=mask, known=known))
    check(of(shape, dtype, 4, mask=mask[:1], known=known[:, :1], draws=draws_of(2)))
    # The state's values would be those of another slot.
    assert differs(of(shape, dtype, 4, mask=mask, known=known), of(shape, dtype, 4, mask=mask, known=~mask * known))


def broken(shape: tuple[int, ...], dtype: torch.dtype, count: int) -> Update:
    """An update that fails in the samples 1 and 3 of 6, by its last slot and by one of its coefficients."""
    terms = list(terms_of(shape, dtype, count))
    slot = terms[-1].slot.clone()
    slot[1].view(-1)[-1] = math.inf
    factor = torch.ones(shape[0], dtype=computing(dtype), device=DEVICE)
    factor[3] = math.nan
    terms[-1] = Term(factor.reshape(-1, *[1] * (len(shape) - 1)), slot)
    # Sample 0 has an earlier fault, 1 a later one, 2 this very one, and 5 one that is older still.
    fault = torch.tensor([NUMBER - 1, NUMBER + 5, NUMBER, reference.NO_FAULT, reference.NO_FAULT, 0], device=DEVICE)
    return of(shape, terms=tuple(terms), fault=fault)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("freeze", [False, True], ids=("watched", "frozen"))
@pytest.mark.parametrize("shape", [(6, 5), (6, 2, 8)], ids=str)
def test_faults_have_the_number_and_not_the_draw(shape: tuple[int, ...], freeze: bool, dtype: torch.dtype) -> None:
    for number in (NUMBER, torch.tensor(NUMBER, device=DEVICE)):
        given = broken(shape, dtype, 3)._replace(freeze=freeze, number=number)
        got, want, found, wanted = results(given)
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
        assert found is not None
        assert wanted is not None
        assert torch.equal(found, wanted)
        assert found.tolist() == [NUMBER - 1, NUMBER, NUMBER, NUMBER, reference.NO_FAULT, 0]
        frozen = got == given.state
        assert bool(frozen[[0, 5]].all()) == freeze
        assert not frozen[4].all()
        # The draw in its place would freeze and mark others.
        mistaken = given._replace(number=AT.draw, fault=given.fault.clone())
        assert not torch.equal(reference.step(mistaken).nan_to_num(), got.nan_to_num()) or not freeze
        assert mistaken.fault.tolist() != found.tolist()


def addresses() -> list[Address]:
    ids = torch.tensor([0, 2**32 - 1, 2**32, 2**56 - 1, 5], device=DEVICE)
    seeds = torch.tensor([0, -1, 2**62 + 5, 3, 1 << 32], device=DEVICE)
    draw = torch.tensor(2**32 - 2, device=DEVICE)
    return [
        Address(2**64 - 1, 2**32 - 2, ids, 0, 255),
        Address(seeds, draw, None, 2**40, 1),
        Address(seeds[1], draw, torch.stack((ids, ids), 1)[:, 0], 0, 128),
        Address(1, draw, None, 2**56 - 5, 1),
    ]


@pytest.mark.parametrize("place", range(4))
def test_addresses(place: int) -> None:
    at = addresses()[place]
    for shape in ((5, 3), (5, 8)):
        check(of(shape, address=at))
        check(of(shape, address=at, draws=draws_of(MAX_DRAWS)))
        check(of(shape, address=at, draws=table_of([5, 2**32 - 1, 0], torch.float32)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(300, 4), (90, 12), (40, 27), (17, 136), (1, 5001)], ids=str)
def test_in_place_with_more_than_one_program(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    given = of(shape, dtype, 3, draws=draws_of(2))
    assert math.prod(step.prepare(given.state, given).grid) > 1
    own = given.state.clone()
    mask = values(shape, torch.float32, 40) > 1
    check(given._replace(terms=(Term(0.9, own), *given.terms[1:]), mask=mask, known=given.terms[1].slot), out=own)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_place_with_every_operand(dtype: torch.dtype) -> None:
    for shape in ((6, 8), (6, 3)):
        given = broken(shape, dtype, MAX_TERMS)
        own = given.state.clone()
        terms = (given.terms[0]._replace(slot=own), *given.terms[1:])
        mask, known = values(shape, torch.float32, 8) > 1, values(shape, dtype, 9)
        check(given._replace(terms=terms, mask=mask, known=known, freeze=True, draws=draws_of(3)), out=own)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)], ids=str)
def test_empty(shape: tuple[int, ...]) -> None:
    x = torch.empty(shape, device=DEVICE)
    step.step(x, Update((Term(1.0, x),) * 3, 1.0, AT, 0, draws_of(2)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_special_values(dtype: torch.dtype) -> None:
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, torch.finfo(dtype).tiny, 0.5]
    x = torch.tensor([special, special[::-1]], dtype=dtype, device=DEVICE)
    ones = torch.ones_like(x)
    # Of infinities of either sign the interpreter's NumPy would warn.
    check(of((2, 8), terms=(Term(1.0, ones), Term(0.5, x), Term(2.0, x)), b=None))
    check(of((2, 8), terms=(Term(-1.5, x),), draws=draws_of(2)))


def test_many_operands_of_strided_elements_have_fewer_elements_a_thread() -> None:
    shape = (4, 3, 8, 8)
    given = of(shape, count=6)
    last = [slot.contiguous(memory_format=torch.channels_last) for _, slot in given.terms]
    factors = [values(shape, torch.float32, 20 + place) for place in range(6)]
    two, three, six = (tuple(Term(0.5, slot) for slot in (last[0], *last[1:count])) for count in (2, 3, 6))
    every = tuple(Term(factor, slot) for factor, slot in zip(factors, last, strict=True))
    table, several = table_of([3, 4], torch.float32), draws_of(2)
    known = {"mask": factors[0] > 0, "known": factors[1]}
    for update, warps in (
        (given, 2),
        (given._replace(draws=table), 2),
        (given._replace(terms=two), 2),
        (given._replace(terms=two, **known), 4),
        (given._replace(terms=two, draws=several), 4),
        (given._replace(terms=two, draws=table), 4),
        (given._replace(terms=three), 4),
        (given._replace(terms=six), 4),
        (given._replace(terms=six, **known), 4),
        (given._replace(terms=every), 8),
    ):
        assert step.prepare(factors[0], update).launch.num_warps == warps
    doubled = tuple(Term(a.double(), slot.double()) for a, slot in every)
    assert step.prepare(doubled[0].slot, given._replace(terms=doubled)).launch.num_warps == 4
    deep = values((4, 3, 2, 5, 2), torch.float32, 1)
    turned = deep.permute(0, 4, 3, 2, 1).contiguous().permute(0, 4, 3, 2, 1)
    assert step.prepare(deep, of(deep.shape, terms=(Term(1.0, turned),))).launch.num_warps == 4
    assert step.prepare(deep, of(deep.shape, terms=(Term(1.0, turned),), draws=several)).launch.num_warps == 8
    assert step.prepare(deep, of(deep.shape, terms=(Term(1.0, turned),) * 3)).launch.num_warps == 8
    assert step.prepare(deep, of(deep.shape, terms=(Term(1.0, deep),))).launch.num_warps == 2


def test_mistakes_that_equal_bits_would_show() -> None:
    """The twins of the tests above: each mistake changes bits of these inputs."""
    shape = (8, 64)
    given = of(shape, count=4, draws=draws_of(3))
    (first, second, third, last), draws = given.terms, given.draws
    assert not differs(given, given)
    assert differs(given, given._replace(terms=(first, third, second, last)))
    assert differs(given, given._replace(terms=(first, second, third)))
    assert differs(given, given._replace(draws=draws[::-1]))
    assert differs(given, given._replace(draws=(draws[0], draws[1], Draw(1.0, draws[2].offset))))
    assert differs(given, given._replace(draws=(*draws[:2], Draw(draws[2].weight, draws[2].offset + 1))))
    table = table_of([5, 6, 7], torch.float32)
    tabled = given._replace(draws=table)
    assert not differs(tabled, tabled)
    assert differs(tabled, tabled._replace(draws=table._replace(numbers=table.numbers + 1)))
    assert differs(tabled, tabled._replace(draws=table._replace(numbers=table.numbers.roll(1))))
    # Sums in another order, weights that are rounded elsewhere, and products that are not rounded at all.
    slots = [slot for _, slot in given.terms]
    z = reference.noise(given)
    a = [torch.tensor(factor) for factor, _ in given.terms]
    assert z is not None
    got = torch.empty_like(slots[0])
    step.step(got, given)
    assert torch.equal(got, ((a[0] * slots[0] + a[1] * slots[1]) + a[2] * slots[2] + a[3] * slots[3]) + 1.1 * z)
    assert not torch.equal(got, (a[0] * slots[0] + a[1] * slots[1]) + (a[2] * slots[2] + a[3] * slots[3]) + 1.1 * z)
    assert not torch.equal(got, 1.1 * z + a[0] * slots[0] + a[1] * slots[1] + a[2] * slots[2] + a[3] * slots[3])
    each = [reference.normals(AT._replace(draw=AT.draw + draw.offset), shape, DEVICE) for draw in draws]
    moved = a[0] * slots[0] + a[1] * slots[1] + a[2] * slots[2] + a[3] * slots[3]
    folded = sum((draw.weight * 1.1) * one for draw, one in zip(draws, each, strict=True))
    assert not torch.equal(got, moved + folded)
    weights = [torch.tensor(draw.weight) for draw in draws]
    exact = sum(weight.double() * one.double() for weight, one in zip(weights, each, strict=True)).float()
    assert not torch.equal(got, moved + 1.1 * exact)
    halves = [weight.bfloat16().float() for weight in weights]
    coarse = halves[0] * each[0] + halves[1] * each[1] + halves[2] * each[2]
    assert not torch.equal(got, moved + 1.1 * coarse)


def test_fp64_weights_are_not_narrowed() -> None:
    given = of((3, 8), torch.float64, draws=draws_of(2))
    narrow = tuple(Draw(torch.tensor(draw.weight).item(), draw.offset) for draw in draws_of(2))
    assert narrow != draws_of(2)
    assert differs(given, given._replace(draws=narrow))
