"""Samplers of variance preserving noise as tables (Ho et al. 2020; Song et al. 2021).

The perturbed data are sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) z, in sub-VP with the factor 1 - alpha_bar of z. Labels
count in the order of sampling: 0 is the level of the most noise, beta_N.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastlangevin import rules
from fastlangevin.noise import STREAM_VERSION
from fastlangevin.rules import Betas, Coefficients, LinearBeta, PosteriorVariance, alpha_bars
from fastlangevin.rules.beta_schedules import check_betas
from fastlangevin.schemes.by_level import ByLevel
from fastlangevin.schemes.scheme import Scheme
from fastlangevin.schemes.table import Evaluate

__all__ = [
    "ddpm",
    "subvp_euler_maruyama",
    "subvp_probability_flow",
    "vp_ancestral",
    "vp_euler_maruyama",
    "vp_probability_flow",
    "vp_reverse_diffusion",
]


def _scheme(name: str, made: list[Coefficients], levels: list[tuple[float, float]], record: dict[str, Any]) -> Scheme:
    """One update for each level, given as (alpha, sigma)."""
    evaluations = [Evaluate(level=level, sigma=sigma, alpha=alpha) for level, (alpha, sigma) in enumerate(levels)]
    make = ByLevel(made, evaluations, 1)
    return Scheme(name, make, make.total, [], {"sampler": name, "stream": STREAM_VERSION, **record})


def _of_betas(name: str, betas: Betas, rule: Callable[..., list[Coefficients]], **options: PosteriorVariance) -> Scheme:
    """The scheme of a rule for betas, which are read once."""
    schedule = check_betas(betas)
    bars = alpha_bars(schedule)[::-1]
    levels = [(math.sqrt(bar), math.sqrt(1 - bar)) for bar in bars]
    return _scheme(name, rule(schedule, **options), levels, {"alpha_bars": bars, **options})


def _of_times(
    name: str, schedule: LinearBeta, rule: Callable[[LinearBeta], list[Coefficients]], sigma: Callable[[float], float]
) -> Scheme:
    """The scheme of a rule for the times of a schedule; ``sigma`` is that of alpha_bar."""
    made = rule(schedule)
    bars = [schedule.alpha_bar(t) for t in schedule.times()]
    return _scheme(name, made, [(math.sqrt(bar), sigma(bar)) for bar in bars], {"alpha_bars": bars})


def ddpm(betas: Betas, *, variance: PosteriorVariance = "fixed_small") -> Scheme:
    """Ancestral sampling of DDPM (Ho et al. 2020): :func:`fastlangevin.rules.ddpm_ancestral`.

    Args:
        betas: beta_1 .. beta_N, each between 0 and 1, the least noise first, as ``LinearBeta().betas()``.
        variance: ``"fixed_small"`` or ``"fixed_large"``.

    Returns:
        The scheme.

    Raises:
        TypeError, ValueError: ``betas`` is not such a schedule, or ``variance`` is not known.
    """
    return _of_betas("ddpm", betas, rules.ddpm_ancestral, variance=variance)


def vp_ancestral(betas: Betas) -> Scheme:
    """Ancestral sampling of score_sde: :func:`fastlangevin.rules.vp_ancestral`.

    Args:
        betas: as for :func:`ddpm`.

    Returns:
        The scheme.

    Raises:
        TypeError, ValueError: ``betas`` is not such a schedule.
    """
    return _of_betas("vp_ancestral", betas, rules.vp_ancestral)


def vp_reverse_diffusion(betas: Betas) -> Scheme:
    """Reverse diffusion (Song et al. 2021, appendix E): :func:`fastlangevin.rules.vp_reverse_diffusion`.

    Args:
        betas: as for :func:`ddpm`.

    Returns:
        The scheme.

    Raises:
        TypeError, ValueError: ``betas`` is not such a schedule.
    """
    return _of_betas("vp_reverse_diffusion", betas, rules.vp_reverse_diffusion)


def vp_probability_flow(betas: Betas) -> Scheme:
    """Probability flow: :func:`fastlangevin.rules.vp_probability_flow`.

    Args:
        betas: as for :func:`ddpm`.

    Returns:
        The scheme.

    Raises:
        TypeError, ValueError: ``betas`` is not such a schedule.
    """
    return _of_betas("vp_probability_flow", betas, rules.vp_probability_flow)


def vp_euler_maruyama(schedule: LinearBeta) -> Scheme:
    """Euler-Maruyama (Song et al. 2021): :func:`fastlangevin.rules.vp_euler_maruyama`.

    Args:
        schedule: a :class:`fastlangevin.rules.LinearBeta`.

    Returns:
        The scheme.

    Raises:
        TypeError: ``schedule`` is something else.
    """
    return _of_times("vp_euler_maruyama", schedule, rules.vp_euler_maruyama, lambda bar: math.sqrt(1 - bar))


def subvp_euler_maruyama(schedule: LinearBeta) -> Scheme:
    """Euler-Maruyama of sub-VP: :func:`fastlangevin.rules.subvp_euler_maruyama`.

    Args:
        schedule: a :class:`fastlangevin.rules.LinearBeta`.

    Returns:
        The scheme.

    Raises:
        TypeError: ``schedule`` is something else.
    """
    return _of_times("subvp_euler_maruyama", schedule, rules.subvp_euler_maruyama, lambda bar: 1 - bar)


def subvp_probability_flow(schedule: LinearBeta) -> Scheme:
    """Probability flow of sub-VP: :func:`fastlangevin.rules.subvp_probability_flow`.

    Args:
        schedule: a :class:`fastlangevin.rules.LinearBeta`.

    Returns:
        The scheme.

    Raises:
        TypeError: ``schedule`` is something else.
    """
    return _of_times("subvp_probability_flow", schedule, rules.subvp_probability_flow, lambda bar: 1 - bar)
