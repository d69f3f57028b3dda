"""The steps of a chain as functions of tensors on its device, so that a captured one can be replayed for the others.

What differs from step to step is read from the device: the draw number, and by the step's place in a table its level
and its coefficients. The step moves both on, so that a replay needs nothing of the host but its launch. The seed and
the sample ids are those of the chain and stay as they are. A step is :meth:`Stepper.make` either way, the same
operations on the same numbers: a coefficient is rounded to the computing dtype when it goes into the table, as the
kernels would have rounded it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.samplers.stepping import Stepper, Surroundings
from fastlangevin.schemes import Clamp, Evaluate, Measure, Move, Row, Step

__all__ = ["DeviceSteps", "Kind"]

# Steps in a table: enough that filling it is nothing beside them, and small where a chain is of millions.
WINDOW = 4096


class Kind(NamedTuple):
    """What must be the same of two steps for one function to make both.

    Attributes:
        rows: those of a step without its numbers, which stand in the table: of a move the names of its slots, and for b
            0 or None.
        labelled: whether the network is given a level.
    """

    rows: tuple[Row | tuple[Any, ...], ...]
    labelled: bool

    @property
    def evaluations(self) -> int:
        """Calls of the network."""
        at = [row[-1] if type(row) is tuple else getattr(row, "evaluate", None) for row in self.rows]
        return sum(each is not None for each in at)

    @property
    def width(self) -> int:
        """Numbers of a step in the table."""
        return sum(len(row[1]) + 1 for row in self.rows if type(row) is tuple)


def _kind(step: Step) -> Kind:
    rows = [row if isinstance(row, Clamp) else _without_numbers(row) for row in step.rows]
    return Kind(tuple(rows), step.level is not None)


def _without_numbers(row: Move | Measure) -> Measure | tuple[Any, ...]:
    at = row.evaluate
    evaluate = None if at is None else Evaluate(at.slot, at.into)
    if isinstance(row, Measure):
        return Measure(row.snr, row.norm, row.alpha, evaluate or Evaluate())
    return row.out, tuple(row.terms), row.b is not None, row.draw, evaluate


def _numbers(step: Step) -> list[float]:
    moves = [row for row in step.rows if isinstance(row, Move)]
    return [number for row in moves for number in (*row.terms.values(), row.b or 0.0)]


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
        width = max(_kind(self.scheme.make(number)).width for number in range(self.window))
        self.table = torch.zeros((self.window, max(width, 1)), dtype=compute_dtype(x), device=x.device)
        self.levels = torch.zeros(self.window, dtype=torch.int64, device=x.device)
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
        width = self.table.shape[1]
        rows = [_numbers(step) for step in steps]
        if any(len(row) > width for row in rows):
            raise ValueError("later steps have more rows than the first ones")
        padded = [[*row, *[0.0] * (width - len(row))] for row in rows]
        table = torch.tensor(padded, dtype=self.table.dtype, device="cpu")
        if not bool(table.isfinite().all()):
            raise ValueError(f"a coefficient is not finite in {self.table.dtype}")
        self.table[: len(steps)].copy_(table)
        levels = [step.level or 0 for step in steps]
        self.levels[: len(steps)].copy_(torch.tensor(levels, dtype=torch.int64, device="cpu"))
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
        level = self.levels.index_select(0, place[: self.batch]) if kind.labelled else None
        numbers = iter(self.table.index_select(0, place[:1])[0].unbind())
        rows = tuple(_with_numbers(row, numbers, level) for row in kind.rows)
        draws = self.scheme.draws_per_step
        address = self.stepper.address._replace(draw=number if draws == 1 else number * draws)
        self.stepper.make(Step(rows), number, Surroundings(address), {"x": x})
        counters.add_(1)


def _with_numbers(row: Any, numbers: Any, level: Any) -> Row:
    if isinstance(row, Clamp):
        return row
    if isinstance(row, Measure):
        return Measure(row.snr, row.norm, row.alpha, row.evaluate._replace(level=level))
    out, names, noisy, draw, evaluate = row
    terms = {name: next(numbers) for name in names}
    b = next(numbers)
    return Move(out, terms, b if noisy else None, draw, None if evaluate is None else evaluate._replace(level=level))
