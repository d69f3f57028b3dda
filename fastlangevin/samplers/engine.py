"""The loop of all samplers: a chain is a list of moves, one for each draw number, on one kernel.

All its randomness is one seed and one integer, so that a chain stopped after any update goes on with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fastlangevin.noise import MAX_DRAW
from fastlangevin.ops import step_
from fastlangevin.rules import Coefficients
from fastlangevin.samplers.chain import ChainState, SamplingResult, StepInfo
from fastlangevin.samplers.inpainting import Region
from fastlangevin.samplers.options import Options
from fastlangevin.samplers.replaying import updates
from fastlangevin.samplers.segments import Segments
from fastlangevin.samplers.signal import SignalToNoise
from fastlangevin.samplers.watching import Watch

__all__ = ["Chain", "Frames", "Level", "Move", "Plan", "run"]

Noise = Callable[[int], Tensor]
# What a chain's score is called with beside the state: the level's index, the labels of a replayed update, or nothing.
Level = int | Tensor | None


class Move(NamedTuple):
    """An update: its rule, or what finds its step size from the score; and its level."""

    rule: Coefficients | SignalToNoise
    level: int | None


class Plan(NamedTuple):
    """A chain: ``total`` moves by their number, then perhaps a denoise step at the last level.

    ``record`` says what the chain is, ``ladder`` the sigma of each level, ``noise`` makes the noise of a draw where it
    is not that of the chain's own address.
    """

    move: Callable[[int], Move]
    total: int
    denoise: Move | None
    record: dict[str, Any]
    ladder: list[float]
    noise: Callable[[ChainState], Noise] | None = None

    def level(self, index: int) -> int | None:
        """The noise level of an update, or of the denoise step, whose number is ``total``."""
        return self.move(index).level if index < self.total or self.denoise is None else self.denoise.level


def check_draws(updates: int) -> int:
    if updates > MAX_DRAW + 1:
        raise ValueError(f"the chain has {updates} updates; the draw number has room for {MAX_DRAW + 1}")
    return updates


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


def run(
    score: Callable[[Tensor, Level], Tensor],
    plain_score: Callable[[Tensor, Level], Tensor],
    plan: Plan,
    start: ChainState,
    options: Options,
    source: object = None,
) -> SamplingResult:
    """Runs a chain to its end, or to where its callback stops it.

    Args:
        score: what the updates follow; ``plain_score`` is what the denoise step follows.
        plan: the chain.
        start: where it begins; ``start.x`` is written to.
        options: the caller's.
        source: the object that ``score`` calls, which may make many updates at once: see
            :class:`fastlangevin.samplers.segments.ChainScore`.
    """
    total, done = plan.total, start.step
    chain = Chain(score, plan, start, options)
    x, watch = chain.x, chain.watch
    segments = Segments.of(source, plan, start, options, watch)
    record = {name: value for name, value in start.record.items() if name != "chain"}
    start = replace(start, record=record if segments is None else segments.record(record))
    frames = Frames(options.trajectory, total, x, start)
    frames.add(done, x)
    evaluations = 0

    def state() -> ChainState:
        records: dict[str, Any] = {"fault": watch.record(), "telemetry": watch.telemetry()}
        return replace(start, x=x.clone(), step=done, trajectory=frames.kept(), **records)

    stopped = False
    # Even a tqdm that shows nothing takes a semaphore that forked processes share: one killed inside would hold it.
    bar = tqdm(total=total, initial=done, desc="sampling", unit="step") if options.progress else None
    with nullcontext() if bar is None else bar, torch.no_grad(), updates(chain, done, options.cuda_graph) as update:
        watch.check(done, state, now=start.fault is not None)
        while done < total and not stopped:
            made = 0 if segments is None else segments.run(x, done, frames)
            if not made:
                update(done)
                made = 1
            evaluations += made
            done += made
            frames.add(done, x)
            if bar is not None:
                bar.update(made)
            if options.callback is not None:
                info = StepInfo(x, done, total, plan.move(done - 1).level, state)
                stopped = bool(options.callback(info))
            watch.check(done, state, now=stopped or done == total or made > 1)
        left = state()
        if plan.denoise is not None and done == total:
            rule, level = plan.denoise
            assert isinstance(rule, Coefficients)
            if segments is None or not segments.denoise(x, plan.denoise):
                final, last = plain_score(x, level), min(total, MAX_DRAW)
                step_(x, final, a=rule.a, b=None, c=rule.c, draw=last, impl=options.impl, **watch.arguments)
                if options.clamp is not None and options.clamp_denoised:
                    x.clamp_(*options.clamp)
            evaluations += 1
            watch.check(done, lambda: left, now=True)
    return SamplingResult(x, left.trajectory, left, evaluations, watch.faults(), left.telemetry)


class Frames:
    """Every k-th state of a chain, kept on the state's device."""

    def __init__(self, every: int, total: int, x: Tensor, start: ChainState) -> None:
        self.every = every
        self.count = 0
        if every:
            self.buffer = x.new_empty((total // every + 1, *x.shape))
            if start.step:
                if start.trajectory is None or start.trajectory.shape[0] != start.step // every + 1:
                    raise ValueError(f"resume= has no trajectory with trajectory={every}; resume it as it was begun")
                self.count = start.trajectory.shape[0]
                self.buffer[: self.count] = start.trajectory

    def add(self, step: int, x: Tensor) -> None:
        if self.every and step % self.every == 0 and step // self.every == self.count:
            self.buffer[self.count] = x
            self.count += 1

    def coming(self, step: int) -> Tensor | None:
        """Where the frames up to an update go, for who writes them in one call."""
        if not self.every:
            return None
        first, self.count = self.count, step // self.every + 1
        return self.buffer[first : self.count]

    def kept(self) -> Tensor | None:
        return self.buffer[: self.count].clone() if self.every else None
