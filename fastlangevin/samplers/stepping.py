"""The steps of a chain, one after the other: for each row a call of the score and of the update's kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from fastlangevin.kernels.address import ONE_DRAW, Address, Term, Update
from fastlangevin.noise import MAX_DRAW
from fastlangevin.ops import move, quick
from fastlangevin.rules import Coefficients
from fastlangevin.samplers.chain import ChainState
from fastlangevin.samplers.inpainting import Region
from fastlangevin.samplers.options import ChainOptions
from fastlangevin.samplers.signal import measured
from fastlangevin.samplers.watching import Watch
from fastlangevin.schemes import Clamp, Measure, Move, Scheme, Step

__all__ = ["Level", "Noise", "Stepper", "Surroundings"]

# What a score is called with beside the state: the level's index, the labels of a replayed step, or nothing.
Level = int | Tensor | None
Noise = Callable[[int], Tensor]


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


class Stepper:
    """Makes the steps of a scheme.

    Args:
        score: called as ``score(x, level)``.
        scheme: the table.
        start: where the chain begins; ``start.x`` is written to.
        options: the caller's.
        noise: makes the noise of a step that is not that of the chain's own address.
    """

    def __init__(
        self,
        score: Callable[[Tensor, Level], Tensor],
        scheme: Scheme,
        start: ChainState,
        options: ChainOptions,
        noise: Noise | None = None,
    ) -> None:
        self.score = score
        self.scheme = scheme
        self.x = start.x
        self.slots = {"x": start.x, **start.carried}
        self.address = start.address
        self.words = quick.placed(self.address) is not None
        self.impl = options["impl"]
        self.noise = noise
        self.evaluations = 0
        # The last step that was made and its rule, since those of a level are one object.
        self.last: Step | None = None
        self.rule: Coefficients | None = None
        shares = noise is not None
        self.watch = Watch(start, scheme.total, scheme.level, shares, options["non_finite"], options["telemetry"])
        self.region: Region | None = None
        if options["inpainting"] is not None:
            self.region = Region(options["inpainting"], self.x, self.address, self.impl, scheme)
            self.region.begin(self.x, start.step)
        # Whether nothing comes between the score and the update, and no score is kept.
        alone = scheme.draws_per_step == 1 and scheme.carries == ("x",)
        self.bare = alone and self.region is None and noise is None and not self.watch.kept

    def carried(self) -> dict[str, Tensor]:
        """Copies of the slots that the next step reads beside the state."""
        return {name: self.slots[name].clone() for name in self.scheme.carries if name != "x" and name in self.slots}

    def step(self, number: int, x: Tensor | None = None) -> None:
        """The step of a number, of the chain's state, or of another one, whose norms are not kept."""
        step = self.scheme.make(number)
        if step is not self.last:
            self.last, self.rule = step, step.rule
        seed, _, ids, offset, purpose = self.address
        if self.rule is not None and self.bare:
            self._update(self.rule, step.level, self.x if x is None else x, (seed, number, ids, offset, purpose))
            return
        draw = number if self.scheme.draws_per_step == 1 else number * self.scheme.draws_per_step
        given = Surroundings(Address(seed, draw, ids, offset, purpose))
        if self.region is not None:
            self.region.before(number, self.x if x is None else x, self.watch.frozen)
            known = self.region.after(number)
            given = given._replace(mask=None if known is None else self.region.mask, known=known)
        if self.noise is not None:
            given = given._replace(noise=self.noise(number))
        if x is None and self.watch.kept and self.watch.wants(number, step.level):
            given = given._replace(telemetry=number)
        self.make(step, number, given, self.slots if x is None else {**self.slots, "x": x})

    def _update(self, rule: Coefficients, level: int | None, x: Tensor, place: Any) -> None:
        """A step that is a single update. Small ones take as long as the calls on the way, so there are few."""
        score = self.score(x, level)
        self.evaluations += 1
        watch = self.watch.fault, self.watch.freeze
        if quick.step(x, x, score, rule, place if self.words else None, watch, self.impl, resolved=True) is None:
            c, a, b = rule
            address = Address(*place)
            terms = Term(c, x), Term(a, score)
            move(
                Update(terms, b, address, address.draw, fault=self.watch.fault, freeze=self.watch.freeze), self.impl, x
            )

    def denoise(self, score: Callable[[Tensor, Level], Tensor]) -> None:
        """The step after the last one, with a score of its own."""
        assert self.scheme.denoise is not None
        number = min(self.scheme.total, MAX_DRAW)
        self.score = score
        self.make(self.scheme.denoise, number, Surroundings(self.address._replace(draw=number)), self.slots)

    def make(self, step: Step, number: int | Tensor, given: Surroundings, slots: dict[str, Tensor]) -> None:
        """A step whose levels, coefficients and draws may be tensors: see :class:`DeviceSteps`.

        Args:
            step: the rows.
            number: of the step, as the record of faults has it.
            given: the address of its first draw, and what else it is given.
            slots: the tensors by the names of their slots; written to.
        """
        b: Any = None
        for row in step.rows:
            if isinstance(row, Clamp):
                slots[row.slot].clamp_(row.low, row.high)
                continue
            evaluate = row.evaluate
            if evaluate is not None:
                value = self.score(slots[evaluate.slot], evaluate.level)
                # A network may return the same memory at its next call.
                lasting = evaluate.into in self.scheme.carries or step.evaluations > 1
                slots[evaluate.into] = value.clone() if lasting else value
                self.evaluations += 1
            here = given if given.known is None or row is step.last else given._replace(mask=None, known=None)
            made = row if isinstance(row, Move) else self._measured(row, given, slots)
            if made.b is not None:
                b = made.b
            if given.telemetry is not None and evaluate is not None:
                score, a = slots[evaluate.into], made.terms[evaluate.into]
                self.watch.measure(given.telemetry, score, a, b, given.address, given.noise, self.impl)
            self._move(made, number, here, slots)

    def _measured(self, row: Measure, given: Surroundings, slots: dict[str, Tensor]) -> Move:
        into = row.evaluate.into
        numbers: Any = measured(row, slots[into], given.address, given.noise, self.impl)
        c, a, b = numbers
        return Move("x", {"x": c, into: a}, b)

    def _move(self, row: Move, number: int | Tensor, given: Surroundings, slots: dict[str, Tensor]) -> None:
        address, noise, mask, known, _ = given
        if row.draw:
            address = address._replace(draw=address.draw + row.draw)
        terms = tuple([Term(a, slots[name]) for name, a in row.terms.items()])
        watch = self.watch
        update = Update(terms, row.b, address, number, ONE_DRAW, noise, mask, known, watch.fault, watch.freeze)
        # Into a new tensor, but for the state: a slot may be one that a caller or a history still holds.
        slots[row.out] = move(update, self.impl, slots["x"] if row.out == "x" else None)
