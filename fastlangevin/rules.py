"""Rules: the coefficients (c, a, b) of one update x <- c*x + a*score + b*z. Pure numbers, no tensors.

With h the step of overdamped Langevin dynamics dx = score/2 dt + dW, the paper (Song and Ermon 2019, Algorithm 1) takes

    x <- x + h/2 score + sqrt(h) z,        h_i = epsilon sigma_i^2 / sigma_L^2

while its published code and NCSNv2 write x + step score + sqrt(2 step) z: the same update with h = 2 step, so that
epsilon = 2 step_lr. The name of the argument says which is meant, and exactly one must be given.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

from fastlangevin.schedules import positive

__all__ = ["Coefficients", "Corrector", "annealed", "denoise", "langevin", "step_size"]

Corrector = Literal["langevin", "ou"]


class Coefficients(NamedTuple):
    """One update x <- c*x + a*score + b*z; ``b`` is None where no noise is added."""

    c: float
    a: float
    b: float | None


def step_size(epsilon: float | None, step_lr: float | None) -> float:
    """The paper's epsilon, from it or from the published code's ``step_lr`` = epsilon / 2."""
    if (epsilon is None) == (step_lr is None):
        given = "neither" if epsilon is None else "both"
        raise ValueError(
            "give exactly one of epsilon= (the paper's: x + alpha/2 score + sqrt(alpha) z) and step_lr= (the published "
            f"code's: x + step score + sqrt(2 step) z, equal to epsilon = 2 step_lr); got {given}"
        )
    return positive("epsilon", epsilon) if epsilon is not None else 2 * positive("step_lr", step_lr)


def langevin(alpha: float) -> Coefficients:
    """Unadjusted Langevin dynamics with the paper's step size: x + alpha/2 score + sqrt(alpha) z.

    On a Gaussian of variance v the stationary variance is v / (1 - alpha/(4v)): wider than the target.
    """
    alpha = positive("alpha", alpha)
    return Coefficients(1.0, alpha / 2, math.sqrt(alpha))


def ornstein_uhlenbeck(alpha: float, sigma: float) -> Coefficients:
    """The same drift with the noise of the exact Ornstein-Uhlenbeck step for a Gaussian of variance sigma^2.

    With eta = alpha/(2 sigma^2): x + eta sigma^2 score + sigma sqrt(1 - (1 - eta)^2) z, which leaves N(mu, sigma^2)
    exactly invariant where the score is that of the noise alone. Needs eta < 2.
    """
    alpha, sigma = positive("alpha", alpha), positive("sigma", sigma)
    eta = alpha / (2 * sigma**2)
    if eta >= 2:
        raise ValueError(
            f"corrector='ou' needs a step size below 4 sigma^2, got alpha = {alpha} at sigma = {sigma}; take a smaller "
            "epsilon= or step_lr="
        )
    return Coefficients(1.0, alpha / 2, sigma * math.sqrt(eta * (2 - eta)))


def annealed(ladder: list[float], epsilon: float, corrector: Corrector = "langevin") -> list[Coefficients]:
    """One rule a level of annealed Langevin dynamics, with alpha_i = epsilon sigma_i^2 / sigma_L^2.

    Args:
        ladder: noise levels, largest first.
        epsilon: the paper's step size at the last level.
        corrector: ``"langevin"``, or ``"ou"`` without the discretisation's excess width on the Gaussian part.
    """
    if corrector not in get_args(Corrector):
        raise ValueError(f"corrector must be one of {', '.join(get_args(Corrector))}, got {corrector!r}")
    rules = []
    for sigma in ladder:
        alpha = epsilon * (sigma / ladder[-1]) ** 2
        rules.append(langevin(alpha) if corrector == "langevin" else ornstein_uhlenbeck(alpha, sigma))
    return rules


def denoise(sigma: float) -> Coefficients:
    """Tweedie's step to the posterior mean: x + sigma^2 score, no noise."""
    return Coefficients(1.0, positive("sigma", sigma) ** 2, None)
