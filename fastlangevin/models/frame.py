"""The frame around the learnt part of the small networks.

With a data mean m and a data variance v, the network F(u, i) that is learnt gives the score of level i as

    s(x, i) = h / sigma_i,   h = -sigma_i (x - m) / (v + sigma_i^2) + sqrt(v / (v + sigma_i^2)) F(u, i),
    u = (x - m) / sqrt(v + sigma_i^2)

The division by sigma is technique 3 of Song and Ermon 2020; the first term of h is the exact score of the Gaussian
N(m, v) at that level, and the factors keep the input and the target of F near unit variance at all levels (Karras,
Aittala, Aila and Laine 2022, equation 7 and appendix B.6). F starts at zero, so a new network is that Gaussian's score.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fastlangevin.ladders import Sigmas
from fastlangevin.models.base import ScoreNet

__all__ = ["FramedScore"]


class FramedScore(ScoreNet):
    """Base of the networks whose learnt part is :meth:`features`.

    Args:
        sigmas: ladder ``(L,)`` in the units of the data, largest first.
        config: frozen dataclass of plain numbers that builds the network again.
        mean: data mean m.
        std: data standard deviation sqrt(v), positive.
    """

    def __init__(self, sigmas: Sigmas, config: Any, *, mean: float, std: float) -> None:
        if not (math.isfinite(std) and std > 0):
            raise ValueError(f"std must be finite and positive, got {std}; it is the standard deviation of the data")
        if not math.isfinite(mean):
            raise ValueError(f"mean must be finite, got {mean}; it is the mean of the data")
        super().__init__(sigmas, config)
        self.mean = mean
        self.variance = std * std

    def features(self, u: Tensor, labels: Tensor) -> Tensor:
        """The learnt part F: standardised input and levels ``(B,)`` to an output of the input's shape."""
        raise NotImplementedError

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        self.check(x, labels)
        sigma = self.sigma_of(x, labels)
        total = self.variance + sigma * sigma
        centred = x - self.mean
        learnt = self.features(centred * total.rsqrt(), labels)
        return learnt * ((self.variance / total).sqrt() / sigma) - centred / total
