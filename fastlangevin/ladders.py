"""Ladders of noise levels sigma_1 > sigma_2 > ... > sigma_L > 0, largest first; level i of a network is sigma_{i+1}."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fastlangevin.noise import integer
from fastlangevin.values import real, shown

__all__ = [
    "Sigmas",
    "check_sigmas",
    "continuous_ve_sigmas",
    "geometric_sigmas",
    "karras_sigmas",
    "linear_sigmas",
]

Sigmas = Tensor | Iterable[float]


def positive(name: str, value: Any) -> float:
    """``value`` as a finite float above zero."""
    number = real(name, value, "a number above zero")
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be finite and above zero, got {number}")
    return number


def number(name: str, value: Any) -> float:
    """``value`` as a float: of a Python or NumPy number, or of a tensor of one element."""
    return real(name, value, "a number")


def check_sigmas(sigmas: Sigmas, name: str = "sigmas") -> list[float]:
    """A ladder as Python floats, or an error that says what is wrong with it.

    Args:
        sigmas: one-dimensional tensor, array or sequence of noise standard deviations, strictly decreasing.
        name: what errors call it.

    Returns:
        The ladder, largest first.

    Raises:
        TypeError: it is not a sequence of numbers.
        ValueError: it is empty, not one-dimensional, not decreasing, or holds a value that is not finite and positive.
    """
    if hasattr(sigmas, "tolist"):
        sigmas = sigmas.tolist()  # one transfer for a device tensor, where iterating would make one for each level
    if isinstance(sigmas, str) or not isinstance(sigmas, Iterable):
        raise TypeError(f"{name} must be a ladder such as geometric_sigmas(1.0, 0.01, 10), got {shown(sigmas)}")
    values = list(sigmas)
    if not values:
        raise ValueError(f"{name} must have at least one noise level, got none")
    if any(isinstance(value, list) for value in values):
        raise ValueError(f"{name} must be one-dimensional, got nested values; use {name}.flatten()")
    ladder = [positive(f"{name}[{index}]", value) for index, value in enumerate(values)]
    for index, (high, low) in enumerate(pairwise(ladder)):
        if high == low:
            raise ValueError(
                f"{name} must decrease strictly, but {name}[{index}] = {high} and {name}[{index + 1}] = {low} are "
                "equal; leave one of them out"
            )
        if high < low:
            hint = f"; this ladder ascends: give it largest first, {name}.flip(0)" if ladder == sorted(ladder) else ""
            raise ValueError(f"{name} must decrease strictly, but {name}[{index}] = {high} is followed by {low}{hint}")
    return ladder


def ends(high: str, sigma_high: Any, low: str, sigma_low: Any) -> tuple[float, float]:
    """The two ends of a ladder, named ``high`` and ``low`` in errors, of which the first must be the larger."""
    top, bottom = positive(high, sigma_high), positive(low, sigma_low)
    if top <= bottom:
        hint = ": a ladder descends, so give the larger first" if top < bottom else ""
        raise ValueError(f"{high} must be larger than {low}, got {top} and {bottom}{hint}")
    return top, bottom


def evenly(first: float, last: float, count: int) -> list[float]:
    """``count`` numbers at equal distances from ``first`` to ``last``, both exact.

    In Python, as all that ladders are made of: the last bits of ``torch.linspace`` and ``torch.exp`` differ between
    processors, in fp64 too, and a ladder must not.
    """
    if count == 1:
        return [first]
    gap = (last - first) / (count - 1)
    half = count // 2
    return [first + gap * i if i < half else last - gap * (count - 1 - i) for i in range(count)]


def _ladder(levels: Iterable[float]) -> Tensor:
    return torch.tensor(list(levels), dtype=torch.float64, device="cpu")


def _ends_and_levels(sigma_1: Any, sigma_L: Any, levels: Any) -> tuple[float, float, int]:
    count = integer("levels", levels, 1, 10**6)
    if count > 1:
        return *ends("sigma_1", sigma_1, "sigma_L", sigma_L), count
    top, bottom = positive("sigma_1", sigma_1), positive("sigma_L", sigma_L)
    if top != bottom:
        raise ValueError(f"levels=1 has one noise level: sigma_1 and sigma_L must be equal, got {top} and {bottom}")
    return top, bottom, count


def geometric_sigmas(sigma_1: float, sigma_L: float, levels: int) -> Tensor:
    """The geometric ladder of Song and Ermon (2019): sigma_i / sigma_{i+1} is constant. Also known as exponential.

    Args:
        sigma_1: the largest noise level, in units of the data.
        sigma_L: the smallest.
        levels: how many, L.

    Returns:
        fp64 tensor ``(levels,)`` on the CPU, largest first.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    high, low, count = _ends_and_levels(sigma_1, sigma_L, levels)
    return _ladder(map(math.exp, evenly(math.log(high), math.log(low), count)))


def linear_sigmas(sigma_1: float, sigma_L: float, levels: int) -> Tensor:
    """The linear ladder: sigma_i - sigma_{i+1} is constant (``uniform`` in NCSNv2's configurations).

    Args:
        sigma_1: the largest noise level, in units of the data.
        sigma_L: the smallest.
        levels: how many, L.

    Returns:
        fp64 tensor ``(levels,)`` on the CPU, largest first.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    return _ladder(evenly(*_ends_and_levels(sigma_1, sigma_L, levels)))


def karras_sigmas(sigma_1: float, sigma_L: float, levels: int, rho: float = 7.0) -> Tensor:
    """The ladder of Karras et al. (2022), equation 5: sigma_i^(1/rho) falls linearly.

    Args:
        sigma_1: the largest noise level, in units of the data.
        sigma_L: the smallest.
        levels: how many, L.
        rho: above zero; 1 gives the linear ladder, a large one nearly the geometric.

    Returns:
        fp64 tensor ``(levels,)`` on the CPU, largest first; both ends are exact.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    high, low, count = _ends_and_levels(sigma_1, sigma_L, levels)
    rho = positive("rho", rho)
    # sigma_1 (1 - t (1 - w))^rho with w = (sigma_L / sigma_1)^(1/rho), which cannot overflow as sigma^(1/rho) does.
    fall = -math.expm1(math.log(low / high) / rho)
    inner = (high * math.exp(rho * math.log1p(-fall * t)) for t in evenly(0.0, 1.0, count)[:-1])
    return _ladder([*inner, low])


def continuous_ve_sigmas(sigma_min: float, sigma_max: float, levels: int, t_end: float = 1e-5) -> Tensor:
    """The noise levels sigma_min (sigma_max / sigma_min)^t of the continuous VE SDE at t = linspace(1, t_end, levels).

    As the samplers of Song et al. (2021) have them. They end a little above sigma_min, by 8.5e-5 of it for 50 and 0.01;
    ``t_end=0`` gives the geometric ladder.

    Args:
        sigma_min: the noise level at t = 0, in units of the data.
        sigma_max: the noise level at t = 1.
        levels: how many, N.
        t_end: the last time, from 0 to below 1.

    Returns:
        fp64 tensor ``(levels,)`` on the CPU, largest first.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    high, low = ends("sigma_max", sigma_max, "sigma_min", sigma_min)
    count = integer("levels", levels, 1, 10**6)
    last = number("t_end", t_end)
    last = 0.0 if last == 0 else positive("t_end", last)
    if last >= 1:
        raise ValueError(f"t_end must be from 0 to below 1, where the ladder begins, got {last}")
    return _ladder(low * (high / low) ** t for t in evenly(1.0, last, count))


def per_level(name: str, value: Any, levels: int) -> list[Any]:
    """The entries of a sequence with one for each level, or as many times a single value.

    Args:
        name: what errors call it.
        value: the sequence, array or tensor, or a single value.
        levels: how many levels there are.

    Raises:
        ValueError: the sequence has another length.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, Iterable) or isinstance(value, str):
        return [value] * levels
    entries = list(value)
    if len(entries) != levels:
        raise ValueError(
            f"{name} must be one number, or one for each of the {levels} levels, got {len(entries)}: {shown(entries)}"
        )
    return entries
