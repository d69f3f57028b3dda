"""Predictors of variance exploding noise x + sigma z: from each level to the next, and from the last to zero.

The score is that of the data blurred by N(0, sigma^2). Level i of a ladder is sigma, the next one sigma', 0 after the
last. The first four are those of score_sde (Song et al. 2021, appendices E and F).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from fastlangevin.ladders import Sigmas, check_sigmas
from fastlangevin.rules.coefficients import Coefficients, not_negative, steps_to_zero

__all__ = [
    "euler_ancestral",
    "ve_ancestral",
    "ve_euler_maruyama",
    "ve_probability_flow",
    "ve_reverse_diffusion",
]

# Of a logarithm. A geometric ladder of fp32 logarithms below 8 strays by some units of their last place, 5e-7 each.
GEOMETRIC = 1e-5


def ve_reverse_diffusion(ladder: Sigmas) -> list[Coefficients]:
    """Reverse diffusion: x + (sigma^2 - sigma'^2) score + sqrt(sigma^2 - sigma'^2) z.

    On noise alone an update takes the variance sigma^2 to sigma'^2 + (sigma^2 - sigma'^2)(1 - sigma'^2/sigma^2): wider
    than the next level. The last one adds noise of sigma_L; the published sampler returns its mean, which is
    :func:`denoise` at sigma_L. diffusers' ``step_pred`` is the same.

    Args:
        ladder: noise levels in units of the data, largest first.

    Returns:
        ``L`` rules, the first for sigma_1: c = 1, a = sigma^2 - sigma'^2, b = sqrt(a).

    Raises:
        TypeError, ValueError: ``ladder`` does not descend.
    """
    jumps = [high**2 - low**2 for high, low in steps_to_zero(check_sigmas(ladder, "ladder"))]
    return [Coefficients(1.0, jump, math.sqrt(jump)) for jump in jumps]


def ve_ancestral(ladder: Sigmas) -> list[Coefficients]:
    """Ancestral sampling: x + (sigma^2 - sigma'^2) score + sigma' sqrt(1 - sigma'^2/sigma^2) z.

    On noise alone an update takes the variance sigma^2 exactly to sigma'^2. The last one is :func:`denoise` at sigma_L.

    Args:
        ladder: noise levels in units of the data, largest first.

    Returns:
        ``L`` rules, the first for sigma_1.

    Raises:
        TypeError, ValueError: ``ladder`` does not descend.
    """
    return [
        Coefficients(1.0, high**2 - low**2, low * math.sqrt(high**2 - low**2) / high or None)
        for high, low in steps_to_zero(check_sigmas(ladder, "ladder"))
    ]


def ve_euler_maruyama(ladder: Sigmas) -> list[Coefficients]:
    """Euler-Maruyama steps of 1/L on sigma(t) = sigma_L (sigma_1/sigma_L)^t: a = 2 sigma^2 ln(sigma_1/sigma_L)/L.

    As published, ``L`` steps of 1/L are taken over levels whose times are 1/(L - 1) apart. It ends near sigma_L, not at
    zero.

    Args:
        ladder: a geometric ladder of two noise levels or more, in units of the data, largest first.

    Returns:
        ``L`` rules, the first for sigma_1: c = 1, b = sqrt(a).

    Raises:
        TypeError, ValueError: ``ladder`` does not descend, has one level, or is not geometric.
    """
    levels = check_sigmas(ladder, "ladder")
    if len(levels) < 2:
        raise ValueError(
            f"ladder must have two levels or more, between which Euler-Maruyama moves, got {levels}; use "
            "ve_reverse_diffusion"
        )
    span = math.log(levels[0] / levels[-1])
    for index, sigma in enumerate(levels):
        straight = levels[0] * math.exp(-span * index / (len(levels) - 1))
        if abs(math.log(sigma / straight)) > GEOMETRIC:
            raise ValueError(
                f"ladder must be geometric for Euler-Maruyama on sigma(t) = sigma_L (sigma_1/sigma_L)^t, but "
                f"ladder[{index}] = {sigma} is not {straight:.6g}; use geometric_sigmas, or ve_reverse_diffusion for "
                "any ladder"
            )
    steps = [2 * span / len(levels) * sigma**2 for sigma in levels]
    return [Coefficients(1.0, a, math.sqrt(a)) for a in steps]


def ve_probability_flow(ladder: Sigmas) -> list[Coefficients]:
    """Probability flow: x + (sigma^2 - sigma'^2)/2 score, an Euler step in sigma^2, no noise.

    :func:`euler_ancestral` with eta = 0 is the Euler step of the same flow in sigma, which goes all the way to the mean
    at the last level; here the last update goes half of it.

    Args:
        ladder: noise levels in units of the data, largest first.

    Returns:
        ``L`` rules, the first for sigma_1: c = 1, a = (sigma^2 - sigma'^2)/2, b None.

    Raises:
        TypeError, ValueError: ``ladder`` does not descend.
    """
    return [rule._replace(a=rule.a / 2, b=None) for rule in ve_reverse_diffusion(ladder)]


def euler_ancestral(ladder: Sigmas, eta: float = 1.0, s_noise: float = 1.0) -> list[Coefficients]:
    """k-diffusion's ``sample_euler_ancestral``: an Euler step down to sigma_down, then noise of sigma_up.

    sigma_up = min(sigma', eta sigma' sqrt(1 - sigma'^2/sigma^2)) and sigma_down = sqrt(sigma'^2 - sigma_up^2) give
    x + sigma (sigma - sigma_down) score + s_noise sigma_up z. With s_noise = 1, on noise alone, it takes the variance
    sigma^2 exactly to sigma'^2, whatever eta. eta = 1 is :func:`ve_ancestral`; eta = 0 the Euler step of the
    probability flow in sigma (Karras et al. 2022).

    Args:
        ladder: noise levels in units of the data, largest first. A last level of 0, which k-diffusion's ladders have,
            is where the last update leads with or without it.
        eta: share of the ancestral noise, zero or above.
        s_noise: factor of the noise, zero or above.

    Returns:
        One rule for each level above zero, the first for sigma_1.

    Raises:
        TypeError, ValueError: ``ladder`` does not descend, or ``eta`` or ``s_noise`` is negative.
    """
    eta, s_noise = not_negative("eta", eta), not_negative("s_noise", s_noise)
    rules = []
    for high, low in steps_to_zero(without_zero(ladder)):
        up = min(low, eta * low * math.sqrt(high**2 - low**2) / high)
        down = math.sqrt(low**2 - up**2)
        rules.append(Coefficients(1.0, high * (high - down), s_noise * up or None))
    return rules


def without_zero(ladder: Sigmas, name: str = "ladder") -> list[float]:
    """The levels above zero of a ladder that may end at 0; ``name`` is what errors call it."""
    if hasattr(ladder, "tolist"):
        ladder = ladder.tolist()
    if isinstance(ladder, str) or not isinstance(ladder, Iterable):
        return check_sigmas(ladder, name)
    values = list(ladder)
    return check_sigmas(values[:-1] if len(values) > 1 and values[-1] == 0 else values, name)
