"""How the polynomials of the package were fitted. Prints them, and checks that they are the package's.

    python -m tests.long.polynomials

Each is a minimax fit by Remez exchange in 25 digits. What is fitted is chosen so that the leading term is exact:

    -2 ln(1 - g/2) = g + g^2 Q(g),   g in [0, 1]     g itself is exact, so a small radius keeps its relative precision
    cos(pi/4 t) = 1 + s C(s),        s = t^2 in [0, 1]
    sin(pi/4 t) = t (pi/4 + s S(s))
    2^r = 1 + r E(r),            r in [-1/2, 1/2]

Q minimises the relative error of the logarithm and E that of the power of 2; the coefficients of each are rounded
together. C and S minimise the absolute error for s in [0.15, 1], which is where the error of a normal is largest; each
coefficient is rounded in turn and the rest fitted again around it. Fitted from 0 instead, S carries the rounding of
pi/4 (0.47 units) all the way to s = 1, and the largest error of a normal is 1.06e-6 in place of 0.99e-6.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np

from fastlangevin.reference import mixture
from fastlangevin.reference import random as reference

Function = Callable[[Any], Any]
GRID = 500
EXCHANGES = 8


def remez(function: Function, degree: int, low: Any, high: Any, weight: Function) -> tuple[list[Any], Any]:
    """Coefficients of the polynomial p that minimises max |weight (p - function)|, and that maximum."""
    count = degree + 2
    points = [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (count - 1 - i) / (count - 1)) for i in range(count)]
    grid = [low + (high - low) * mp.mpf(i) / GRID for i in range(GRID + 1)]
    values = [function(x) for x in grid]
    weights = [weight(x) for x in grid]
    for _ in range(EXCHANGES):
        matrix, right = mp.matrix(count, count), mp.matrix(count, 1)
        for i, x in enumerate(points):
            for j in range(degree + 1):
                matrix[i, j] = x**j
            matrix[i, degree + 1] = (-1) ** i / weight(x)
            right[i] = function(x)
        solution = mp.lu_solve(matrix, right)
        coefficients = [solution[j] for j in range(degree + 1)]
        errors = [w * (mp.polyval(coefficients[::-1], x) - y) for x, y, w in zip(grid, values, weights, strict=True)]
        extremes, begin = [], 0
        for i in range(1, len(grid) + 1):
            if i == len(grid) or (errors[i] > 0) != (errors[i - 1] > 0):
                extremes.append(max(range(begin, i), key=lambda k: abs(errors[k])))
                begin = i
        if len(extremes) < count:
            break
        while len(extremes) > count:
            extremes.pop(0 if abs(errors[extremes[0]]) < abs(errors[extremes[-1]]) else -1)
        points = [grid[k] for k in extremes]
    return coefficients, max(map(abs, errors))


def rounded(value: Any) -> float:
    return float(np.float32(float(value)))


def together(function: Function, degree: int, low: Any, weight: Function, high: float = 1.0) -> tuple[list[float], Any]:
    coefficients, error = remez(function, degree, mp.mpf(low), mp.mpf(high), weight)
    return [rounded(c) for c in coefficients], error


def in_turn(function: Function, leading: Any, degree: int, low: Any) -> tuple[list[float], Any]:
    fixed, error = [rounded(leading)], mp.mpf(0)
    while len(fixed) <= degree:
        power = len(fixed)
        known = [mp.mpf(c) for c in fixed]

        def rest(x: Any, known: list[Any] = known, power: int = power) -> Any:
            return (function(x) - mp.polyval(known[::-1], x)) / x**power

        coefficients, error = remez(rest, degree - power, mp.mpf(low), mp.mpf(1), lambda x, power=power: x**power)
        fixed.append(rounded(coefficients[0]))
    return fixed, error


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    mp.mp.dps = 25
    quarter = mp.pi / 4

    def logarithm(g: Any) -> Any:
        return -2 * mp.log1p(-g / 2)

    fits = {
        "LOG_Q": (
            together(lambda g: (logarithm(g) - g) / g**2, 7, "1e-3", lambda g: g * g / logarithm(g)),
            reference.LOG_Q,
        ),
        "SIN": (
            in_turn(lambda s: mp.sin(quarter * mp.sqrt(s)) / mp.sqrt(s), quarter, 3, "0.15"),
            reference.SIN,
        ),
        "EXP2_Q": (
            together(lambda r: (2**r - 1) / r if r else mp.log(2), 4, "-0.5", lambda r: abs(r) / 2**r, 0.5),
            mixture.EXP2_Q,
        ),
        "COS": (in_turn(lambda s: mp.cos(quarter * mp.sqrt(s)), 1, 4, "0.15"), reference.COS),
    }
    same = True
    for name, ((coefficients, error), used) in fits.items():
        same &= tuple(coefficients) == used
        print(f"{name}: fit within {mp.nstr(error * 2**24, 3)} x 2^-24 before rounding")
        print("   ", ", ".join(float(c).hex() for c in coefficients))
    low = 2 * mp.log(2) - mp.mpf(reference.LN4_HIGH)
    same &= rounded(low) == reference.LN4_LOW
    print("the package's coefficients" if same else "NOT the package's coefficients")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
