"""The loop of all samplers: it runs the moves of a plan, one for each draw number.

All its randomness is one seed and one integer, so that a chain stopped after any update goes on with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fastlangevin.kernels.address import Term, Update
from fastlangevin.noise import MAX_DRAW
from fastlangevin.ops import move
from fastlangevin.rules import Coefficients
from fastlangevin.samplers.chain import ChainState, SamplingResult, StepInfo
from fastlangevin.samplers.frames import Frames
from fastlangevin.samplers.one_by_one import Chain
from fastlangevin.samplers.options import ChainOptions
from fastlangevin.samplers.plan import Level, Plan
from fastlangevin.samplers.replaying import updates
from fastlangevin.samplers.segments import Segments

__all__ = ["run"]


def run(
    score: Callable[[Tensor, Level], Tensor],
    plain_score: Callable[[Tensor, Level], Tensor],
    plan: Plan,
    start: ChainState,
    options: ChainOptions,
    source: object = None,
) -> SamplingResult:
    """Runs a chain to its end, or to where its callback stops it.

    Args:
        score: what the updates follow; ``plain_score`` is what the denoise step follows.
        plan: the chain.
        start: where it begins; ``start.x`` is written to.
        options: the caller's.
        source: the object that ``score`` calls, which may make many updates at once: see
            :class:`fastlangevin.chain_score.ChainScore`.
    """
    total, done = plan.total, start.step
    callback, clamp = options["callback"], options["clamp"]
    chain = Chain(score, plan, start, options)
    x, watch = chain.x, chain.watch
    segments = Segments.of(source, plan, start, options, watch)
    record = {name: value for name, value in start.record.items() if name != "chain"}
    start = replace(start, record=record if segments is None else segments.record(record))
    frames = Frames(options["trajectory"], total, x, start)
    frames.add(done, x)
    evaluations = 0

    def state() -> ChainState:
        records: dict[str, Any] = {"fault": watch.record(), "telemetry": watch.telemetry()}
        return replace(start, x=x.clone(), step=done, trajectory=frames.kept(), **records)

    stopped = False
    # Even a tqdm that shows nothing takes a semaphore that forked processes share: one killed inside would hold it.
    bar = tqdm(total=total, initial=done, desc="sampling", unit="step") if options["progress"] else None
    with nullcontext() if bar is None else bar, torch.no_grad(), updates(chain, done, options["cuda_graph"]) as update:
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
            if callback is not None:
                info = StepInfo(x, done, total, plan.move(done - 1).level, state)
                stopped = bool(callback(info))
            watch.check(done, state, now=stopped or done == total or made > 1)
        left = state()
        if plan.denoise is not None and done == total:
            rule, level = plan.denoise
            assert isinstance(rule, Coefficients)
            if segments is None or not segments.denoise(x, plan.denoise):
                terms = Term(rule.c, x), Term(rule.a, plain_score(x, level))
                last = min(total, MAX_DRAW)
                address = chain.address._replace(draw=last)
                move(Update(terms, None, address, last, fault=watch.fault, freeze=watch.freeze), options["impl"], x)
                if clamp is not None and options["clamp_denoised"]:
                    x.clamp_(*clamp)
            evaluations += 1
            watch.check(done, lambda: left, now=True)
    return SamplingResult(x, left.trajectory, left, evaluations, watch.faults(), left.telemetry)
