"""The steps of a chain as functions of tensors on its device, so that a captured one can be replayed for the others.

What differs from step to step is read from the device: the draw number, and by the step's place in a table its level
and its coefficients. The step moves both on, so that a replay needs nothing of the host but its launch. The seed and
the sample ids are those of the chain and stay as they are. A step is :meth:`Stepper.make` either way, the same
operations on the same numbers: a coefficient is rounded to the computing dtype when it goes into the table, as the
kernels would have rounded it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.samplers.stepping import Making, Stepper, Surroundings
from fastlangevin.schemes import Apply, Clamp, Evaluate, Measure, Move, Row, Step

__all__ = ["DeviceSteps", "Kind"]

# Steps in a table: enough that filling it is nothing beside them, and small where a chain is of millions.
WINDOW = 4096


class Form(NamedTuple):
    """A move without its numbers, which stand in the table: the factor of each slot, then b."""

    out: str
    slots: tuple[str, ...]
    noisy: bool
    draw: int
    evaluate: Evaluate | None


class Kind(NamedTuple):
    """The rows of steps that one function makes.

    The level of a labelled evaluation is 0, and so is the alpha of a measured row unless it is 1: they stand in tables.
    """

    rows: tuple[Form | Measure | Clamp, ...]

    @property
    def evaluations(self) -> int:
        """Calls of the network."""
        return sum(row.evaluate is not None for row in self.rows)

    @property
    def width(self) -> int:
        """Numbers of a step in the table."""
        return sum(len(row.slots) + 1 for row in self.rows if isinstance(row, Form))


def _kind(step: Step) -> Kind:
    return Kind(tuple(_without_numbers(row) for row in step.rows))


def _without_numbers(row: Row) -> Form | Measure | Clamp:
    if isinstance(row, Apply):
        raise ValueError(f"{row.name} is a function, which is not captured")
    if isinstance(row, Clamp):
        return row
    at = row.evaluate
    evaluate = None if at is None else Evaluate(at.slot, at.into, None if at.level is None else 0)
    if isinstance(row, Measure):
        assert evaluate is not None
        return replace(row, evaluate=evaluate, alpha=float(row.alpha == 1))
    return Form(row.out, tuple(row.terms), row.b is not None, row.draw, evaluate)


def _numbers(step: Step) -> list[float]:
    moves = [row for row in step.rows if isinstance(row, Move)]
    return [number for row in moves for number in (*row.terms.values(), row.b or 0.0)]


def _levels(step: Step) -> list[int]:
    return [row.evaluate.level or 0 for row in step.rows if row.evaluate is not None]


def _alphas(step: Step) -> list[float]:
    return [row.alpha for row in step.rows if isinstance(row, Measure) and row.alpha != 1]


def _filled(rows: list[list[float]] | list[list[int]], width: int, dtype: torch.dtype) -> Tensor:
    """A table of rows, zeros behind the shorter ones."""
    if any(len(row) > width for row in rows):
        raise ValueError("later steps have more rows than the first ones")
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype, device="cpu")


class DeviceSteps:
    """The steps of a chain by their kind.

    ``counters`` is the step's number, then the place in the table, once for each sample: so that one addition moves all
    on and one lookup makes the labels ``(B,)``.
    """

    def __init__(self, stepper: Stepper) -> None:
        x = stepper.x
        self.stepper = stepper
        self.scheme = stepper.scheme
        self.batch = x.shape[0]
        self.window = min(WINDOW, self.scheme.total)
        kinds = {_kind(self.scheme.make(number)) for number in range(self.window)}
        width, evaluations = max(kind.width for kind in kinds), max(kind.evaluations for kind in kinds)
        self.table = torch.zeros((self.window, max(width, 1)), dtype=compute_dtype(x), device=x.device)
        # Of each evaluation of a step.
        self.levels = torch.zeros((max(evaluations, 1), self.window), dtype=torch.int64, device=x.device)
        # Of measured rows. In fp64, since they are factors of a coefficient and not one.
        alphas = max(len(_alphas(self.scheme.make(number))) for number in range(self.window))
        self.alphas = torch.zeros((alphas, self.window), dtype=torch.float64, device=x.device)
        self.counters = torch.zeros(1 + max(self.batch, 1), dtype=torch.int64, device=x.device)
        self.kinds: list[Kind] = []
        self.counts: Counter[Kind] = Counter()
        self.first = 0

    def kind(self, number: int) -> Kind:
        """The kind of a step, whose table is filled if it is another than the last one's."""
        if not 0 <= number - self.first < len(self.kinds):
            self._fill(number)
        return self.kinds[number - self.first]

    def _fill(self, number: int) -> None:
        steps = [self.scheme.make(each) for each in range(number, min(number + self.window, self.scheme.total))]
        table = _filled([_numbers(step) for step in steps], self.table.shape[1], self.table.dtype)
        if not bool(table.isfinite().all()):
            raise ValueError(f"a coefficient is not finite in {self.table.dtype}")
        self.table[: len(steps)].copy_(table)
        levels = _filled([_levels(step) for step in steps], self.levels.shape[0], torch.int64)
        self.levels[:, : len(steps)].copy_(levels.T)
        alphas = _filled([_alphas(step) for step in steps], self.alphas.shape[0], torch.float64)
        self.alphas[:, : len(steps)].copy_(alphas.T)
        self.kinds = [_kind(step) for step in steps]
        self.counts = Counter(self.kinds)
        self.first = number

    def last(self, kind: Kind) -> int:
        """The last step of a kind that the table has."""
        return self.first + len(self.kinds) - 1 - self.kinds[::-1].index(kind)

    def seek(self, number: int, counters: Tensor | None = None) -> None:
        """Makes a step that the table has the next one. By fills, which the host need not wait for."""
        counters = self.counters if counters is None else counters
        counters[0].fill_(number)
        counters[1:].fill_(number - self.first)

    def step(self, kind: Kind, x: Tensor, counters: Tensor) -> None:
        """The next step of ``x``, which must be of the kind, by ``counters``, which it moves on."""
        number, place = counters[0], counters[1:]
        numbers = iter(self.table.index_select(0, place[:1])[0].unbind())
        levels = (each.index_select(0, place[: self.batch]) for each in self.levels)
        alphas = (each.index_select(0, place[: self.batch]) for each in self.alphas)
        rows = tuple(_with_numbers(row, numbers, levels, alphas) for row in kind.rows)
        draws, first = self.scheme.draws_per_step, self.scheme.first_draw
        draw = number if draws == 1 else number * draws
        address = self.stepper.address._replace(draw=draw + first if first else draw)
        self.stepper.make(Making(Step(rows), number, Surroundings(address), {"x": x}))
        counters.add_(1)


def _with_numbers(
    row: Form | Measure | Clamp, numbers: Iterator[Any], levels: Iterator[Any], alphas: Iterator[Any]
) -> Row:
    """A row whose numbers, levels and alphas are the next of those in the tables."""
    if isinstance(row, Clamp):
        return row
    evaluate = row.evaluate
    if evaluate is not None:
        level = next(levels)
        evaluate = evaluate if evaluate.level is None else evaluate._replace(level=level)
    if isinstance(row, Measure):
        assert evaluate is not None
        return replace(row, evaluate=evaluate, alpha=row.alpha or next(alphas))
    terms = {name: next(numbers) for name in row.slots}
    b = next(numbers)
    return Move(row.out, terms, b if row.noisy else None, row.draw, evaluate)
