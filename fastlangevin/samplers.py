"""Samplers: ``langevin`` and ``annealed_langevin``.

A chain is a list of updates, one for each draw number, on one kernel. All its randomness is one seed and one integer,
so that a chain stopped after any step goes on with the same bits: see :class:`ChainState`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fastlangevin import rules
from fastlangevin.noise import (
    MAX_DRAW,
    STREAM_VERSION,
    Generators,
    Purpose,
    Seed,
    integer,
    resolve_sample_ids,
    resolve_seed,
)
from fastlangevin.ops import rand, randn, step_
from fastlangevin.ops.arguments import FLOAT_NAMES, FLOATS, elements_per_sample, floating, sizes
from fastlangevin.rules import Coefficients, Corrector
from fastlangevin.runtime import choose
from fastlangevin.schedules import Sigmas, check_sigmas
from fastlangevin.scores import ScoreFunction

__all__ = ["ChainState", "SamplingResult", "StepInfo", "annealed_langevin", "langevin"]

Init = Tensor | Literal["uniform", "normal"]
SampleIds = Tensor | Sequence[int]


@dataclass(frozen=True)
class ChainState:
    """A chain between two updates: everything that is needed to go on with the same bits.

    Attributes:
        x: state ``(B, ...)``.
        step: updates done, which is the number of the next draw.
        seed: the seed, or an int64 tensor ``(B,)`` of seeds by their bits.
        sample_ids: global ids ``(B,)``, or None for ``sample_offset`` and up.
        sample_offset: id of the first sample.
        trajectory: frames kept so far ``(F, B, ...)``, or None.
        record: what the chain is: ladder, step size, rule, stream version. A resume must match it.
    """

    x: Tensor
    step: int
    seed: Seed
    sample_ids: Tensor | None = None
    sample_offset: int = 0
    trajectory: Tensor | None = None
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SamplingResult:
    """What ``full_output=True`` returns.

    Attributes:
        samples: ``(B, ...)``.
        trajectory: ``(F, B, ...)``, the states after 0, k, 2k, ... updates for ``trajectory=k``, or None.
        state: the chain as it was left, for ``resume=``.
        evaluations: calls of the score function in this run.
    """

    samples: Tensor
    trajectory: Tensor | None
    state: ChainState
    evaluations: int


class StepInfo(NamedTuple):
    """What a callback is given after every update.

    Attributes:
        x: the live state; ``clone()`` it to keep it.
        step: updates done, counted from 1.
        steps: updates in the whole chain.
        level: index of the noise level of the update.
        state: makes the :class:`ChainState` of this moment (a copy).
    """

    x: Tensor
    step: int
    steps: int
    level: int | None
    state: Callable[[], ChainState]


Callback = Callable[[StepInfo], bool | None]


class _Plan(NamedTuple):
    """A chain: ``repeats`` updates by each rule in turn, then perhaps a denoise step."""

    rules: list[Coefficients]
    levels: list[int | None]
    repeats: int
    denoise: Coefficients | None
    record: dict[str, Any]


def _initial_state(
    init: Init,
    size: tuple[int, ...],
    spread: float,
    seed: Seed,
    ids: Tensor | None,
    offset: int,
    dtype: torch.dtype,
    device: torch.device,
    impl: str,
) -> Tensor:
    if isinstance(init, Tensor):
        return init.detach().clone()
    make = rand if init == "uniform" else randn
    x = make(
        size,
        seed=seed,
        purpose=Purpose.INITIAL_STATE,
        sample_ids=ids,
        sample_offset=offset,
        dtype=dtype,
        device=device,
        impl=impl,
    )
    return x if init == "uniform" else x.mul_(spread)


def _check_draws(updates: int) -> None:
    if updates > MAX_DRAW + 1:
        raise ValueError(f"the chain has {updates} updates; the draw number has room for {MAX_DRAW + 1}")


def _check_resume(resume: ChainState, record: dict[str, Any], total: int) -> None:
    if not isinstance(resume, ChainState):
        raise TypeError(f"resume must be a ChainState, got {type(resume).__name__}")
    different = [
        f"{name} was {resume.record.get(name)!r} and is now {value!r}"
        for name, value in record.items()
        if resume.record.get(name) != value
    ]
    if different:
        raise ValueError("resume= is a state of another chain: " + "; ".join(different))
    integer("resume.step", resume.step, 0, total)


def _run(
    score: Callable[[Tensor, int | None], Tensor],
    plan: _Plan,
    start: ChainState,
    *,
    callback: Callback | None,
    progress: bool,
    keep: int,
    impl: str,
) -> SamplingResult:
    x, done = start.x, start.step
    total = len(plan.rules) * plan.repeats
    frames = _Frames(keep, total, x, start)
    frames.add(done, x)
    evaluations = 0

    def state() -> ChainState:
        return replace(start, x=x.clone(), step=done, trajectory=frames.kept())

    stopped = False
    with tqdm(total=total, initial=done, disable=not progress, desc="sampling", unit="step") as bar, torch.no_grad():
        while done < total and not stopped:
            index = done // plan.repeats
            (c, a, b), level = plan.rules[index], plan.levels[index]
            step_(
                x,
                score(x, level),
                a=a,
                b=b,
                c=c,
                seed=start.seed,
                draw=done,
                sample_ids=start.sample_ids,
                sample_offset=start.sample_offset,
                impl=impl,
            )
            evaluations += 1
            done += 1
            frames.add(done, x)
            bar.update()
            if callback is not None:
                stopped = bool(callback(StepInfo(x, done, total, level, state)))
        left = state()
        if plan.denoise is not None and done == total:
            c, a, _ = plan.denoise
            step_(x, score(x, plan.levels[-1]), a=a, b=None, c=c, impl=impl)
            evaluations += 1
    return SamplingResult(x, left.trajectory, left, evaluations)


class _Frames:
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

    def kept(self) -> Tensor | None:
        return self.buffer[: self.count].clone() if self.every else None


def _start(
    init: Init,
    shape: Sequence[int] | None,
    spread: float,
    plan: _Plan,
    resume: ChainState | None,
    seed: Seed | None,
    generator: Generators | None,
    sample_ids: SampleIds | None,
    sample_offset: int,
    dtype: torch.dtype,
    device: torch.device | str | None,
    impl: str,
) -> ChainState:
    """The state that a chain begins with."""
    if isinstance(init, Tensor):
        floating("init", init)
        if not init.ndim:
            raise ValueError("init must have a batch dimension, (B, ...), got a tensor without dimensions")
        if shape is not None and sizes(shape) != tuple(init.shape):
            raise ValueError(f"shape {tuple(shape)} does not match init of shape {tuple(init.shape)}; leave shape= out")
        size, where = tuple(init.shape), init.device
    else:
        if init not in ("uniform", "normal"):
            raise ValueError(f"init must be 'uniform', 'normal' or a tensor of initial states, got {init!r}")
        if dtype not in FLOATS:
            raise TypeError(f"dtype must be {FLOAT_NAMES}, got {dtype}")
        size = () if shape is None else sizes(shape)
        if not size and resume is None:
            raise ValueError("give shape=, such as shape=(64, 3, 32, 32), or init= as a tensor of initial states")
        where = torch.empty(0, device=device).device
    choose(impl, resume.x.device if isinstance(resume, ChainState) else where)
    if resume is not None:
        return _resumed(resume, plan, size, seed, generator, sample_ids, sample_offset)
    elements_per_sample(size)
    ids, offset = resolve_sample_ids(sample_ids, sample_offset, size[0], where)
    word = resolve_seed(seed, generator, size[0], where)
    x = _initial_state(init, size, spread, word, ids, offset, dtype, where, impl)
    return ChainState(x, 0, word, ids, offset, None, plan.record)


def _resumed(
    resume: ChainState,
    plan: _Plan,
    size: tuple[int, ...],
    seed: Seed | None,
    generator: Generators | None,
    sample_ids: SampleIds | None,
    sample_offset: int,
) -> ChainState:
    """A copy of the state to go on from; what the caller says of it again must agree."""
    _check_resume(resume, plan.record, len(plan.rules) * plan.repeats)
    if size and size != tuple(resume.x.shape):
        raise ValueError(f"resume= is a state of shape {tuple(resume.x.shape)}, not {size}; leave shape= out")
    if generator is not None or (seed is not None and not _same(seed, resume.seed)):
        raise ValueError("resume= goes on with its own seed; leave seed= and generator= out")
    if sample_ids is not None or sample_offset:
        ids, offset = resolve_sample_ids(sample_ids, sample_offset, resume.x.shape[0], resume.x.device)
        if offset != resume.sample_offset or not _same(ids, resume.sample_ids):
            raise ValueError("resume= goes on with its own samples; leave sample_ids= and sample_offset= out")
    return replace(resume, x=resume.x.clone())


def _same(one: Seed | None, other: Seed | None) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    return one == other


@overload
def annealed_langevin(
    score: ScoreFunction, sigmas: Sigmas, *, full_output: Literal[False] = False, **options: Any
) -> Tensor: ...
@overload
def annealed_langevin(
    score: ScoreFunction, sigmas: Sigmas, *, full_output: Literal[True], **options: Any
) -> SamplingResult: ...
def annealed_langevin(  # type: ignore[misc]  # the overloads name only what changes the result
    score: ScoreFunction,
    sigmas: Sigmas,
    *,
    shape: Sequence[int] | None = None,
    init: Init = "uniform",
    epsilon: float | None = None,
    step_lr: float | None = None,
    steps_per_level: int = 100,
    corrector: Corrector = "langevin",
    denoise: bool = False,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: SampleIds | None = None,
    sample_offset: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    trajectory: int = 0,
    resume: ChainState | None = None,
    full_output: bool = False,
    impl: str = "auto",
) -> Tensor | SamplingResult:
    """Annealed Langevin dynamics (Song and Ermon 2019, Algorithm 1).

    For each noise level in turn, ``steps_per_level`` updates x + alpha_i/2 score(x, i) + sqrt(alpha_i) z with
    alpha_i = epsilon sigma_i^2 / sigma_L^2. The chain is not corrected for its step size: on a Gaussian each level is
    sampled 1/(1 - alpha_i/(4 v)) too wide in variance, v being the variance of the perturbed data; ``corrector="ou"``
    removes that on the noise's part. A sample depends on its own id and seed alone, not on its batch.

    Args:
        score: called as ``score(x, labels)`` with labels int64 ``(B,)``, returns the score, shape of ``x``, any float
            dtype. :func:`fastlangevin.adapt` makes one from a network of another convention.
        sigmas: noise levels in units of the data, largest first.
        shape: ``(B, ...)`` of the samples, where ``init`` is not a tensor.
        init: ``"uniform"``, U(0, 1) as in the paper; ``"normal"``, N(0, sigma_1^2); or the initial states, which are
            not changed.
        epsilon: the paper's step size at the last level.
        step_lr: the published code's, equal to epsilon/2. Exactly one of the two must be given.
        steps_per_level: updates for each noise level, T.
        corrector: ``"langevin"`` or ``"ou"``, see :func:`fastlangevin.rules.annealed`.
        denoise: end with x + sigma_L^2 score(x, L-1), the step to the posterior mean.
        seed: 0 to 2^64 - 1, or int64 tensor ``(B,)`` of one for each sample, by their bits.
        generator: a ``torch.Generator`` a seed is drawn from, or one for each sample. With neither, the seed comes from
            PyTorch's default CPU generator.
        sample_ids: ``B`` global ids, so that any subset of a run can be made again alone.
        sample_offset: id of the first sample where ``sample_ids`` is not given.
        dtype: of the samples, where ``init`` is not a tensor.
        device: likewise.
        callback: called with a :class:`StepInfo` after every update; returning True stops the chain.
        progress: show a progress bar.
        trajectory: keep the states after 0, k, 2k, ... updates, on the device; 0 keeps none. Needs ``full_output``.
        resume: a :class:`ChainState` to go on from; the chain ends with the bits it would have had.
        full_output: return a :class:`SamplingResult`.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

    Returns:
        The samples, or a :class:`SamplingResult`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    _check_callable(score, "score(x, labels)")
    ladder = check_sigmas(sigmas)
    size = rules.step_size(epsilon, step_lr)
    repeats = integer("steps_per_level", steps_per_level, 1, 2**31)
    keep = _kept(trajectory, full_output)
    record = {
        "sampler": "annealed_langevin",
        "stream": STREAM_VERSION,
        "sigmas": ladder,
        "epsilon": size,
        "steps_per_level": repeats,
        "corrector": corrector,
        "denoise": bool(denoise),
    }
    _check_draws(len(ladder) * repeats)
    plan = _Plan(
        rules.annealed(ladder, size, corrector),
        list(range(len(ladder))),
        repeats,
        rules.denoise(ladder[-1]) if denoise else None,
        record,
    )
    start = _start(
        init, shape, ladder[0], plan, resume, seed, generator, sample_ids, sample_offset, dtype, device, impl
    )
    labels = [torch.full((start.x.shape[0],), level, device=start.x.device) for level in range(len(ladder))]
    result = _run(
        lambda x, level: score(x, labels[level or 0]),
        plan,
        start,
        callback=callback,
        progress=progress,
        keep=keep,
        impl=impl,
    )
    return result if full_output else result.samples


@overload
def langevin(
    score: Callable[[Tensor], Tensor], init: Tensor, *, full_output: Literal[False] = False, **options: Any
) -> Tensor: ...
@overload
def langevin(
    score: Callable[[Tensor], Tensor], init: Tensor, *, full_output: Literal[True], **options: Any
) -> SamplingResult: ...
def langevin(  # type: ignore[misc]  # the overloads name only what changes the result
    score: Callable[[Tensor], Tensor],
    init: Tensor,
    *,
    steps: int,
    epsilon: float | None = None,
    step_lr: float | None = None,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: SampleIds | None = None,
    sample_offset: int = 0,
    callback: Callback | None = None,
    progress: bool = False,
    trajectory: int = 0,
    resume: ChainState | None = None,
    full_output: bool = False,
    impl: str = "auto",
) -> Tensor | SamplingResult:
    """Unadjusted Langevin dynamics: x + epsilon/2 score(x) + sqrt(epsilon) z, ``steps`` times.

    On a Gaussian of variance v it converges to the variance v / (1 - epsilon/(4v)), for epsilon < 4v.

    Args:
        score: called as ``score(x)``, returns the score, shape of ``x``, any float dtype.
        init: initial states ``(B, ...)``, not changed.
        steps: updates.
        epsilon: the paper's step size.
        step_lr: the published code's, x + step_lr score + sqrt(2 step_lr) z. Exactly one of the two must be given.
        seed, generator, sample_ids, sample_offset, callback, progress, trajectory, resume, full_output, impl: as for
            :func:`annealed_langevin`.

    Returns:
        The samples, or a :class:`SamplingResult`.
    """
    _check_callable(score, "score(x)")
    if not isinstance(init, Tensor):
        raise TypeError(
            f"init must be a tensor of initial states (B, ...), got {type(init).__name__}; use torch.as_tensor"
        )
    size = rules.step_size(epsilon, step_lr)
    repeats = integer("steps", steps, 0, MAX_DRAW + 1)
    keep = _kept(trajectory, full_output)
    record = {"sampler": "langevin", "stream": STREAM_VERSION, "epsilon": size, "steps": repeats}
    plan = _Plan([rules.langevin(size)], [None], repeats, None, record)
    start = _start(
        init, None, 0.0, plan, resume, seed, generator, sample_ids, sample_offset, init.dtype, init.device, impl
    )
    result = _run(
        lambda x, level: score(x),
        plan,
        start,
        callback=callback,
        progress=progress,
        keep=keep,
        impl=impl,
    )
    return result if full_output else result.samples


def _check_callable(score: object, call: str) -> None:
    if not callable(score):
        raise TypeError(f"score must be callable as {call}, got {type(score).__name__}")


def _kept(trajectory: int, full_output: bool) -> int:
    keep = integer("trajectory", int(trajectory) if isinstance(trajectory, bool) else trajectory, 0, 2**31)
    if keep and not full_output:
        raise ValueError("trajectory= is returned in the result object; add full_output=True")
    return keep
