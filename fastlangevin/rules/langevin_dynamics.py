"""Langevin dynamics: plain, annealed, and with the noise of the exact Ornstein-Uhlenbeck step.

With h the step of overdamped Langevin dynamics dx = score/2 dt + dW, the paper (Song and Ermon 2019, Algorithm 1) takes

    x <- x + h/2 score + sqrt(h) z,        h_i = epsilon sigma_i^2 / sigma_L^2

while its published code and NCSNv2 write x + step score + sqrt(2 step) z: the same update with h = 2 step, so that
epsilon = 2 step_lr. The name of the argument says which is meant, and exactly one must be given.

A temperature T multiplies the variance of the noise, so that the chain aims at a density proportional to p^(1/T): b
grows by sqrt(T), the ``noise_scale`` of other code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from fastlangevin.ladders import Sigmas, check_sigmas, per_level, positive
from fastlangevin.rules.coefficients import Coefficients, not_negative

__all__ = ["Corrector", "annealed", "langevin", "ornstein_uhlenbeck", "step_size"]

Corrector = Literal["langevin", "ou"]


def step_size(epsilon: float | None, step_lr: float | None) -> float:
    """The paper's epsilon, from it or from the published code's ``step_lr`` = epsilon / 2.

    Args:
        epsilon: the paper's step size, or None.
        step_lr: the published code's, or None.

    Returns:
        Epsilon, above zero.

    Raises:
        TypeError, ValueError: not exactly one is given, or it is no number above zero.
    """
    if (epsilon is None) == (step_lr is None):
        given = "neither" if epsilon is None else "both"
        raise ValueError(
            "give exactly one of epsilon= (the paper's: x + alpha/2 score + sqrt(alpha) z) and step_lr= (the published "
            f"code's: x + step score + sqrt(2 step) z, equal to epsilon = 2 step_lr); got {given}"
        )
    return positive("epsilon", epsilon) if epsilon is not None else 2 * positive("step_lr", step_lr)


def langevin(alpha: float, temperature: float = 1.0) -> Coefficients:
    """Unadjusted Langevin dynamics with the paper's step size: x + alpha/2 score + sqrt(T alpha) z.

    On a Gaussian of variance v the stationary variance is T v / (1 - alpha/(4v)): wider than the target.

    Args:
        alpha: the paper's step size, twice the published code's ``step_size``.
        temperature: T, zero or above; at 0 no noise is added.

    Returns:
        c = 1, a = alpha/2, b = sqrt(T alpha).

    Raises:
        TypeError, ValueError: ``alpha`` is not above zero, or ``temperature`` is negative.
    """
    alpha, temperature = positive("alpha", alpha), not_negative("temperature", temperature)
    return Coefficients(1.0, alpha / 2, math.sqrt(temperature * alpha) or None)


def ornstein_uhlenbeck(alpha: float, sigma: float, temperature: float = 1.0) -> Coefficients:
    """The same drift with the noise of the exact Ornstein-Uhlenbeck step for a Gaussian of variance sigma^2.

    With eta = alpha/(2 sigma^2): x + eta sigma^2 score + sigma sqrt(T (1 - (1 - eta)^2)) z, which leaves N(mu, T
    sigma^2) exactly invariant where the score is that of the noise alone. azula's corrector of ``delta`` is this with
    eta = 1 - sqrt(1 - delta).

    Args:
        alpha: the paper's step size, below 4 sigma^2.
        sigma: standard deviation of the noise.
        temperature: T, zero or above; at 0 no noise is added.

    Returns:
        c = 1, a = alpha/2, b = sigma sqrt(T eta (2 - eta)).

    Raises:
        TypeError, ValueError: an argument is out of range.
    """
    alpha, sigma = positive("alpha", alpha), positive("sigma", sigma)
    temperature = not_negative("temperature", temperature)
    eta = alpha / (2 * sigma**2)
    if eta >= 2:
        raise ValueError(
            f"corrector='ou' needs a step size below 4 sigma^2, got alpha = {alpha} at sigma = {sigma}; take a smaller "
            "epsilon= or step_lr="
        )
    return Coefficients(1.0, alpha / 2, sigma * math.sqrt(temperature * (eta * (2 - eta))) or None)


def annealed(
    ladder: Sigmas,
    epsilon: float | Sequence[float],
    corrector: Corrector = "langevin",
    temperature: float | Sequence[float] = 1.0,
) -> list[Coefficients]:
    """One rule a level of annealed Langevin dynamics, with alpha_i = epsilon sigma_i^2 / sigma_L^2.

    Args:
        ladder: noise levels in units of the data, largest first.
        epsilon: the paper's step size at the last level, ``step_size(None, step_lr)`` of the published code's; or one
            for each level.
        corrector: ``"langevin"``, or ``"ou"`` without the discretisation's excess width on the Gaussian part.
        temperature: T, see :func:`langevin`; or one for each level.

    Returns:
        ``L`` rules, the first for sigma_1.

    Raises:
        TypeError, ValueError: ``ladder`` does not descend, ``corrector`` is not known, or a number is out of range.
    """
    if corrector not in get_args(Corrector):
        raise ValueError(f"corrector must be one of {', '.join(get_args(Corrector))}, got {corrector!r}")
    levels = check_sigmas(ladder, "ladder")
    sizes = [positive("epsilon", each) for each in per_level("epsilon", epsilon, len(levels))]
    rules = []
    for sigma, size, heat in zip(levels, sizes, per_level("temperature", temperature, len(levels)), strict=True):
        alpha = size * (sigma / levels[-1]) ** 2
        rules.append(langevin(alpha, heat) if corrector == "langevin" else ornstein_uhlenbeck(alpha, sigma, heat))
    return rules
