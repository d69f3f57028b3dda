"""The spacing of noise levels: Technique 2 of Song and Ermon (2020).

For data that are one point, noise level sigma has its samples at distance r from it, and r is N(sqrt(D) sigma,
sigma^2/2) nearly, D being the number of elements. Level i+1 is to begin where samples of level i do not surprise its
score: the overlap is the probability C that r of level i+1 lies within three standard deviations of the mean of level
i. With gamma = sigma_i / sigma_{i+1},

    C = Phi(sqrt(2D) (gamma - 1) + 3 gamma) - Phi(sqrt(2D) (gamma - 1) - 3 gamma)

The paper asks for C near 0.5; its own ladders have 0.566 to 0.567.
"""

from __future__ import annotations

import math
from typing import Any

from fastlangevin.ladders import ends, positive
from fastlangevin.noise import MAX_ELEMENTS, integer

__all__ = ["levels_for", "overlap", "ratio_for_overlap"]

# With sqrt(2D) below 3 both limits in C part for ever: no ratio takes the overlap below that of equal levels.
SMALLEST_D = 5


def ratio(name: str, value: Any) -> float:
    """``value`` as the ratio of a noise level to the next, a finite float above 1."""
    gamma = positive(name, value)
    if gamma <= 1:
        raise ValueError(f"{name} must be above 1, since it is sigma_i / sigma_(i+1) of a falling ladder, got {gamma}")
    return gamma


def dimension(D: Any) -> int:
    return integer("D", D, 1, MAX_ELEMENTS)


def overlap(gamma: float, D: int) -> float:
    """The overlap C of neighbouring noise levels, to full relative accuracy, however small.

    It falls as gamma grows, but for a first rise from 0.9973 at gamma = 1 that is too small to matter: it ends at gamma
    (gamma - 1) = ln((k + 3)/(k - 3))/(6k), k = sqrt(2D). With D below 5 it only rises.

    Args:
        gamma: sigma_i / sigma_{i+1}, above 1.
        D: elements of a sample.

    Returns:
        C, from 0 to 1.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    return _overlap(ratio("gamma", gamma) - 1, dimension(D))


def _overlap(excess: float, D: int) -> float:
    """C for gamma = 1 + excess."""
    middle, reach = math.sqrt(2 * D) * excess, 3 * (1 + excess)
    # Both limits on the side of the upper tail, where small values keep their digits.
    return 0.5 * (math.erfc((middle - reach) / math.sqrt(2)) - math.erfc((middle + reach) / math.sqrt(2)))


def ratio_for_overlap(D: int, C: float = 0.5) -> float:
    """The ratio gamma of neighbouring noise levels whose overlap is C.

    Args:
        D: elements of a sample, at least 5: with fewer, every ratio overlaps.
        C: the overlap, above 0; at most 0.9973 and little more, the overlap of equal levels.

    Returns:
        gamma, above 1, to the last digits of fp64: on the falling branch of :func:`overlap` there is one.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    return 1 + excess_for(dimension(D), C)


def excess_for(D: int, C: Any, name: str = "C") -> float:
    """gamma - 1 for an overlap, which errors call ``name``."""
    target = positive(name, C)
    if D < SMALLEST_D:
        raise ValueError(
            f"for D = {D} no ratio has {name} = {target}: with fewer than {SMALLEST_D} elements, noise levels "
            "overlap by 0.997 and more, however far apart they are; choose the number of levels, levels=, yourself"
        )
    k = math.sqrt(2 * D)
    # Where C is largest: g (g - 1) = rise.
    rise = math.log((k + 3) / (k - 3)) / (6 * k)
    low = 2 * rise / (1 + math.sqrt(1 + 4 * rise))
    if target >= _overlap(low, D):
        raise ValueError(f"{name} must be above 0 and below {_overlap(low, D):.6g}, got {target}; 0.5 is usual")
    high = 2 * low
    while _overlap(high, D) > target:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _overlap(middle, D) > target else (low, middle)
    return low


def levels_for(sigma_1: float, sigma_L: float, D: int, C: float = 0.5) -> int:
    """The number of levels of the geometric ladder from sigma_1 to sigma_L whose overlap is nearest to C.

    Args:
        sigma_1: the largest noise level, in units of the data.
        sigma_L: the smallest.
        D: elements of a sample, at least 5.
        C: the overlap of neighbouring levels.

    Returns:
        L, at least 2: 1 + ln(sigma_1/sigma_L)/ln(gamma) rounded to the nearest, so that the ladder's own overlap can be
        a little less than C.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    high, low = ends("sigma_1", sigma_1, "sigma_L", sigma_L)
    return nearest_levels(high / low, excess_for(dimension(D), C))


def nearest_levels(span: float, excess: float) -> int:
    """L for sigma_1 / sigma_L and gamma - 1."""
    return 1 + max(1, round(math.log(span) / math.log1p(excess)))
