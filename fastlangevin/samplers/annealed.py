"""Annealed Langevin dynamics: ``annealed_langevin``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Unpack, overload

from torch import Tensor

from fastlangevin import schemes
from fastlangevin.ladders import Sigmas
from fastlangevin.rules import Corrector
from fastlangevin.samplers.calls import Score
from fastlangevin.samplers.chain import SamplingResult
from fastlangevin.samplers.options import DEFAULTS, ChainOptions, complete, takes
from fastlangevin.samplers.sample import run

__all__ = ["annealed_langevin"]


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
    epsilon: float | Sequence[float] | None = None,
    step_lr: float | Sequence[float] | None = None,
    steps_per_level: int | Sequence[int] = 100,
    corrector: Corrector = "langevin",
    temperature: float | Sequence[float] = 1.0,
    first_level: int = 0,
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
        epsilon: the paper's step size at the last level; or one number for each level.
        step_lr: the published code's, equal to epsilon/2. Exactly one of the two must be given.
        steps_per_level: updates for each noise level, T; or a number of updates for each level.
        corrector: ``"langevin"`` or ``"ou"``, see :func:`fastlangevin.rules.annealed`.
        temperature: factor on the variance of the noise; 1 samples the distribution itself. Or one number for each
            level.
        first_level: the level that the chain begins at; those above it are left out.
        denoise: end with x + sigma_L^2 score(x, L-1), the step to the posterior mean.
        options: those of :class:`fastlangevin.samplers.ChainOptions`.

    Returns:
        The samples, or a :class:`SamplingResult` with ``full_output=True``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite, with ``non_finite="raise"``.
    """
    chosen = complete(options, ChainOptions)
    scheme = schemes.annealed_langevin(
        sigmas,
        epsilon=epsilon,
        step_lr=step_lr,
        steps_per_level=steps_per_level,
        corrector=corrector,
        temperature=temperature,
        first_level=first_level,
        denoise=denoise,
    )
    return run(score, scheme, chosen)
