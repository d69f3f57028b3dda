"""Predictors of variance preserving noise, and of sub-VP, which has less noise at all times (score_sde).

VP: dx = -beta/2 x dt + sqrt(beta) dW; the score is that of sqrt(alpha_bar) data + sqrt(1 - alpha_bar) z.
Sub-VP: the noise is sqrt(beta (1 - alpha_bar^2)) dW; the score is that of sqrt(alpha_bar) data + (1 - alpha_bar) z.
See :mod:`fastlangevin.rules.beta_schedules` for beta and alpha_bar. Song et al. (2021), appendices B, D and E.
"""

from __future__ import annotations

import math

from fastlangevin.rules.beta_schedules import Betas, LinearBeta, check_betas
from fastlangevin.rules.coefficients import Coefficients

__all__ = [
    "subvp_euler_maruyama",
    "subvp_probability_flow",
    "vp_ancestral",
    "vp_euler_maruyama",
    "vp_probability_flow",
    "vp_reverse_diffusion",
]


def vp_reverse_diffusion(betas: Betas) -> list[Coefficients]:
    """Reverse diffusion: (2 - sqrt(1 - beta)) x + beta score + sqrt(beta) z.

    On data N(0, 1), whose variance every step should keep, one step from variance 1 gives (1 - r + r^2)^2 + 1 - r^2
    with r = sqrt(1 - beta). The last update's noise is what the published sampler leaves out by returning the mean.

    Args:
        betas: beta_1 .. beta_N, each between 0 and 1, the least noise first, as ``LinearBeta().betas()``.

    Returns:
        N rules in the order of sampling, the first for beta_N.

    Raises:
        TypeError, ValueError: ``betas`` is no such schedule.
    """
    return [Coefficients(2 - math.sqrt(1 - beta), beta, math.sqrt(beta)) for beta in reversed(check_betas(betas))]


def vp_ancestral(betas: Betas) -> list[Coefficients]:
    """Ancestral sampling: (x + beta score)/sqrt(1 - beta) + sqrt(beta) z.

    On data N(0, 1) every update keeps the variance 1 exactly. All but its last update are those of
    :func:`ddpm_ancestral` with ``"fixed_large"``, which adds no noise there.

    Args:
        betas: as for :func:`vp_reverse_diffusion`.

    Returns:
        N rules in the order of sampling, the first for beta_N.

    Raises:
        TypeError, ValueError: ``betas`` is no such schedule.
    """
    return [
        Coefficients(1 / math.sqrt(1 - beta), beta / math.sqrt(1 - beta), math.sqrt(beta))
        for beta in reversed(check_betas(betas))
    ]


def vp_probability_flow(betas: Betas) -> list[Coefficients]:
    """Probability flow: (2 - sqrt(1 - beta)) x + beta/2 score, no noise: reverse diffusion with half the drift.

    On data N(0, 1), which the flow leaves alone, an update multiplies by 1 + (1 - sqrt(1 - beta))^2/2.

    Args:
        betas: as for :func:`vp_reverse_diffusion`.

    Returns:
        N rules in the order of sampling, the first for beta_N.

    Raises:
        TypeError, ValueError: ``betas`` is no such schedule.
    """
    return [rule._replace(a=rule.a / 2, b=None) for rule in vp_reverse_diffusion(betas)]


def vp_euler_maruyama(schedule: LinearBeta) -> list[Coefficients]:
    """Euler-Maruyama: (1 + beta(t)/(2N)) x + beta(t)/N score + sqrt(beta(t)/N) z at the schedule's times.

    On data N(0, 1) one step from variance 1 gives 1 + (beta(t)/(2N))^2.

    Args:
        schedule: a :class:`LinearBeta`, whose steps are 1/N long and whose times are from 1 to ``t_end``.

    Returns:
        N rules in the order of sampling, the first for t = 1.

    Raises:
        TypeError: ``schedule`` is something else.
    """
    return [Coefficients(1 + beta / 2, beta, math.sqrt(beta)) for beta, _ in _euler_steps(schedule)]


def subvp_euler_maruyama(schedule: LinearBeta) -> list[Coefficients]:
    """Euler-Maruyama of sub-VP: (1 + beta(t)/(2N)) x + g^2/N score + g/sqrt(N) z, g^2 = beta(t) (1 - alpha_bar(t)^2).

    The score of a network that predicts the noise is -h/(1 - alpha_bar(t)): the standard deviation is 1 - alpha_bar,
    not its root. On data of one point one step from the variance v = (1 - alpha_bar)^2 gives
    (1 + beta/(2N) - g^2/(N v))^2 v + g^2/N.

    Args:
        schedule: as for :func:`vp_euler_maruyama`.

    Returns:
        N rules in the order of sampling, the first for t = 1.

    Raises:
        TypeError: ``schedule`` is something else.
    """
    return [Coefficients(1 + beta / 2, beta * share, math.sqrt(beta * share)) for beta, share in _euler_steps(schedule)]


def subvp_probability_flow(schedule: LinearBeta) -> list[Coefficients]:
    """Probability flow of sub-VP: (1 + beta(t)/(2N)) x + g^2/(2N) score, an Euler step without noise.

    Args:
        schedule: as for :func:`vp_euler_maruyama`.

    Returns:
        N rules in the order of sampling, the first for t = 1.

    Raises:
        TypeError: ``schedule`` is something else.
    """
    return [rule._replace(a=rule.a / 2, b=None) for rule in subvp_euler_maruyama(schedule)]


def _euler_steps(schedule: LinearBeta) -> list[tuple[float, float]]:
    """beta(t)/N and 1 - alpha_bar(t)^2 at the times of sampling."""
    if not isinstance(schedule, LinearBeta):
        raise TypeError(
            f"schedule must be a LinearBeta, whose times the Euler steps need, got {type(schedule).__name__}; for "
            "betas of single steps there are vp_reverse_diffusion, vp_ancestral and ddpm_ancestral"
        )
    # expm1: 1 - exp(-2 integral) cancels near t_end.
    return [(schedule.rate(t) / schedule.steps, -math.expm1(-2 * schedule.integral(t))) for t in schedule.times()]
