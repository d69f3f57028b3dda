"""Correctors of score_sde (Song et al. 2021, Algorithms 4 and 5): a Langevin step sized by a signal-to-noise ratio.

    a = 2 alpha (snr ratio)^2,        b = sqrt(2 a)

The published ``langevin`` measures the ratio ||z||/||score|| at every step; its ``ald`` puts the standard deviation of
the perturbed data there, which is what the ratio is near for noise alone.
"""

from __future__ import annotations

import math
from typing import Literal

from fastlangevin.ladders import positive
from fastlangevin.rules.coefficients import Coefficients

__all__ = ["SignalNorm", "annealed_corrector", "signal_to_noise"]

SignalNorm = Literal["sample", "batch", "sqrt_d"]
"""How the ratio ||z||/||score|| of :func:`signal_to_noise` is taken, Euclidean norms over the D elements of a sample.

- ``"sample"``, the default: the sample's own norms, so that nothing couples it to its batch.
- ``"batch"``: mean norm of the noise over mean norm of the score, means over the batch, as score_sde, diffusers and
  their descendants do. A sample then depends on its batch mates, and on how many there are.
- ``"sqrt_d"``: sqrt(D) instead of the norm of the noise, over the sample's own norm of the score; the step then does
  not depend on the noise that it scales.
"""


def _factor_of_alpha(alpha: float) -> float:
    number = positive("alpha", alpha)
    if number > 1:
        raise ValueError(f"alpha must be 1 - beta, above 0 and not above 1 (1 for variance exploding), got {number}")
    return number


def signal_to_noise(snr: float, ratio: float, alpha: float = 1.0) -> Coefficients:
    """The corrector step of a signal-to-noise ratio: x + a score + sqrt(2 a) z with a = 2 alpha (snr ratio)^2.

    a grows with ratio^2 and b with ratio: for ratios that live on a device, take the coefficients at ``ratio=1`` and
    multiply. With the ratio fixed it is Langevin dynamics of the step size 2 a; with ratio = sigma, on noise alone, its
    stationary variance is sigma^2/(1 - alpha snr^2).

    Args:
        snr: the signal-to-noise ratio, typically 0.05 to 0.2.
        ratio: ||z||/||score||, measured by the caller in one of the ways of :data:`SignalNorm`.
        alpha: 1 for variance exploding; for variance preserving 1 - beta_i as in the published code (the paper has the
            cumulative product).

    Returns:
        c = 1, a = 2 alpha (snr ratio)^2, b = sqrt(2 a).

    Raises:
        TypeError, ValueError: a number is not finite and above zero, or ``alpha`` is above 1.
    """
    if getattr(ratio, "ndim", 0):
        raise TypeError(
            f"ratio must be one number, got {type(ratio).__name__}; for one of each sample take the coefficients at "
            "ratio=1 and multiply, a by ratio^2 and b by ratio"
        )
    snr, ratio = positive("snr", snr), positive("ratio", ratio)
    a = 2 * _factor_of_alpha(alpha) * (snr * ratio) ** 2
    return Coefficients(1.0, a, math.sqrt(2 * a))


def annealed_corrector(snr: float, std: float, alpha: float = 1.0) -> Coefficients:
    """score_sde's ``ald``: x + a score + sqrt(2 a) z with a = 2 alpha (snr std)^2, nothing measured.

    With std = sigma_i and snr = sqrt(step_lr/2)/sigma_L it is annealed Langevin dynamics of the published code. There
    the last level is 1.000085 times the ladder's, since its time ends at 1e-5 and not at 0.

    Args:
        snr: the signal-to-noise ratio.
        std: standard deviation of the noise in the perturbed data: sigma for variance exploding, sqrt(1 - alpha_bar)
            for variance preserving.
        alpha: as for :func:`signal_to_noise`.

    Returns:
        c = 1, a = 2 alpha (snr std)^2, b = sqrt(2 a).

    Raises:
        TypeError, ValueError: a number is not finite and above zero, or ``alpha`` is above 1.
    """
    return signal_to_noise(snr, positive("std", std), alpha)
