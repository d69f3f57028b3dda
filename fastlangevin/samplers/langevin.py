"""Unadjusted Langevin dynamics at one level: ``langevin``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Unpack, overload

from torch import Tensor

from fastlangevin import rules
from fastlangevin.calling import Guarded
from fastlangevin.mixture import GaussianMixture, PerturbedMixture
from fastlangevin.noise import MAX_DRAW, STREAM_VERSION, integer
from fastlangevin.samplers.chain import SamplingResult
from fastlangevin.samplers.engine import run
from fastlangevin.samplers.options import (
    DEFAULTS,
    ChainOptions,
    RunOptions,
    check_callable,
    complete,
    options_record,
    takes,
)
from fastlangevin.samplers.plan import Level, Move, Plan
from fastlangevin.samplers.start import begin

__all__ = ["langevin"]

OneLevelScore = Callable[[Tensor], Tensor] | GaussianMixture


@overload
def langevin(score: OneLevelScore, init: Tensor, *, full_output: Literal[False] = False, **options: Any) -> Tensor: ...
@overload
def langevin(score: OneLevelScore, init: Tensor, *, full_output: Literal[True], **options: Any) -> SamplingResult: ...
@takes(RunOptions, DEFAULTS)  # type: ignore[misc]  # the overloads name only what changes the result
def langevin(
    score: OneLevelScore,
    init: Tensor,
    *,
    steps: int,
    epsilon: float | None = None,
    step_lr: float | None = None,
    temperature: float = 1.0,
    **options: Unpack[RunOptions],
) -> Tensor | SamplingResult:
    """Unadjusted Langevin dynamics (Song and Ermon 2019, equation 4): x + epsilon/2 score(x) + sqrt(epsilon) z.

    On a Gaussian of variance v it converges to the variance v / (1 - epsilon/(4v)), for epsilon < 4v.

    Args:
        score: called as ``score(x)``, returns the score, shape of ``x``, any float dtype; or a
            :class:`fastlangevin.GaussianMixture`.
        init: initial states ``(B, ...)``, not changed.
        steps: updates.
        epsilon: the paper's step size.
        step_lr: the published code's, x + step_lr score + sqrt(2 step_lr) z. Exactly one of the two must be given.
        temperature: factor on the variance of the noise.
        options: those of :class:`fastlangevin.samplers.RunOptions`.

    Returns:
        The samples, or a :class:`SamplingResult`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite, with ``non_finite="raise"``.
    """
    chosen: ChainOptions = {**complete(options, RunOptions), "init": init}
    source: object = None  # the kernel of another score would take its first level
    if isinstance(score, GaussianMixture):
        source = PerturbedMixture(score, [0.0], chosen["impl"])
        score = source.at_one_level
    else:
        score = Guarded("score", check_callable("score", score, "score(x)"), in_place=True)
    if not isinstance(init, Tensor):
        raise TypeError(
            f"init must be a tensor of initial states (B, ...), got {type(init).__name__}; use torch.as_tensor"
        )
    size = rules.step_size(epsilon, step_lr)
    total = integer("steps", steps, 0, MAX_DRAW + 1)
    move = Move(rules.langevin(size, temperature), None)
    record: dict[str, Any] = {"sampler": "langevin", "stream": STREAM_VERSION, "epsilon": size, "steps": total}
    if temperature != 1.0:
        record["temperature"] = float(temperature)
    plan = Plan(lambda index: move, total, None, record | options_record(chosen), [])

    def at_one_level(x: Tensor, level: Level) -> Tensor:
        return score(x)

    result = run(at_one_level, at_one_level, plan, begin(plan, 0.0, chosen), chosen, source)
    return result if chosen["full_output"] else result.samples
