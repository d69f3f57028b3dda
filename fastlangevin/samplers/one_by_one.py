"""The updates of a chain, one after the other: a call of the score and of the update's kernel for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastlangevin.ops import step_
from fastlangevin.rules import Coefficients
from fastlangevin.samplers.chain import ChainState
from fastlangevin.samplers.inpainting import Region
from fastlangevin.samplers.options import Options
from fastlangevin.samplers.plan import Level, Plan
from fastlangevin.samplers.signal import SignalToNoise
from fastlangevin.samplers.watching import Watch

__all__ = ["Chain"]


class Chain:
    """One update after the other."""

    def __init__(
        self, score: Callable[[Tensor, Level], Tensor], plan: Plan, start: ChainState, options: Options
    ) -> None:
        self.score = score
        self.plan = plan
        self.x = start.x
        self.address: dict[str, Any] = {
            "seed": start.seed,
            "sample_ids": start.sample_ids,
            "sample_offset": start.sample_offset,
            "impl": options.impl,
        }
        self.order = options.order
        self.clamp = options.clamp
        self.noise = None if plan.noise is None else plan.noise(start)
        shares = plan.noise is not None
        self.watch = Watch(start, plan.total, plan.level, shares, options.non_finite, options.telemetry)
        self.region: Region | None = None
        if options.inpainting is not None:
            place = start.seed, start.sample_ids, start.sample_offset, options.impl
            self.region = Region(options.inpainting, self.x, *place, self._place, plan.total)
            self.region.begin(self.x, start.step)

    def _place(self, index: int) -> tuple[int, float]:
        level = self.plan.move(index).level or 0
        return level, self.plan.ladder[level]

    def update(self, index: int, x: Tensor | None = None) -> None:
        """The update of a number, of the chain's state, or of another one, which is not measured."""
        rule, level = self.plan.move(index)
        random = {**self.address, "draw": index}
        if self.noise is not None:
            random = {"noise": self.noise(index), "draw": index, "impl": self.address["impl"]}
        masked: dict[str, Any] = {}
        if self.region is not None:
            self.region.before(index, self.x if x is None else x, self.watch.frozen)
            known = self.region.after(index)
            if known is not None:
                masked = {"mask": self.region.mask, "known": known}
        measured = index if x is None and self.watch.kept and self.watch.wants(index, level) else None
        self.move(self.x if x is None else x, rule, level, random, masked, measured)

    def move(
        self,
        x: Tensor,
        rule: Coefficients | SignalToNoise,
        level: Level,
        random: dict[str, Any],
        masked: dict[str, Any],
        measured: int | None = None,
    ) -> None:
        """An update whose level, coefficients and draw number may be tensors: see :class:`DeviceSteps`."""
        watched = self.watch.arguments
        if self.order == "noise" and isinstance(rule, Coefficients) and rule.b is not None:
            step_(x, x, a=0.0, b=rule.b, **random, **watched)
            score = self.score(x, level)
            if measured is not None:
                self.watch.measure(measured, score, rule.a, rule.b, **random)
            last = {"draw": random["draw"], "impl": self.address["impl"]}
            step_(x, score, a=rule.a, b=None, c=rule.c, **last, **masked, **watched)
        else:
            score = self.score(x, level)
            c, a, b = rule if isinstance(rule, Coefficients) else rule.coefficients(score, **random)
            if measured is not None:
                self.watch.measure(measured, score, a, b, **random)
            step_(x, score, a=a, b=b, c=c, **random, **masked, **watched)
        if self.clamp is not None:
            x.clamp_(*self.clamp)
