"""From a statistic to its p-value, two-sided: a fit too good to be true is as unlikely as a bad one.

A p below ``SMALLEST`` is told as that, since the inverted characteristic functions have no more digits.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

__all__ = [
    "SMALLEST",
    "Statistic",
    "chi_square",
    "kolmogorov",
    "kolmogorov_of_rows",
    "normal",
    "poisson",
    "quadratic",
    "two_sided",
]

SMALLEST = 1e-12
Floats = NDArray[np.float64]


class Statistic(NamedTuple):
    """One statistic of ``n`` values or pairs; ``law`` says how it is distributed where the noise is what it claims."""

    name: str
    n: int
    value: float
    law: str
    p: float


def two_sided(above: float, below: float) -> float:
    return max(SMALLEST, min(1.0, 2 * min(above, below)))


def normal(name: str, n: int, total: float, variance: float) -> Statistic:
    """A sum of mean 0 and of exactly known variance, by the central limit theorem."""
    value = float(total) / math.sqrt(variance)
    return Statistic(name, int(n), value, "N(0, 1)", max(SMALLEST, math.erfc(abs(value) / math.sqrt(2))))


def poisson(name: str, n: int, count: float, expected: float) -> Statistic:
    """A count of rare and independent events."""
    above = float(special.pdtrc(count - 1, expected)) if count > 0 else 1.0
    p = two_sided(above, float(special.pdtr(count, expected)))
    return Statistic(name, int(n), float(count), f"Poisson({expected:.4g})", p)


def chi_square(name: str, counts: ArrayLike, expected: ArrayLike, freedom: int | None = None) -> Statistic:
    """Pearson's statistic of independent values in cells of known probability."""
    counts, expected = np.asarray(counts, np.float64), np.asarray(expected, np.float64)
    freedom = counts.size - 1 if freedom is None else freedom
    value = float(((counts - expected) ** 2 / expected).sum())
    p = two_sided(float(special.chdtrc(freedom, value)), float(special.chdtr(freedom, value)))
    return Statistic(name, int(counts.sum()), value, f"chi-square({freedom})", p)


def kolmogorov(name: str, n: int, distance: float) -> Statistic:
    """The largest distance of n values' distribution from the true one, times sqrt(n): Kolmogorov's law."""
    value = math.sqrt(n) * distance
    above = float(special.kolmogorov(value))
    return Statistic(name, int(n), value, "Kolmogorov", two_sided(above, 1 - above))


def kolmogorov_of_rows(distances: Floats, n: int) -> Floats:
    """P(D > distance) for n values, with the law's next term in 1/sqrt(n): uniform to 1/n."""
    value = math.sqrt(n) * distances
    return np.asarray(special.kolmogorov(value + 1 / (6 * math.sqrt(n)) + (value - 1) / (4 * n)))


# Step and end of the integral below: the sum is the law folded at 2 pi / STEP, and |phi| is 1e-11 at the end.
STEP, END, TERMS = 0.05, 400.0, 600


@cache
def _transform(kind: str) -> tuple[Floats, NDArray[np.complex128]]:
    """phi(t) = prod (1 - 2 i lambda_k t)^(-1/2) on the midpoints; the terms left out count by their mean."""
    t = np.arange(STEP / 2, END, STEP)
    k = np.arange(1, TERMS + 1)
    weights = 1 / (k * (k + 1.0)) if kind == "Anderson-Darling" else 1 / k**2.0
    rest = 1 / (TERMS + 1) if kind == "Anderson-Darling" else math.pi**2 / 6 - weights.sum()
    logarithm = 1j * rest * t
    for weight in weights:
        logarithm -= np.log(1 - 2j * weight * t) / 2
    return t, np.exp(logarithm)


def quadratic(kind: str, n: int, value: float) -> Statistic:
    """A^2 or W^2 of n values. Their laws are those of sum lambda_k Z_k^2 over k = 1, 2, ...

    Anderson-Darling: lambda_k = 1 / (k (k + 1)); Cramer-von Mises: 1 / (pi k)^2 (Anderson and Darling 1952). The law
    is found from its characteristic function phi (Gil-Pelaez 1951):
    P(Q > x) = 1/2 + 1/pi int Im(phi(t) exp(-i t x)) / t dt.
    """
    x = value if kind == "Anderson-Darling" else value * math.pi**2
    if x > math.pi / STEP:
        above = 0.0
    else:
        t, phi = _transform(kind)
        above = float(0.5 + STEP / math.pi * np.sum((phi * np.exp(-1j * t * x)).imag / t))
    return Statistic(kind, int(n), float(value), "A^2" if x is value else "W^2", two_sided(max(above, 0.0), 1 - above))
