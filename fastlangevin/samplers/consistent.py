"""Consistent annealed sampling: ``consistent_annealed``."""

from __future__ import annotations

from typing import Any, Literal, Unpack, overload

from torch import Tensor

from fastlangevin import schemes
from fastlangevin.ladders import Sigmas
from fastlangevin.samplers.calls import Score
from fastlangevin.samplers.chain import SamplingResult
from fastlangevin.samplers.options import DEFAULTS, ChainOptions, complete, takes
from fastlangevin.samplers.sample import run

__all__ = ["consistent_annealed"]


@overload
def consistent_annealed(
    score: Score, sigmas: Sigmas, *, full_output: Literal[False] = False, **options: Any
) -> Tensor: ...
@overload
def consistent_annealed(
    score: Score, sigmas: Sigmas, *, full_output: Literal[True], **options: Any
) -> SamplingResult: ...
@takes(ChainOptions, DEFAULTS)  # type: ignore[misc]  # the overloads name only what changes the result
def consistent_annealed(
    score: Score,
    sigmas: Sigmas,
    *,
    epsilon: float | None = None,
    step_lr: float | None = None,
    denoise: bool = False,
    **options: Unpack[ChainOptions],
) -> Tensor | SamplingResult:
    """Consistent annealed sampling (Jolicoeur-Martineau et al. 2021): one update for each level.

    x + eta sigma_i^2 score(x, i) + b_i z with eta = epsilon / (2 sigma_L^2) and b_i such that the noise left in x has
    exactly the variance sigma_{i+1}^2 of the next level; none is added at the last. The exact law is that of
    ``init="normal"``. ``shape`` or ``init`` must be given.

    Args:
        score: as for :func:`fastlangevin.annealed_langevin`.
        sigmas: noise levels in units of the data, largest first.
        epsilon: the paper's step size at the last level; ``step_lr`` = epsilon/2. Exactly one must be given.
        step_lr: likewise.
        denoise: end with the step to the posterior mean.
        options: those of :class:`fastlangevin.samplers.ChainOptions`.

    Returns:
        The samples, or a :class:`SamplingResult` with ``full_output=True``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range, or the step is too small or too large
            for the ladder.
        NonFiniteError: a state is not finite, with ``non_finite="raise"``.
    """
    chosen = complete(options, ChainOptions)
    scheme = schemes.consistent_annealed(sigmas, epsilon=epsilon, step_lr=step_lr, denoise=denoise)
    return run(score, scheme, chosen)
