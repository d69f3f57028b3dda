"""Ladders of noise levels sigma_1 > sigma_2 > ... > sigma_L > 0, largest first; level i of a network is sigma_{i+1}."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fastlangevin.noise import integer

__all__ = ["Sigmas", "check_sigmas", "geometric_sigmas"]

Sigmas = Tensor | Iterable[float]


def positive(name: str, value: Any) -> float:
    """``value`` as a finite float above zero."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number above zero, got {value!r} ({type(value).__name__})")
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be finite and above zero, got {number}")
    return number


def check_sigmas(sigmas: Sigmas, name: str = "sigmas") -> list[float]:
    """A ladder as Python floats, or an error that says what is wrong with it.

    Args:
        sigmas: one-dimensional tensor, array or sequence of noise standard deviations, strictly decreasing.
        name: what errors call it.

    Raises:
        TypeError: it is not a sequence of numbers.
        ValueError: it is empty, not one-dimensional, not decreasing, or holds a value that is not finite and positive.
    """
    if hasattr(sigmas, "tolist"):
        sigmas = sigmas.tolist()  # one transfer for a device tensor, where iterating would make one for each level
    if isinstance(sigmas, str) or not isinstance(sigmas, Iterable):
        raise TypeError(f"{name} must be a ladder such as geometric_sigmas(1.0, 0.01, 10), got {sigmas!r}")
    values = list(sigmas)
    if not values:
        raise ValueError(f"{name} must have at least one noise level, got none")
    if any(isinstance(value, list) for value in values):
        raise ValueError(f"{name} must be one-dimensional, got nested values; use {name}.flatten()")
    ladder = [positive(f"{name}[{index}]", value) for index, value in enumerate(values)]
    for index, (high, low) in enumerate(pairwise(ladder)):
        if high <= low:
            hint = f"; this ladder ascends: give it largest first, {name}.flip(0)" if ladder == sorted(ladder) else ""
            raise ValueError(f"{name} must decrease strictly, but {name}[{index}] = {high} is followed by {low}{hint}")
    return ladder


def geometric_sigmas(sigma_1: float, sigma_L: float, levels: int) -> Tensor:
    """The geometric ladder of Song and Ermon (2019): sigma_i / sigma_{i+1} is constant.

    Args:
        sigma_1: the largest noise level, in units of the data.
        sigma_L: the smallest.
        levels: how many, L.

    Returns:
        fp64 tensor ``(levels,)``, largest first.
    """
    high, low = positive("sigma_1", sigma_1), positive("sigma_L", sigma_L)
    count = integer("levels", levels, 1, 10**6)
    if count == 1:
        if high != low:
            raise ValueError(f"levels=1 has one noise level: sigma_1 and sigma_L must be equal, got {high} and {low}")
    elif high <= low:
        raise ValueError(f"sigma_1 must be larger than sigma_L, got {high} and {low}")
    return torch.exp(torch.linspace(math.log(high), math.log(low), count, dtype=torch.float64))
