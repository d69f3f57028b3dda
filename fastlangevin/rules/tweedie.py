"""The denoise step: Tweedie's formula, the mean of the clean data given the perturbed."""

from __future__ import annotations

import math

from fastlangevin.ladders import positive
from fastlangevin.rules.coefficients import Coefficients, below_one

__all__ = ["denoise", "vp_denoise"]


def denoise(sigma: float) -> Coefficients:
    """Tweedie's step to the posterior mean: x + sigma^2 score, no noise.

    Args:
        sigma: noise level of the state, in units of the data.

    Returns:
        c = 1, a = sigma^2, b = None.
    """
    return Coefficients(1.0, positive("sigma", sigma) ** 2, None)


def vp_denoise(alpha_bar: float) -> Coefficients:
    """Tweedie's step of variance preserving noise: (x + (1 - alpha_bar) score)/sqrt(alpha_bar), no noise.

    The perturbed data are x = sqrt(alpha_bar) data + sqrt(1 - alpha_bar) z.

    Args:
        alpha_bar: product of 1 - beta up to this step, see :func:`alpha_bars`; between 0 and 1.

    Returns:
        c = 1/sqrt(alpha_bar), a = (1 - alpha_bar)/sqrt(alpha_bar), b None.

    Raises:
        TypeError, ValueError: ``alpha_bar`` is not a number between 0 and 1.
    """
    alpha_bar = below_one("alpha_bar", alpha_bar)
    return Coefficients(1 / math.sqrt(alpha_bar), (1 - alpha_bar) / math.sqrt(alpha_bar), None)
