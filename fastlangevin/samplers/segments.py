"""Many updates of a chain in one call, for scores that are small enough to be computed inside a kernel.

A score says so by a method ``chain_kernel``, as in :class:`ChainScore`. The samplers ask for it where nothing looks at
the chain between two updates or changes it there; otherwise, and with scores that have none, the loop makes one update
after the other. The bits are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from fastlangevin.noise import Seed
from fastlangevin.rules import Coefficients
from fastlangevin.samplers.chain import ChainState
from fastlangevin.samplers.options import Options
from fastlangevin.samplers.watching import Watch

if TYPE_CHECKING:
    from fastlangevin.samplers.engine import Frames, Plan

__all__ = ["ChainKernel", "ChainScore", "Run", "Segment", "Segments"]

# A call cannot be interrupted, so the segments grow from the first length until a call takes this long.
FIRST_LENGTH = 64
SECONDS = 0.25


class Run(NamedTuple):
    """Neighbouring updates of one rule at one level."""

    rule: Coefficients
    level: int
    times: int


class Segment(NamedTuple):
    """Neighbouring updates of a chain.

    Attributes:
        first: draw number of the first update.
        runs: the updates.
        seed, sample_ids, sample_offset: the address of their noise, whose purpose is ``LANGEVIN``.
        every: frames are kept after the updates that end at a multiple of this; 0 keeps none.
        frames: contiguous ``(F, B, ...)``, where the frames of this segment go, or None.
    """

    first: int
    runs: list[Run]
    seed: Seed
    sample_ids: Tensor | None
    sample_offset: int
    every: int
    frames: Tensor | None

    @property
    def length(self) -> int:
        """How many updates."""
        return sum(run.times for run in self.runs)


ChainKernel = Callable[[Tensor, Segment], None]


class ChainScore(Protocol):
    """A score function that can also make many updates at once."""

    def chain_kernel(self, x: Tensor, impl: str) -> ChainKernel | None:
        """What writes a segment's updates to a state like ``x``, contiguous fp32 ``(B, ...)``; None: nothing does.

        It has the bits of the loop on the same implementation: of ``step_`` with the score at each update's level.
        """


class Segments:
    """Runs a chain segment by segment.

    Where a state is watched for values that are not finite and a segment ends with one, the segment is made again one
    update at a time, as are all that follow: so each sample's first is found, and frozen there if it is to be.
    """

    def __init__(self, kernel: ChainKernel, plan: Plan, start: ChainState, watch: Watch) -> None:
        self.kernel = kernel
        self.plan = plan
        self.start = start
        self.watch = watch
        self.length = FIRST_LENGTH
        self.singly = bool(watch.faults())

    @classmethod
    def of(cls, score: object, plan: Plan, start: ChainState, options: Options, watch: Watch) -> Segments | None:
        """The segments of a chain, or None where its updates are made one by one."""
        kernel_for = getattr(score, "chain_kernel", None)
        watched = options.callback is not None or plan.noise is not None or options.order != "score" or watch.kept
        changed = options.drift is not None or options.inpainting is not None or options.clamp is not None
        plain = start.x.dtype == torch.float32 and start.x.is_contiguous()
        if kernel_for is None or watched or changed or not plain:
            return None
        kernel = kernel_for(start.x, options.impl)
        return None if kernel is None else cls(kernel, plan, start, watch)

    def run(self, x: Tensor, done: int, frames: Frames) -> int:
        """Makes the updates from number ``done`` on, and says how many: 0 where the next is one for the loop."""
        if self.watch.fault is None:
            return self._run(x, done, frames)
        before, kept = x.clone(), frames.count
        if not self.singly:
            made = self._run(x, done, frames)
            if not made or bool(x.isfinite().all()):
                return made
            self.singly = True
            x.copy_(before)
            frames.count = kept
        runs = self._runs(done, 1)
        if runs:
            self.kernel(x, Segment(done, runs, *self._address(), 0, None))
            self.watch.find(x, before, done)
        return len(runs)

    def _address(self) -> tuple[Seed, Tensor | None, int]:
        return self.start.seed, self.start.sample_ids, self.start.sample_offset

    def _run(self, x: Tensor, done: int, frames: Frames) -> int:
        runs = self._runs(done, self.length)
        made = sum(run.times for run in runs)
        if made:
            segment = Segment(done, runs, *self._address(), frames.every, frames.coming(done + made))
            begun = time.perf_counter()
            self.kernel(x, segment)
            if time.perf_counter() - begun < SECONDS:
                self.length *= 2
            elif self.length > 1:
                self.length //= 2
        return made

    def _runs(self, done: int, length: int) -> list[Run]:
        runs: list[Run] = []
        moves = map(self.plan.move, range(done, min(done + length, self.plan.total)))
        for move, same in groupby(moves):
            if not isinstance(move.rule, Coefficients):
                break
            runs.append(Run(move.rule, move.level or 0, sum(1 for _ in same)))
        return runs
