"""The corrector whose step size is found from the score: a signal-to-noise ratio (Song et al. 2021, Algorithm 4)."""

from __future__ import annotations

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
    unit = rules.signal_to_noise(row.snr, 1.0, row.alpha)
    assert unit.b is not None
    found = ratio(row.norm, score, address, noise, impl)
    return unit.c, unit.a * found.square(), unit.b * found


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
