"""The paper's toy distribution, 1/5 N((-5, -5), I) + 4/5 N((5, 5), I), and its ladder."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import fastlangevin as fl

WEIGHTS = (0.2, 0.8)
MEANS = ((-5.0, -5.0), (5.0, 5.0))
BOX = 8.0  # chains begin uniformly in the square of this half side, and pictures show it

TOY = fl.GaussianMixture(WEIGHTS, MEANS, 1.0)
# Section 4.3 of the paper says 10 to 0.1, its appendix B.1 and the published code say 20 to 1.
LADDER = fl.geometric_sigmas(20.0, 1.0, 10)
EPSILON = 0.1  # the paper's step size at the last level


def scattered(n: int, seed: int, draw: int = 0) -> Tensor:
    """Uniform points of the square, ``(n, 2)``."""
    return (2 * fl.rand((n, 2), seed=seed, draw=draw) - 1) * BOX


def lattice(side: int) -> Tensor:
    """Points of the square in rows, ``(side * side, 2)``, the first coordinate changing fastest."""
    line = torch.linspace(-BOX, BOX, side)
    second, first = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([first.reshape(-1), second.reshape(-1)], 1)


def lower_left(x: Tensor) -> Tensor:
    """The share of ``(..., n, 2)`` nearer to the mean of weight 1/5, fp64 ``(...)``."""
    return (x.sum(-1) < 0).double().mean(-1)


def interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval of 95 % for a probability that ``n`` independent trials met with this share."""
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half
