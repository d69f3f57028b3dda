"""The largest useful step size: Technique 4 of Song and Ermon (2020).

For data that are one point, a level that is entered with the samples of the level before it, of variance gamma^2
sigma_i^2, is left after T updates of annealed Langevin dynamics with variance R sigma_i^2,

    R = (1 - a)^(2T) (gamma^2 - b) + b,    b = 2a / (1 - (1 - a)^2) = 1 / (1 - a/2),    a = step_lr / sigma_L^2

the same at every level; the step is to bring R nearest to 1. That paper and the published code write x + step score +
sqrt(2 step) z with step_i = step_lr sigma_i^2 / sigma_L^2; what it calls epsilon is ``step_lr`` here, and ``epsilon``
is the first paper's (Song and Ermon 2019), 2 step_lr: see :mod:`fastlangevin.rules`.

R is above 1 for every step, since an update takes a variance v >= 1 to (1 - a)^2 v + 2a >= 1 + a^2. So |R - 1| is least
where R is, and that is at one a: with b > 0 growing in a, the derivative of R has the sign of

    (1 - (1 - a)^(2T)) / (2 - a)^2 - T (1 - a)^(2T-1) (gamma^2 - b)

whose first term grows and whose second falls on 0 < a < 1 for as long as b < gamma^2; beyond that, and from a = 1 to 2,
R grows.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from fastlangevin.advisor.spacing import ratio
from fastlangevin.ladders import Sigmas, check_sigmas, positive
from fastlangevin.noise import integer
from fastlangevin.rules import step_size

__all__ = ["StepSize", "final_variance_ratio", "step_size_for", "variance_ratio"]

MAX_STEPS = 2**31


class StepSize(NamedTuple):
    """A step size in both conventions.

    Attributes:
        step_lr: the published code's, in squared units of the data.
        epsilon: the paper's, 2 step_lr.
        R: the variance ratio that it has.
    """

    step_lr: float
    epsilon: float
    R: float


@overload
def variance_ratio(
    ladder: float,
    *,
    steps_per_level: int,
    sigma_L: float | None = None,
    epsilon: float | None = None,
    step_lr: float | None = None,
) -> float: ...
@overload
def variance_ratio(
    ladder: Sigmas,
    *,
    steps_per_level: int,
    sigma_L: None = None,
    epsilon: float | None = None,
    step_lr: float | None = None,
) -> Tensor: ...
def variance_ratio(
    ladder: float | Sigmas,
    *,
    steps_per_level: int,
    sigma_L: float | None = None,
    epsilon: float | None = None,
    step_lr: float | None = None,
) -> float | Tensor:
    """The variance ratio R with which annealed Langevin dynamics leaves a noise level.

    Args:
        ladder: noise levels, largest first, or gamma alone, the ratio of neighbouring levels.
        steps_per_level: updates for each noise level, T.
        sigma_L: the smallest noise level, in units of the data, where ``ladder`` is gamma.
        epsilon: the paper's step size at the last level.
        step_lr: the published code's, equal to epsilon/2. Exactly one of the two must be given.

    Returns:
        R for gamma; for a ladder fp64 ``(L - 1,)``, R of every level but the first.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range, or the step is not stable: step_lr is 2
            sigma_L^2 or more.
    """
    gammas, low = _ratios(ladder, sigma_L)
    a = _relative_step(step_size(epsilon, step_lr) / 2, low)
    steps = integer("steps_per_level", steps_per_level, 1, MAX_STEPS)
    found = [1 + _excess(a, gamma**2, steps) for gamma in gammas]
    return found[0] if _is_ratio(ladder) else torch.tensor(found, dtype=torch.float64, device="cpu")


def step_size_for(ladder: float | Sigmas, *, steps_per_level: int, sigma_L: float | None = None) -> StepSize:
    """The step size whose variance ratio R is nearest to 1.

    Args:
        ladder: noise levels, largest first, or gamma alone, the ratio of neighbouring levels. Of a ladder that is not
            geometric the largest ratio counts, which has the largest R.
        steps_per_level: updates for each noise level, T.
        sigma_L: the smallest noise level, in units of the data, where ``ladder`` is gamma.

    Returns:
        The step size in both conventions, and its R.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    gammas, sigma = _ratios(ladder, sigma_L)
    gamma, steps = max(gammas), integer("steps_per_level", steps_per_level, 1, MAX_STEPS)
    low, high = 0.0, 1.0
    while low < (a := (low + high) / 2) < high:
        low, high = (a, high) if _falls(a, gamma, steps) else (low, a)
    step_lr = low * sigma**2
    return StepSize(step_lr, 2 * step_lr, 1 + _excess(low, gamma**2, steps))


def final_variance_ratio(
    sigmas: Sigmas, *, steps_per_level: int, epsilon: float | None = None, step_lr: float | None = None
) -> float:
    """The variance at the end of the whole chain over sigma_L^2, for data that are one point.

    R takes the level before for perfectly sampled; here only the first is, and every other is entered with what the one
    before it left. The denoise step is not counted.

    Args:
        sigmas: noise levels in units of the data, largest first.
        steps_per_level: updates for each noise level, T.
        epsilon: the paper's step size at the last level.
        step_lr: the published code's, equal to epsilon/2. Exactly one of the two must be given.

    Returns:
        The ratio of the variances, above 1.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range, or the step is not stable: step_lr is 2
            sigma_L^2 or more.
    """
    gammas, low = _ratios(check_sigmas(sigmas), None)
    a = _relative_step(step_size(epsilon, step_lr) / 2, low)
    steps = integer("steps_per_level", steps_per_level, 1, MAX_STEPS)
    variance = 1.0
    for gamma in gammas:
        variance = 1 + _excess(a, gamma**2 * variance, steps)
    return variance


def _is_ratio(ladder: Any) -> bool:
    return hasattr(ladder, "__float__") and not getattr(ladder, "ndim", 0)


def _ratios(ladder: Any, sigma_L: float | None) -> tuple[list[float], float]:
    """The ratios of neighbouring levels, and the smallest level."""
    if _is_ratio(ladder):
        if sigma_L is None:
            raise ValueError(f"give sigma_L=, the smallest noise level, with the ratio {ladder!r}, or a whole ladder")
        return [ratio("ladder, as a ratio,", ladder)], positive("sigma_L", sigma_L)
    if sigma_L is not None:
        raise ValueError(f"sigma_L is for a ratio alone; a ladder has its own, so leave sigma_L={sigma_L!r} out")
    sigmas = check_sigmas(ladder)
    if len(sigmas) == 1:
        raise ValueError(f"sigmas must have at least two noise levels, or there is no ratio of them, got {sigmas}")
    return [high / low for high, low in pairwise(sigmas)], sigmas[-1]


def _relative_step(step_lr: float, sigma_L: float) -> float:
    a = step_lr / sigma_L**2
    if a >= 2:
        raise ValueError(
            f"the step size is not stable: step_lr = {step_lr:g} (epsilon = {2 * step_lr:g}) must be below 2 sigma_L^2 "
            f"= {2 * sigma_L**2:g}; take a smaller one, such as step_size_for finds"
        )
    return a


def _powers(a: float, steps: int) -> tuple[float, float]:
    """(1 - a)^(2T) and 1 minus it, both to full accuracy."""
    if a == 1:
        return 0.0, 1.0
    exponent = 2 * steps * (math.log1p(-a) if a < 1 else math.log(a - 1))
    return math.exp(exponent), -math.expm1(exponent)


def _excess(a: float, entered: float, steps: int) -> float:
    """R - 1, for a level entered with variance ``entered`` sigma_i^2."""
    power, rest = _powers(a, steps)
    return power * (entered - 1) + rest * a / (2 - a)


def _falls(a: float, gamma: float, steps: int) -> bool:
    """Returns whether R falls at 0 < a < 1."""
    power, rest = _powers(a, steps)
    distance = (gamma - 1) * (gamma + 1) - a / (2 - a)
    return rest / (2 - a) ** 2 < steps * power / (1 - a) * distance
