"""Makes the steps of a chain one by one: calls the score, then makes the rows up to the next evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastlangevin.kernels.address import ONE_DRAW, Address, Term, Update
from fastlangevin.noise import MAX_DRAW
from fastlangevin.ops import NO_FAULT, move, quick
from fastlangevin.ops.arguments import like_state
from fastlangevin.rules import Coefficients
from fastlangevin.samplers.chain import ChainState
from fastlangevin.samplers.inpainting import Region
from fastlangevin.samplers.options import ChainOptions
from fastlangevin.samplers.signal import measured
from fastlangevin.samplers.watching import Watch, not_finite
from fastlangevin.schemes import Apply, Clamp, Evaluate, Measure, Move, Scheme, Step

__all__ = ["Level", "Making", "Noise", "Stepper", "Surroundings"]

# What a score is called with beside the state: the level's index, the labels of a replayed step, or nothing.
Level = int | Tensor | None


class Noise(NamedTuple):
    """Noise of steps that is not that of the chain's own address.

    Attributes:
        of: makes the noise ``(B, ...)`` of the step of a number.
        shared: whether samples share it, so that their ids are not their own.
    """

    of: Callable[[int], Tensor]
    shared: bool = False


class Surroundings(NamedTuple):
    """The inputs of a step beside its rows.

    Attributes:
        address: of its first draw.
        noise: the noise itself, in place of a draw.
        mask, known: a known region, for the last row.
        telemetry: the step's number, if its norms are kept.
    """

    address: Address
    noise: Tensor | None = None
    mask: Tensor | None = None
    known: Tensor | None = None
    telemetry: int | None = None


@dataclass
class Making:
    """A step of which some rows are made.

    Attributes:
        step: the rows.
        number: of the step, as the record of faults has it.
        given: the address of its first draw, and what else it is given.
        slots: the tensors by the names of their slots; written to.
        row: place of the next row.
        b: the standard deviation of the noise that rows before the next evaluation added.
        before: the state before the step, where samples are frozen by it.
    """

    step: Step
    number: int | Tensor
    given: Surroundings
    slots: dict[str, Tensor]
    row: int = 0
    b: Any = None
    before: Tensor | None = None

    @property
    def over(self) -> bool:
        """Returns whether all rows are made."""
        return self.row == len(self.step.rows)

    @property
    def due(self) -> Evaluate | None:
        """The evaluation of the network before the next row; None if that row needs none."""
        return self.step.rows[self.row].evaluate


def _of_draw(address: Address, offset: int) -> Address:
    """The address of one of the draws of a step, from that of its first."""
    return address._replace(draw=address.draw + offset) if offset else address


class Stepper:
    """Makes the steps of a scheme one by one.

    Args:
        score: called as ``score(x, level)``; None for one whose steps are advanced by their caller.
        scheme: the table.
        start: where the chain begins; ``start.x`` is written to, unless ``score`` is None.
        options: the caller's.
        noise: the noise of its steps, if that is not of the chain's own address.
    """

    def __init__(
        self,
        score: Callable[[Tensor, Level], Tensor] | None,
        scheme: Scheme,
        start: ChainState,
        options: ChainOptions,
        noise: Noise | None = None,
    ) -> None:
        self.score = score
        self.scheme = scheme
        self.x = start.x
        self.slots = start.slots
        self.address = start.address
        self.numbers = quick.placed(self.address) is not None  # whether seed and draw are numbers
        self.impl = options["impl"]
        self.noise = noise
        self.owned = score is not None
        self.evaluations = 0
        # The last step that was made and its rule, since those of a level are one object.
        self.last: Step | None = None
        self.rule: Coefficients | None = None
        shares = noise is not None and noise.shared
        self.watch = Watch(start, scheme.total, scheme.level, shares, options["non_finite"], options["telemetry"])
        self.region: Region | None = None
        if scheme.region is not None:
            self.region = Region(scheme.region, self.x, self.address, self.impl, scheme)
            self.region.begin(self.x, start.step)
        # Whether nothing comes between the score and the update, and no score is kept.
        self.bare = scheme.simple and self.region is None and noise is None and not self.watch.kept

    def restart(self, start: ChainState, address: Address) -> None:
        """Begins another chain in the memory of this one, as replays of its steps need it.

        Args:
            start: where it begins, a state of the same shape.
            address: its seed and ids in the tensors of the one before.
        """
        self.x.copy_(start.x)
        self.address = address
        self.watch.restart(start)
        self.evaluations = 0

    def carried(self) -> dict[str, Tensor]:
        """Copies of the slots that the next step reads beside the state."""
        return {name: self.slots[name].clone() for name in self.scheme.carries if name != "x" and name in self.slots}

    def run(self, done: int, x: Tensor | None = None) -> int:
        """Makes one step.

        Args:
            done: its number.
            x: a state to be moved instead of the chain's, whose norms are not kept.

        Returns:
            1, the steps that were made.
        """
        step = self.scheme.make(done)
        if step is not self.last:
            self.last, self.rule = step, step.rule
        if self.rule is not None and self.bare:
            seed, _, ids, offset, purpose = self.address
            self._update(self.rule, step.level, self.x if x is None else x, (seed, done, ids, offset, purpose))
        else:
            self.make(self.begin(step, done, x))
        return 1

    def _update(self, rule: Coefficients, level: int | None, x: Tensor, place: Any) -> None:
        """A step that is a single update. Small ones take as long as the calls on the way, so there are few."""
        assert self.score is not None
        score = self.score(x, level)
        self.evaluations += 1
        watch = self.watch.fault, self.watch.freeze
        if quick.step(x, x, score, rule, place if self.numbers else None, watch, self.impl, resolved=True) is None:
            c, a, b = rule
            address = Address(*place)
            terms = Term(c, x), Term(a, score)
            update = Update(terms, b, address, address.draw, fault=self.watch.fault, freeze=self.watch.freeze)
            # Which asks for the quick way once more, at 0.3 us: the one door of every update, where tests put mistakes.
            move(update, self.impl, x)

    def begin(self, step: Step, number: int, x: Tensor | None = None) -> Making:
        """A step of which no row is made, of the chain's state or of another one."""
        denoising = step is self.scheme.denoise
        draw = number if denoising else self.scheme.first_draw + number * self.scheme.draws_per_step
        given = Surroundings(self.address._replace(draw=draw))
        if not denoising:
            if self.region is not None:
                self.region.before(number, self.x if x is None else x, self.watch.frozen)
                known = self.region.after(number)
                given = given._replace(mask=None if known is None else self.region.mask, known=known)
            if self.noise is not None and step.draws:
                given = given._replace(noise=self.noise.of(number))
            if x is None and self.watch.kept and self.watch.wants(number, step.level):
                given = given._replace(telemetry=number)
        making = Making(step, number, given, self.slots if x is None else {**self.slots, "x": x})
        if self.watch.freeze and step.applies:
            making.before = making.slots["x"].clone()
        return making

    def denoise(self, score: Callable[[Tensor, Level], Tensor]) -> None:
        """The step after the last one, with a score of its own."""
        assert self.scheme.denoise is not None
        self.make(self.begin(self.scheme.denoise, min(self.scheme.total, MAX_DRAW)), score)

    def make(self, making: Making, score: Callable[[Tensor, Level], Tensor] | None = None) -> None:
        """Makes a step, whose levels, coefficients and draws may be tensors: see :class:`DeviceSteps`.

        Args:
            making: the step.
            score: in place of the chain's own.
        """
        called = self.score if score is None else score
        assert called is not None
        while not making.over:
            at = making.due
            self.advance(making, None if at is None else called(making.slots[at.slot], at.level))

    def advance(self, making: Making, output: Tensor | None) -> None:
        """Makes the next row of a step, and those after it up to the next evaluation or the step's end.

        Args:
            making: the step.
            output: what the network returned for the next row, or None if that needs no call.
        """
        step, slots = making.step, making.slots
        at = making.due
        if at is not None and output is not None:
            # A network may return the same memory at its next call.
            lasting = at.into in self.scheme.carries or step.outlives(making.row)
            slots[at.into] = output.clone() if lasting else output
            self.evaluations += 1
        while True:
            self._make_row(making, output if at is not None else None)
            making.row += 1
            if making.over or making.due is not None:
                break
            at = None
        if making.over and step.applies and self.watch.fault is not None:
            self.watch.find(slots["x"], making.before, making.number, mends=True)

    def _make_row(self, making: Making, output: Tensor | None) -> None:
        row, given, slots = making.step.rows[making.row], making.given, making.slots
        if isinstance(row, Clamp):
            slot = slots[row.slot]
            slots[row.slot] = torch.clamp(slot, row.low, row.high, out=slot if self.owned else None)
            return
        if isinstance(row, Apply):
            moved = row.function(slots["x"], _of_draw(given.address, row.draw or 0))
            slots["x"] = slots["x"].copy_(like_state(row.name, moved, slots["x"])) if self.owned else moved
            return
        here = given if given.known is None or row is making.step.last else given._replace(mask=None, known=None)
        moving = row if isinstance(row, Move) else self._measured(row, given, slots)
        making.b = moving.b if moving.b is not None else making.b
        if row.evaluate is not None and output is not None:
            if given.telemetry is not None and making.step.scores_last(making.row):
                score, a = slots[row.evaluate.into], moving.terms[row.evaluate.into]
                address = _of_draw(given.address, row.draw)
                self.watch.measure(given.telemetry, score, a, making.b, address, given.noise, self.impl)
            making.b = None
        self._move(moving, making, here)

    def _measured(self, row: Measure, given: Surroundings, slots: dict[str, Tensor]) -> Move:
        into = row.evaluate.into
        numbers: Any = measured(row, slots[into], _of_draw(given.address, row.draw), given.noise, self.impl)
        c, a, b = numbers
        return Move("x", {"x": c, into: a}, b, row.draw)

    def _move(self, row: Move, making: Making, given: Surroundings) -> None:
        slots, number = making.slots, making.number
        address, noise, mask, known, _ = given
        address = _of_draw(address, row.draw)
        terms = tuple([Term(a, slots[name]) for name, a in row.terms.items()])
        fault = None if making.step.applies else self.watch.fault
        freeze = self.watch.freeze and fault is not None
        differentiated = fault is not None and torch.is_grad_enabled() and any(slot.requires_grad for _, slot in terms)
        recorded = None if differentiated else fault
        update = Update(terms, row.b, address, number, ONE_DRAW, noise, mask, known, recorded, freeze)
        # Into a new tensor, but for the state: a slot may be one that a caller or a history still holds.
        slots[row.out] = moved = move(update, self.impl, slots["x"] if row.out == "x" and self.owned else None)
        if fault is not None and differentiated:
            fault.masked_fill_(not_finite(moved.detach()) & (fault == NO_FAULT), number)
