"""The updates of a chain, one after the other: a call of the score and of the update's kernel for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from fastlangevin.kernels.address import ONE_DRAW, Address, Term, Update
from fastlangevin.ops import move
from fastlangevin.rules import Coefficients
from fastlangevin.samplers.chain import ChainState
from fastlangevin.samplers.inpainting import Region
from fastlangevin.samplers.options import ChainOptions
from fastlangevin.samplers.plan import Level, Plan
from fastlangevin.samplers.signal import SignalToNoise
from fastlangevin.samplers.watching import Watch

__all__ = ["Chain", "Surroundings"]


class Surroundings(NamedTuple):
    """What an update is given beside its rule: the address of its noise or the noise itself, and a known region."""

    address: Address
    noise: Tensor | None = None
    mask: Tensor | None = None
    known: Tensor | None = None


class Chain:
    """One update after the other."""

    def __init__(
        self, score: Callable[[Tensor, Level], Tensor], plan: Plan, start: ChainState, options: ChainOptions
    ) -> None:
        self.score = score
        self.plan = plan
        self.x = start.x
        self.address = start.address
        self.impl = options["impl"]
        self.order = options["order"]
        self.clamp = options["clamp"]
        self.noise = None if plan.noise is None else plan.noise(start)
        shares = plan.noise is not None
        self.watch = Watch(start, plan.total, plan.level, shares, options["non_finite"], options["telemetry"])
        self.region: Region | None = None
        if options["inpainting"] is not None:
            self.region = Region(options["inpainting"], self.x, self.address, self.impl, self._place, plan.total)
            self.region.begin(self.x, start.step)

    def _place(self, index: int) -> tuple[int, float]:
        level = self.plan.move(index).level or 0
        return level, self.plan.ladder[level]

    def update(self, index: int, x: Tensor | None = None) -> None:
        """The update of a number, of the chain's state, or of another one, which is not measured."""
        rule, level = self.plan.move(index)
        noise = None if self.noise is None else self.noise(index)
        known = None
        if self.region is not None:
            self.region.before(index, self.x if x is None else x, self.watch.frozen)
            known = self.region.after(index)
        mask = None if known is None or self.region is None else self.region.mask
        surroundings = Surroundings(self.address._replace(draw=index), noise, mask, known)
        measured = index if x is None and self.watch.kept and self.watch.wants(index, level) else None
        self.move(self.x if x is None else x, rule, level, surroundings, measured)

    def move(
        self,
        x: Tensor,
        rule: Coefficients | SignalToNoise,
        level: Level,
        given: Surroundings,
        measured: int | None = None,
    ) -> None:
        """An update whose level, coefficients and draw number may be tensors: see :class:`DeviceSteps`."""
        address, noise, mask, known = given
        a: Any
        b: Any
        fault, freeze = self.watch.fault, self.watch.freeze
        last = Update((), None, address, address.draw, ONE_DRAW, noise, mask, known, fault, freeze)
        if self.order == "noise" and isinstance(rule, Coefficients) and rule.b is not None:
            first = last._replace(terms=(Term(1.0, x), Term(0.0, x)), b=rule.b, mask=None, known=None)
            move(first, self.impl, x)
            score = self.score(x, level)
            a, b = rule.a, rule.b
            last = last._replace(terms=(Term(rule.c, x), Term(a, score)), noise=None)
        else:
            score = self.score(x, level)
            c, a, b = rule if isinstance(rule, Coefficients) else rule.coefficients(score, address, noise, self.impl)
            last = last._replace(terms=(Term(c, x), Term(a, score)), b=b)
        if measured is not None:
            self.watch.measure(measured, score, a, b, address, noise, self.impl)
        move(last, self.impl, x)
        if self.clamp is not None:
            x.clamp_(*self.clamp)
