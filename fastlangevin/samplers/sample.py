"""The loop of all samplers: ``sample`` runs the steps of a scheme.

All its randomness is one seed and one integer, so that a chain stopped after any step goes on with the same bits.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, Protocol, Unpack, overload

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fastlangevin.samplers.calls import Score, ScoreCalls, check_score, score_calls
from fastlangevin.samplers.chain import ChainState, SamplingResult, StepInfo
from fastlangevin.samplers.frames import Frames
from fastlangevin.samplers.options import DEFAULTS, ChainOptions, complete, options_record, takes
from fastlangevin.samplers.replaying import replays
from fastlangevin.samplers.rows import in_rows
from fastlangevin.samplers.segments import Segments
from fastlangevin.samplers.start import begin
from fastlangevin.samplers.stepping import Noise, Stepper
from fastlangevin.schemes import Scheme
from fastlangevin.schemes.scheme import check_scheme

__all__ = ["Executor", "changed", "drive", "run", "sample"]


class Executor(Protocol):
    """A way of making steps: one by one, by replays of a graph, or many in one launch."""

    def run(self, done: int) -> int:
        """Makes the steps from a number on.

        Args:
            done: steps that are made, which is the number of the next.

        Returns:
            How many were made; 0 where the next is one for another way.
        """
        ...


@overload
def sample(score: Score, scheme: Scheme, *, full_output: Literal[False] = False, **options: Any) -> Tensor: ...
@overload
def sample(score: Score, scheme: Scheme, *, full_output: Literal[True], **options: Any) -> SamplingResult: ...
@takes(ChainOptions, DEFAULTS)  # type: ignore[misc]  # the overloads name only what changes the result
def sample(score: Score, scheme: Scheme, **options: Unpack[ChainOptions]) -> Tensor | SamplingResult:
    """Runs a scheme: :func:`annealed_langevin` and the other samplers are a scheme and a call of this.

    Noise and steps depend on a sample's id and seed alone, not on its batch, and so do its bits if ``score`` treats
    samples separately, bit for bit. ``shape`` or ``init`` must be given.

    Args:
        score: called as ``score(x, labels)`` with labels int64 ``(B,)``; as ``score(x, sigma)`` with noise levels
            ``(B,)``; or as ``score(x)``, as the scheme's ``takes`` says. It returns the score, shape of ``x``, any
            float dtype. :func:`fastlangevin.adapt` makes one from a network of another convention. Or a
            :class:`fastlangevin.GaussianMixture`, whose exact score is taken.
        scheme: a table of numbers, as the functions of :mod:`fastlangevin.schemes` make it.
        options: those of :class:`fastlangevin.samplers.ChainOptions`. ``order`` and ``clamp`` change the scheme, as
            :meth:`fastlangevin.schemes.Scheme.noise_first` and :meth:`fastlangevin.schemes.Scheme.clamped` do.

    Returns:
        The samples, or a :class:`SamplingResult` with ``full_output=True``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite, with ``non_finite="raise"``.
    """
    check_scheme(scheme)
    return run(score, scheme, complete(options, ChainOptions))


def run(score: Score, scheme: Scheme, options: ChainOptions, noise: Noise | None = None) -> Tensor | SamplingResult:
    """:func:`sample` with checked options.

    Args:
        score, scheme: as there.
        options: the caller's.
        noise: the noise of its steps, if that is not of the chain's own address.
    """
    check_score(score, scheme)
    scheme = changed(scheme, options)
    scheme.check()
    calls = score_calls(score, scheme, options)
    if scheme.points > 1:
        options, noise = in_rows(scheme, options)
    result = chain(calls, scheme, begin(scheme, options), options, noise)
    return result if options["full_output"] else result.samples


def changed(scheme: Scheme, options: ChainOptions) -> Scheme:
    """A scheme with what options change about its table and its record."""
    if options["order"] == "noise":
        scheme = scheme.noise_first()
    if options["clamp"] is not None:
        scheme = scheme.clamped(*options["clamp"], denoised=options["clamp_denoised"])
    if options["inpainting"] is not None:
        scheme = scheme.inpainted(options["inpainting"])
    return scheme._replace(record={**scheme.record, **options_record(options)})


def chain(
    calls: ScoreCalls, scheme: Scheme, start: ChainState, options: ChainOptions, noise: Noise | None
) -> SamplingResult:
    """Runs a chain to its end, or to where its callback stops it; ``start.x`` is written to."""
    stepper = Stepper(calls.at, scheme, start, options, noise)
    with torch.no_grad(), replays(stepper, start.step, options["cuda_graph"]) as graphs:
        return drive(calls, stepper, graphs, start, options)


def drive(
    calls: ScoreCalls, stepper: Stepper, graphs: Executor | None, start: ChainState, options: ChainOptions
) -> SamplingResult:
    """The loop over the steps of a chain.

    Args:
        calls: of the score, for the denoise step and for kernels that make many steps at once.
        stepper: makes the steps one by one.
        graphs: replays them, or None.
        start: where the chain begins.
        options: the caller's.
    """
    scheme, callback = stepper.scheme, options["callback"]
    calls.renew()
    total, done = scheme.total, start.step
    x, watch = stepper.x, stepper.watch
    frames = Frames(options["trajectory"], total, x, start)
    frames.add(done, x)
    segments = Segments.of(calls.source, stepper, start, frames, options)
    # The record says which roundings the steps from here on have.
    record = {name: value for name, value in start.record.items() if name != "chain"}
    start = replace(start, record=record if segments is None else segments.record(record))
    evaluations = 0  # of segments

    def state() -> ChainState:
        records: dict[str, Any] = {"fault": watch.record(), "telemetry": watch.telemetry()}
        return replace(start, x=x.clone(), step=done, trajectory=frames.kept(), carried=stepper.carried(), **records)

    stopped = False
    # Even a tqdm that shows nothing takes a semaphore that forked processes share: one killed inside would hold it.
    bar = tqdm(total=total, initial=done, desc="sampling", unit="step") if options["progress"] else None
    with nullcontext() if bar is None else bar:
        executors: list[Executor] = [each for each in (segments, graphs, stepper) if each is not None]
        if start.fault is not None:  # a resumed chain whose record has samples that "raise" does not accept
            watch.check(done, state, now=True)
        while done < total and not stopped:
            made = 0
            for executor in executors:
                made = executor.run(done)
                if made:
                    break
            if executor is segments:  # whose steps have one evaluation each
                evaluations += made
            done += made
            frames.add(done, x)
            if bar is not None:
                bar.update(made)
            if callback is not None:
                info = StepInfo(x, done, total, scheme.make(done - 1).level, state)
                stopped = bool(callback(info))
                calls.renew()
            watch.check(done, state, now=stopped or done == total or made > 1)
        left = state()
        evaluations += stepper.evaluations
        if scheme.denoise is not None and done == total:
            if segments is None or not segments.denoise(scheme.denoise):
                stepper.denoise(calls.without_drift)
            evaluations += scheme.denoise.evaluations
            watch.check(done, lambda: left, now=True)
    return SamplingResult(x, left.trajectory, left, evaluations, watch.faults(), left.telemetry)
