"""Annealed Langevin dynamics: ``annealed_langevin``."""

from __future__ import annotations

from typing import Any, Literal, Unpack, overload

from torch import Tensor

from fastlangevin import rules
from fastlangevin.ladders import Sigmas, check_sigmas
from fastlangevin.noise import STREAM_VERSION, integer
from fastlangevin.rules import Corrector
from fastlangevin.samplers.chain import SamplingResult
from fastlangevin.samplers.labelled import Score, check_score, run_labelled
from fastlangevin.samplers.options import DEFAULTS, ChainOptions, complete, options_record, takes
from fastlangevin.samplers.plan import Move, Plan, check_draws

__all__ = ["annealed_langevin", "annealed_plan"]


def annealed_plan(
    sampler: str,
    sigmas: Sigmas,
    epsilon: float | None,
    step_lr: float | None,
    steps_per_level: int,
    corrector: Corrector,
    temperature: float,
    denoise: bool,
    options: ChainOptions,
) -> Plan:
    """The chain of annealed Langevin dynamics: ``steps_per_level`` updates at each level in turn."""
    ladder = check_sigmas(sigmas)
    size = rules.step_size(epsilon, step_lr)
    repeats = integer("steps_per_level", steps_per_level, 1, 2**31)
    moves = [Move(rule, level) for level, rule in enumerate(rules.annealed(ladder, size, corrector, temperature))]
    record = {
        "sampler": sampler,
        "stream": STREAM_VERSION,
        "sigmas": ladder,
        "epsilon": size,
        "steps_per_level": repeats,
        "corrector": corrector,
        "denoise": bool(denoise),
        **({} if temperature == 1.0 else {"temperature": float(temperature)}),
        **options_record(options),
    }
    last = Move(rules.denoise(ladder[-1]), len(ladder) - 1) if denoise else None
    return Plan(lambda index: moves[index // repeats], check_draws(len(ladder) * repeats), last, record, ladder)


@overload
def annealed_langevin(
    score: Score, sigmas: Sigmas, *, full_output: Literal[False] = False, **options: Any
) -> Tensor: ...
@overload
def annealed_langevin(
    score: Score, sigmas: Sigmas, *, full_output: Literal[True], **options: Any
) -> SamplingResult: ...
@takes(ChainOptions, DEFAULTS)  # type: ignore[misc]  # the overloads name only what changes the result
def annealed_langevin(
    score: Score,
    sigmas: Sigmas,
    *,
    epsilon: float | None = None,
    step_lr: float | None = None,
    steps_per_level: int = 100,
    corrector: Corrector = "langevin",
    temperature: float = 1.0,
    denoise: bool = False,
    **options: Unpack[ChainOptions],
) -> Tensor | SamplingResult:
    """Annealed Langevin dynamics (Song and Ermon 2019, Algorithm 1).

    For each noise level in turn, ``steps_per_level`` updates x + alpha_i/2 score(x, i) + sqrt(alpha_i) z with
    alpha_i = epsilon sigma_i^2 / sigma_L^2. The chain is not corrected for its step size: on a Gaussian each level is
    sampled 1/(1 - alpha_i/(4 v)) too wide in variance, v being the variance of the perturbed data; ``corrector="ou"``
    removes that on the noise's part. Noise and updates depend on a sample's id and seed alone, not on its batch, and so
    do its bits where ``score`` treats samples separately, bit for bit. ``shape`` or ``init`` must be given.

    Args:
        score: called as ``score(x, labels)`` with labels int64 ``(B,)``, returns the score, shape of ``x``, any float
            dtype. :func:`fastlangevin.adapt` makes one from a network of another convention. Or a
            :class:`fastlangevin.GaussianMixture`, whose exact score at each level is taken.
        sigmas: noise levels in units of the data, largest first.
        epsilon: the paper's step size at the last level.
        step_lr: the published code's, equal to epsilon/2. Exactly one of the two must be given.
        steps_per_level: updates for each noise level, T.
        corrector: ``"langevin"`` or ``"ou"``, see :func:`fastlangevin.rules.annealed`.
        temperature: factor on the variance of the noise; 1 samples the distribution itself.
        denoise: end with x + sigma_L^2 score(x, L-1), the step to the posterior mean.
        options: those of :class:`fastlangevin.samplers.ChainOptions`.

    Returns:
        The samples, or a :class:`SamplingResult` with ``full_output=True``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite, with ``non_finite="raise"``.
    """
    check_score(score)
    chosen = complete(options, ChainOptions)
    plan = annealed_plan(
        "annealed_langevin", sigmas, epsilon, step_lr, steps_per_level, corrector, temperature, denoise, chosen
    )
    return run_labelled(score, plan, chosen)
