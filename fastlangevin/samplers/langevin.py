"""Unadjusted Langevin dynamics at one level: ``langevin``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Unpack, overload

from torch import Tensor

from fastlangevin import schemes
from fastlangevin.mixture import GaussianMixture
from fastlangevin.samplers.chain import SamplingResult
from fastlangevin.samplers.options import DEFAULTS, RunOptions, complete, takes
from fastlangevin.samplers.sample import run

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
    if not isinstance(init, Tensor):
        raise TypeError(
            f"init must be a tensor of initial states (B, ...), got {type(init).__name__}; use torch.as_tensor"
        )
    scheme = schemes.langevin(steps=steps, epsilon=epsilon, step_lr=step_lr, temperature=temperature)
    return run(score, scheme, {**complete(options, RunOptions), "init": init})
