"""The corrector whose step size is found from the score: a signal-to-noise ratio (Song et al. 2021, Algorithm 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from fastlangevin import rules
from fastlangevin.kernels.address import Address
from fastlangevin.ladders import positive
from fastlangevin.ops.arguments import elements_per_sample
from fastlangevin.ops.sample_norms import norms_with_noise, sample_norms
from fastlangevin.rules import SignalNorm

__all__ = ["SignalToNoise"]


@dataclass(frozen=True)
class SignalToNoise:
    """x + a score + sqrt(2 a) z with a = 2 alpha (snr ||z||/||score||)^2.

    Args:
        snr: the signal-to-noise ratio r, above zero.
        norm: ``"sample"``, each sample's own norms; ``"batch"``, their means over the batch, as it was published: a
            sample then depends on its batch; ``"sqrt_d"``, each sample's own score and sqrt(D) for the noise.
        alpha: 1 for variance exploding.
    """

    snr: float
    norm: SignalNorm = "sample"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        positive("snr", self.snr)
        if self.norm not in get_args(SignalNorm):
            raise ValueError(f"norm must be one of {', '.join(get_args(SignalNorm))}, got {self.norm!r}")

    def coefficients(
        self, score: Tensor, address: Address, noise: Tensor | None, impl: str
    ) -> tuple[float, Tensor, Tensor]:
        """c, and a and b of each sample ``(B,)``, for a score and the noise given or of an address."""
        unit = rules.signal_to_noise(self.snr, 1.0, self.alpha)
        assert unit.b is not None
        ratio = self.ratio(score, address, noise, impl)
        return unit.c, unit.a * ratio.square(), unit.b * ratio

    def ratio(self, score: Tensor, address: Address, noise: Tensor | None = None, impl: str = "auto") -> Tensor:
        """||z||/||score|| of each sample ``(B,)``, for the noise given or of an address."""
        if self.norm == "sqrt_d":
            of_score = sample_norms(score, impl=impl)
            of_noise = torch.full_like(of_score, elements_per_sample(score.shape) ** 0.5)
        else:
            of_score, of_noise = norms_with_noise(score, address, noise=noise, impl=impl)
        if self.norm == "batch":
            return (of_noise.mean() / of_score.mean()).expand_as(of_score)
        return of_noise / of_score
