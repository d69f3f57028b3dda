"""Ancestral sampling of denoising diffusion probabilistic models (Ho et al. 2020), written with the score.

Their posterior mean

    (sqrt(alpha_bar_{i-1}) beta_i x_0 + sqrt(1 - beta_i) (1 - alpha_bar_{i-1}) x_i)/(1 - alpha_bar_i)

with the denoise step x_0 = (x_i + (1 - alpha_bar_i) score)/sqrt(alpha_bar_i) is (x_i + beta_i score)/sqrt(1 - beta_i).
The score of a network that predicts the noise is -h/sqrt(1 - alpha_bar_i).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from fastlangevin.rules.beta_schedules import Betas, alpha_bars, check_betas
from fastlangevin.rules.coefficients import Coefficients
from fastlangevin.rules.variance_preserving import vp_ancestral

__all__ = ["PosteriorVariance", "ddpm_ancestral"]

PosteriorVariance = Literal["fixed_small", "fixed_large"]


def ddpm_ancestral(betas: Betas, variance: PosteriorVariance = "fixed_small") -> list[Coefficients]:
    """Ancestral sampling: (x + beta_i score)/sqrt(1 - beta_i) + b_i z, no noise in the last update.

    ``"fixed_small"``: b_i^2 = beta_i (1 - alpha_bar_{i-1})/(1 - alpha_bar_i), the variance of the posterior, exact for
    data of one point: the variance is 1 - alpha_bar_{i-1} after the update. ``"fixed_large"``: b_i^2 = beta_i, exact
    for data N(0, 1), whose variance stays 1.

    Args:
        betas: beta_1 .. beta_N, each between 0 and 1, the least noise first, as ``LinearBeta().betas()``.
        variance: ``"fixed_small"`` or ``"fixed_large"``.

    Returns:
        N rules in the order of sampling, the first for beta_N.

    Raises:
        TypeError, ValueError: ``betas`` is no such schedule, or ``variance`` is not known.
    """
    if variance not in get_args(PosteriorVariance):
        raise ValueError(f"variance must be one of {', '.join(get_args(PosteriorVariance))}, got {variance!r}")
    schedule = check_betas(betas)
    bars = [1.0, *alpha_bars(schedule)]
    if variance == "fixed_large":
        variances = schedule
    else:
        variances = [
            beta * (1 - before) / (1 - now) for beta, before, now in zip(schedule, bars, bars[1:], strict=False)
        ]
    rules = [
        rule._replace(b=math.sqrt(each)) for rule, each in zip(vp_ancestral(schedule), variances[::-1], strict=True)
    ]
    return [*rules[:-1], rules[-1]._replace(b=None)]
