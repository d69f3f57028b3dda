"""Consistent annealed sampling (Jolicoeur-Martineau et al. 2021): one update a level, whose noise leads to the next.

Annealed Langevin dynamics aims at a level's width and never quite has it. Here the drift of every level takes away the
share eta of the noise, and just so much is added that the next level's width results.
"""

from __future__ import annotations

import math
from itertools import pairwise

from fastlangevin.ladders import Sigmas, check_sigmas, positive
from fastlangevin.rules.coefficients import Coefficients

__all__ = ["consistent"]


def consistent(ladder: Sigmas, epsilon: float) -> list[Coefficients]:
    """Consistent annealed sampling: x + eta sigma_i^2 score + b_i z, once a level, eta = epsilon/(2 sigma_L^2).

    With gamma_i = sigma_{i+1}/sigma_i, b_i = sigma_{i+1} sqrt(1 - ((1 - eta)/gamma_i)^2); no noise in the last update.
    Where the score is that of the noise alone and the chain starts from N(mu, sigma_1^2), it has exactly the variance
    sigma_i^2 before update i, and (1 - eta)^2 sigma_L^2 at the end. gamma_i is taken for each level, where the paper
    and its code have one for the whole ladder, so that a ladder need not be geometric.

    Args:
        ladder: two noise levels or more, in units of the data, largest first.
        epsilon: the paper's step size; the published code's is ``step_lr`` = eta sigma_L^2 = epsilon/2. eta must be
            from 1 - gamma to 1 + gamma for the smallest gamma.

    Returns:
        ``L`` rules, the first for sigma_1.

    Raises:
        TypeError, ValueError: ``ladder`` does not descend or has one level, or ``epsilon`` does not fit it.
    """
    levels = check_sigmas(ladder, "ladder")
    epsilon = positive("epsilon", epsilon)
    if len(levels) < 2:
        raise ValueError(
            "ladder must have two levels or more for consistent annealed sampling, which leads from one to the next, "
            f"got {levels}; use langevin for one level"
        )
    unit = 2 * levels[-1] ** 2
    eta = epsilon / unit
    gamma = min(low / high for high, low in pairwise(levels))
    if abs(1 - eta) > gamma:
        raise ValueError(
            f"epsilon = {epsilon} does not fit the ladder: eta = epsilon/(2 sigma_L^2) = {eta:.6g} must be from "
            f"{1 - gamma:.6g} to {1 + gamma:.6g}, or sqrt(1 - ((1 - eta)/gamma)^2) is not real for the smallest ratio "
            f"of neighbouring levels, gamma = {gamma:.6g}; take epsilon from {unit * (1 - gamma):.6g} to "
            f"{unit * (1 + gamma):.6g} (half of that as step_lr), or more levels"
        )
    rules = []
    for high, low in pairwise(levels):
        left = (1 - eta) * high / low
        # Factored, since the difference of squares cancels where eta is at its bounds; max: it may round below zero.
        noise = low * math.sqrt(max(0.0, (1 - left) * (1 + left)))
        rules.append(Coefficients(1.0, eta * high**2, noise or None))
    return [*rules, Coefficients(1.0, eta * levels[-1] ** 2, None)]
