"""Schedules of variance preserving noise: beta_1 .. beta_N of single steps, and the line beta(t) they come from.

x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) z makes x_i = sqrt(alpha_bar_i) data + sqrt(1 - alpha_bar_i) z, where
alpha_bar_i is the product of 1 - beta up to i (Ho et al. 2020). In continuous time dx = -beta(t)/2 x dt +
sqrt(beta(t)) dW, and alpha_bar(t) is exp of minus the integral of beta from 0 to t (Song et al. 2021).

Betas stand as every code base has them, beta_1, the least noise, first. What is made of them for sampling stands as it
is used: the most noise first, like a ladder.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

from torch import Tensor

from fastlangevin.ladders import positive
from fastlangevin.noise import integer
from fastlangevin.rules.coefficients import below_one, not_negative

__all__ = ["Betas", "LinearBeta", "alpha_bars"]

Betas = Tensor | Iterable[float]


@dataclass(frozen=True)
class LinearBeta:
    """The schedule beta(t) = beta_min + t (beta_max - beta_min) of score_sde, 0 <= t <= 1.

    With the defaults ``betas()`` is the schedule of Ho et al. (2020), from 1e-4 to 0.02.

    Args:
        beta_min: beta(0).
        beta_max: beta(1), not below ``beta_min`` and below ``steps``.
        steps: N.
        t_end: the time at which sampling stops, between 0 and 1; score_sde's 1e-3. With t_end = 1/N the steps of 1/N
            are just as far apart as the times.

    Raises:
        TypeError, ValueError: an argument is out of range.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    steps: int = 1000
    t_end: float = 1e-3

    def __post_init__(self) -> None:
        low, high = positive("beta_min", self.beta_min), positive("beta_max", self.beta_max)
        count = integer("steps", self.steps, 2, 10**6)
        below_one("t_end", self.t_end)
        if high < low:
            raise ValueError(f"beta_max must not be below beta_min, got {high} and {low}")
        if high >= count:
            raise ValueError(
                f"beta_max/steps, the beta of the last step, must be below 1, got {high}/{count}; take more steps"
            )

    def betas(self) -> list[float]:
        """beta_1 .. beta_N of single steps, the least noise first: N numbers from beta_min/N to beta_max/N."""
        rise = (self.beta_max - self.beta_min) / (self.steps - 1)
        return [(self.beta_min + index * rise) / self.steps for index in range(self.steps)]

    def times(self) -> list[float]:
        """N times from 1 down to ``t_end``, at which sampling asks for the score."""
        return [1 - index / (self.steps - 1) * (1 - self.t_end) for index in range(self.steps)]

    def rate(self, t: float) -> float:
        """beta(t)."""
        return self.beta_min + not_negative("t", t) * (self.beta_max - self.beta_min)

    def integral(self, t: float) -> float:
        """Integral of beta from 0 to t."""
        t = not_negative("t", t)
        return t * self.beta_min + t**2 / 2 * (self.beta_max - self.beta_min)

    def alpha_bar(self, t: float) -> float:
        """Square of the data's factor at time t. The noise has the variance 1 - alpha_bar, in sub-VP its square."""
        return math.exp(-self.integral(t))


def check_betas(betas: Betas) -> list[float]:
    """A schedule as Python floats, or an error that says what is wrong with it."""
    if hasattr(betas, "tolist"):
        betas = betas.tolist()
    if isinstance(betas, str) or not isinstance(betas, Iterable):
        raise TypeError(f"betas must be a schedule such as LinearBeta().betas(), got {betas!r}")
    values = list(betas)
    if not values:
        raise ValueError("betas must have at least one step, got none")
    schedule = [below_one(f"betas[{index}]", value) for index, value in enumerate(values)]
    if schedule[0] > schedule[-1] and schedule == sorted(schedule, reverse=True):
        raise ValueError(
            f"betas must begin with beta_1, the least noise, but this schedule descends from {schedule[0]} to "
            f"{schedule[-1]}; give it the other way round, betas[::-1] or betas.flip(0)"
        )
    return schedule


def alpha_bars(betas: Betas) -> list[float]:
    """alpha_bar_1 .. alpha_bar_N, the products of 1 - beta, in the order of ``betas``.

    Args:
        betas: beta_1 .. beta_N, each between 0 and 1, the least noise first.

    Returns:
        N numbers between 0 and 1.

    Raises:
        TypeError, ValueError: ``betas`` is no such schedule.
    """
    return list(accumulate((1 - beta for beta in check_betas(betas)), mul))
