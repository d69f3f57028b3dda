"""The coefficients that a rule returns, and number checks that several rules share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from fastlangevin.ladders import positive
from fastlangevin.values import real

__all__ = ["Coefficients"]


class Coefficients(NamedTuple):
    """One update x <- c*x + a*score + b*z; ``b`` is None where no noise is added.

    Attributes:
        c: factor of the state.
        a: factor of the score, in units of the data squared.
        b: standard deviation of the noise, in units of the data.
    """

    c: float
    a: float
    b: float | None


def not_negative(name: str, value: Any) -> float:
    """``value`` as a finite float, zero or above."""
    number = real(name, value, "a number, zero or above")
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be finite and must not be negative, got {number}")
    return number


def below_one(name: str, value: Any) -> float:
    """``value`` as a float between 0 and 1, both excluded."""
    number = positive(name, value)
    if number >= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {number}")
    return number


def steps_to_zero(ladder: list[float]) -> Iterator[tuple[float, float]]:
    """Every level with the next one, which is zero after the last."""
    return pairwise([*ladder, 0.0])
