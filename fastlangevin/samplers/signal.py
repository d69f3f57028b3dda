"""The corrector whose step size is found from the score: a signal-to-noise ratio (Song et al. 2021, Algorithm 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastlangevin import rules
from fastlangevin.kernels.address import Address
from fastlangevin.ops.arguments import elements_per_sample
from fastlangevin.ops.sample_norms import norms_with_noise, sample_norms
from fastlangevin.rules import SignalNorm
from fastlangevin.schemes import Measure

__all__ = ["measured", "ratio"]


def measured(
    row: Measure, score: Tensor, address: Address, noise: Tensor | None, impl: str
) -> tuple[float, Tensor, Tensor]:
    """c, and a and b of each sample ``(B,)``, for a score and the noise given or of an address."""
    return 1.0, *grown(row.snr, ratio(row.norm, score, address, noise, impl), row.alpha)


def grown(snr: float, found: Tensor, alpha: float | Tensor) -> tuple[Tensor, Tensor]:
    """a and b of a ratio ``(B,)``: a grows with alpha and the square of the ratio, b with their roots.

    Args:
        snr: the signal-to-noise ratio that is wanted.
        found: the ratio that was measured.
        alpha: 1 for variance exploding noise; any other one is a factor in fp64.
    """
    _, a, b = rules.signal_to_noise(snr, 1.0)
    assert b is not None
    if isinstance(alpha, float) and alpha == 1:
        return a * found.square(), b * found
    root = alpha.sqrt() if isinstance(alpha, Tensor) else math.sqrt(alpha)
    return (a * alpha) * found.square().double(), (b * root) * found.double()


def ratio(norm: SignalNorm, score: Tensor, address: Address, noise: Tensor | None = None, impl: str = "auto") -> Tensor:
    """||z||/||score|| of each sample ``(B,)``, for the noise given or of an address."""
    if norm == "sqrt_d":
        of_score = sample_norms(score, impl=impl)
        of_noise = torch.full_like(of_score, elements_per_sample(score.shape) ** 0.5)
    else:
        of_score, of_noise = norms_with_noise(score, address, noise=noise, impl=impl)
    if norm == "batch":
        return (of_noise.mean() / of_score.mean()).expand_as(of_score)
    return of_noise / of_score
