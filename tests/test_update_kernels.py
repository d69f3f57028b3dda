"""The kernel of a move has the bits of the reference, whatever its terms, draws, factors and layouts are."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastlangevin import reference, runtime
from fastlangevin.kernels.address import Address, Draw, DrawTable, Term, Update

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SHAPES = [(3,), (2, 5), (4, 3, 8, 8), (1, 513), (3, 1025), (2, 3, 7), (64, 2)]
DEVICE = torch.device("cpu")


class Made:
    """Updates of every kind, one after the other, from a seed."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def slot(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        kind = self.choose.random()
        if kind < 0.15 and len(shape) > 1:
            return self.normal(*shape).to(dtype).transpose(0, 1).contiguous().transpose(0, 1)
        return self.normal(*shape, 2).to(dtype)[..., 1] if kind < 0.25 else self.normal(*shape).to(dtype)

    def factor(self, shape: tuple[int, ...], dtype: torch.dtype) -> float | Tensor:
        kind = self.choose.random()
        if kind < 0.6:
            return self.choose.choice([1.0, 0.3, self.choose.gauss(0, 1)])
        sizes = () if kind < 0.7 else (shape[0], *[1] * (len(shape) - 1)) if kind < 0.85 else shape
        return self.normal(*sizes).to(dtype).expand(shape)

    def draws(self, dtype: torch.dtype) -> Any:
        kind = self.choose.random()
        if kind < 0.3:
            return (Draw(1.0, 0),)
        if kind < 0.7:
            weights = [
                self.choose.choice([1.0, 0.5, 0.0, self.choose.gauss(0, 1)]) for _ in range(self.choose.randint(1, 4))
            ]
            return tuple(Draw(weight, self.choose.randint(0, 5)) for weight in weights)
        count = self.choose.choice([1, 2, 5])
        # Of weights of 0 the sum is a zero, whose sign is that of normals.
        return DrawTable(
            self.normal(count).to(dtype) * self.choose.choice([0, 1, 1]),
            torch.randint(0, 2**32, (count,), generator=self.generator),
        )

    def address(self, batch: int) -> Address:
        ids = torch.randint(0, 2**40, (batch,), generator=self.generator)
        seeds = torch.randint(-(2**62), 2**62, (batch,), generator=self.generator)
        seed = self.choose.choice([5, 2**64 - 1, torch.tensor(-7), seeds])
        draw = self.choose.choice([0, 9, 2**31, torch.tensor(77)])
        chosen = self.choose.choice([None, None, ids])
        return Address(seed, draw, chosen, self.choose.choice([0, 2**33]) if chosen is None else 0, 1)

    def update(self) -> Update:
        choose, shape, dtype = self.choose, self.choose.choice(SHAPES), self.choose.choice(DTYPES)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        dtypes = [dtype, *(choose.choice([dtype, *DTYPES]) for _ in range(choose.randint(0, 5)))]
        terms = tuple(Term(self.factor(shape, wide), self.slot(shape, each)) for each in dtypes)
        if choose.random() < 0.1:
            terms = tuple(Term(-0.0, slot.abs()) for _, slot in terms)
        b = None if choose.random() < 0.15 else self.factor(shape, wide)
        noise = self.slot(shape, wide) if b is not None and choose.random() < 0.12 else None
        number = choose.choice([4, 2**32 + 4, 2**62])
        mask = known = fault = None
        if choose.random() < 0.25:
            mask, known = self.normal(*shape) < 0, self.slot(shape, dtype)
        if choose.random() < 0.4:
            earlier = number + choose.choice([-3, 0, 5])
            fault = torch.where(self.normal(shape[0]) < -0.5, earlier, reference.NO_FAULT)
            if choose.random() < 0.4:
                terms[-1].slot[(0,) * len(shape)] = torch.inf
        return Update(
            terms,
            b,
            self.address(shape[0]),
            choose.choice([number, torch.tensor(number)]),
            self.draws(wide),
            noise,
            mask,
            known,
            fault,
            fault is not None and choose.random() < 0.5,
        )


def in_place(update: Update) -> Update:
    """The same with a state of its own, in every term that has it."""
    state = update.state.clone()
    terms = tuple(Term(a, state if slot is update.state else slot) for a, slot in update.terms)
    return update._replace(terms=terms)


def different(step: Callable[..., None], update: Update, spoilt: Callable[[Update], Update], over: bool) -> bool:
    """Whether a launcher has other bits than the reference has of an update, which a mistake may have spoilt."""
    records = [None if update.fault is None else update.fault.clone() for _ in range(2)]
    want = reference.step(spoilt(update._replace(fault=records[0])))
    given = in_place(update._replace(fault=records[1])) if over else update._replace(fault=records[1])
    out = given.state if over else torch.empty_like(update.state)
    step(out, given)
    same = torch.equal(want.isnan(), out.isnan()) and torch.equal(want.nan_to_num(), out.nan_to_num())
    same &= torch.equal(want.signbit() & ~want.isnan(), out.signbit() & ~want.isnan())
    return not (same and (update.fault is None or torch.equal(*records)))  # type: ignore[arg-type]


def count(impl: str, trials: int, spoilt: Callable[[Update], Update] = lambda update: update) -> int:
    step = runtime.choose(impl, DEVICE)[1].step
    made = Made(trials)
    return sum(different(step, made.update(), spoilt, over=bool(trial % 2)) for trial in range(trials))


def test_the_bits_are_those_of_the_reference(impl: str) -> None:
    if impl == "reference":
        pytest.skip("against itself")
    assert count(impl, 16 if impl == "triton" else 600) == 0


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**32 + 5, 2**62, 2**63 - 2])
def test_the_number_of_a_step_has_64_bits(number: int, impl: str) -> None:
    step = runtime.choose(impl, DEVICE)[1].step
    state, score, out = torch.ones(4, 3), torch.full((4, 3), torch.inf), torch.empty(4, 3)
    for given, freeze in itertools.product((number, torch.tensor(number)), (False, True)):
        fault = torch.tensor([number - 1, number, number + 1, reference.NO_FAULT])
        update = Update((Term(1.0, state), Term(1.0, score)), None, Address(1, 7, None, 0, 1), given)
        step(out, update._replace(fault=fault, freeze=freeze))
        assert fault.tolist() == [number - 1, number, number, number]
        assert out.isfinite().all(1).tolist() == [freeze, False, False, False]


def _other_order(update: Update) -> Update:
    first, *others = update.terms
    return update._replace(terms=(first, *reversed(others)))


def _other_weights(update: Update) -> Update:
    draws = update.draws
    if isinstance(draws, DrawTable):
        return update._replace(draws=DrawTable(draws.weights * 1.0000002, draws.numbers))
    return update._replace(draws=tuple(Draw(weight * 1.0000002, offset) for weight, offset in draws))


def _other_offsets(update: Update) -> Update:
    draws = update.draws
    if isinstance(draws, DrawTable):
        return update._replace(draws=DrawTable(draws.weights, draws.numbers.roll(1)))
    return update._replace(draws=tuple(Draw(weight, offset * 2) for weight, offset in draws))


@pytest.mark.parametrize(
    "mistake",
    [
        _other_order,
        _other_weights,
        _other_offsets,
        lambda update: update._replace(number=update.address.draw),
        lambda update: update._replace(number=update.number & 0xFFFFFFFF),
        lambda update: update._replace(terms=update.terms[:-1]) if len(update.terms) > 1 else update,
    ],
    ids=["order", "weights", "offsets", "number", "half a number", "a term less"],
)
def test_a_mistake_is_seen(mistake: Callable[[Update], Update]) -> None:
    assert count("cpp", 200, mistake) > 10


def test_every_instruction_set_and_any_number_of_threads() -> None:
    from fastlangevin.kernels.cpp import native

    threads = torch.get_num_threads()
    try:
        for name in native.instruction_sets():
            native.use_instruction_set(name)
            assert count("cpp", 150) == 0, name
        native.use_instruction_set(None)
        torch.set_num_threads(2)
        x, made = torch.zeros(3, 40_000), Made(0)
        for draws in ((Draw(1.0, 0),), tuple(Draw(0.5, place) for place in range(4))):
            terms = tuple(Term(0.5, made.normal(3, 40_000).float()) for _ in range(3))
            update = Update(terms, 0.7, made.address(3), 0, draws)
            native.step(x, update)
            assert torch.equal(x, reference.step(update))
    finally:
        native.use_instruction_set(None)
        torch.set_num_threads(threads)
