"""What is counted of the normals, and what the counts should be.

A chunk has the shape ``SHAPE``: seeds, purposes, draws, high words of the sample id, samples, elements. Each group
makes an array of a chunk, to be added over all chunks, and statistics of the sum. H2(z) = z^2 - 1 throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from tests.long.pvalues import Statistic, chi_square, kolmogorov, kolmogorov_of_rows, normal, poisson, quadratic

__all__ = ["GROUPS", "NEAR_ZERO", "SHAPE", "Group", "near_zero_of_the_angles"]

Floats = NDArray[np.float64]

SHAPE = (3, 2, 2, 2, 16, 4096)
BLOCK = 2**16
LAGS = (1, 2, 3, 4, 5, 7, 8, 16, 32, 64)
SHIFTS = (-4, -1, 0, 1, 4)
TAILS = (2.0, 3.0, 4.0, 5.0, 5.5, 6.0)
RADII = (3.0, 4.0, 4.5, 5.0, 5.5, 5.8, 6.0, 6.2)
NEAR_ZERO = (-20, -22, -24, -25, -26)
# Cells of values: 2^-12 wide from -8 to 8, a multiplication by a power of two and a floor, both exact.
PER_UNIT, REACH = 2**12, 8
# Parts of p-values that should be uniform.
PARTS = 64


class Group(NamedTuple):
    """``tally(chunk)`` is added over chunks; ``statistics(sum, normals)`` judges it."""

    tally: Callable[[Tensor], Floats]
    statistics: Callable[[Floats, int], list[Statistic]]


def counts(cells: Tensor, size: int) -> Floats:
    return torch.bincount(cells.flatten(), minlength=size).double().numpy()


def parts(uniform: Floats) -> Floats:
    return np.bincount(np.minimum((uniform * PARTS).astype(np.int64), PARTS - 1), minlength=PARTS).astype(np.float64)


# One normal at a time.


def tally_values(z: Tensor) -> Floats:
    cells = (z * PER_UNIT).floor_().to(torch.int32).add_(REACH * PER_UNIT)
    return counts(cells.clamp_(0, 2 * REACH * PER_UNIT - 1), 2 * REACH * PER_UNIT)


def values(total: Floats, n: int) -> list[Statistic]:
    """From counts of 2^16 cells, whose probabilities are known.

    Moments are those of the cells' middles: sum z^k - n E z^k with E and Var z^k sums over the cells, both exact. The
    distances from the normal distribution are taken at the cells' edges, so that the largest is at most 1 % of
    1/sqrt(n) too small. A^2 = n sum (F_n - F)^2 / (F (1 - F)) dF, W^2 = n sum (F_n - F)^2 dF.
    """
    edges = np.arange(-REACH * PER_UNIT, REACH * PER_UNIT + 1) / PER_UNIT
    # Of both sides of zero the small one, which has all its digits.
    side = special.ndtr(-np.abs(edges))
    mass = np.abs(np.diff(side))
    middles = (edges[1:] + edges[:-1]) / 2
    found = []
    power = np.ones_like(middles)
    for k in range(1, 9):
        power = power * middles
        mean = float((mass * power).sum())
        found.append(normal(f"moment {k}", n, (total * (power - mean)).sum(), n * (mass * (power - mean) ** 2).sum()))
    below = np.cumsum(total)[:-1]
    inner, side = edges[1:-1], side[1:-1]
    distance = (below - n * special.ndtr(inner)) / n
    width = (mass[1:] + mass[:-1]) / 2
    found.append(kolmogorov("Kolmogorov-Smirnov", n, float(np.abs(distance).max())))
    found.append(quadratic("Anderson-Darling", n, float(n * (width * distance**2 / (side * (1 - side))).sum())))
    found.append(quadratic("Cramer-von Mises", n, float(n * (width * distance**2).sum())))
    # Unions of cells that are as near to a thousandth each as edges allow.
    cuts = np.unique(np.searchsorted(special.ndtr(inner), np.arange(1, 1000) / 1000)) + 1
    at = np.concatenate([[0], cuts])
    found.append(chi_square("1000 cells", np.add.reduceat(total, at), n * np.add.reduceat(mass, at)))
    for k in TAILS:
        beyond = float(total[np.abs(middles) > k].sum())
        found.append(poisson(f"beyond {k:g}", n, beyond, n * 2 * special.ndtr(-k)))
    return found


# Blocks of 2^16 normals, sorted.


def tally_blocks(z: Tensor) -> Floats:
    rows = torch.from_numpy(np.sort(z.reshape(-1, BLOCK).numpy(), axis=1))
    uniform = torch.special.ndtr(rows)
    ranks = torch.arange(BLOCK + 1, dtype=torch.float32) / BLOCK
    distance = torch.maximum((ranks[1:] - uniform).amax(1), (uniform - ranks[:-1]).amax(1)).double().numpy()
    ends = rows[:, [0, -1]].double().numpy() * [-1, 1]
    extremes = np.exp(BLOCK * special.log_ndtr(ends))
    limits = torch.tensor([2.0**k for k in NEAR_ZERO])
    both = torch.cat([limits, -limits]).expand(len(rows), -1).contiguous()
    below = torch.searchsorted(rows, both).sum(0).numpy()
    near = below[: len(limits)] - below[len(limits) :]
    return np.concatenate(
        [parts(kolmogorov_of_rows(distance, BLOCK)), parts(extremes[:, 1]), parts(extremes[:, 0]), near]
    )


@cache
def near_zero_of_the_angles(limit: float) -> float:
    """P(|z| < limit) for a continuous radius and an angle of 25 bits: the mean over a quarter turn's 2^23 angles."""
    nearest = np.sin((np.arange(2**23) + 0.5) * (2 * np.pi * 2.0**-25))
    return float(-np.expm1(-0.5 * (limit / nearest) ** 2).mean())


def blocks(total: Floats, n: int) -> list[Statistic]:
    """P-values of Kolmogorov-Smirnov and of both extremes should be uniform: chi-square over 64 parts of [0, 1].

    The largest of m normals is below x with probability Phi(x)^m. Near zero the angle's 25 bits begin to show: the
    nearest angle to a quarter turn is half of 2 pi 2^-25 away from it, so counts below that are Poisson with a mean of
    their own.
    """
    split = np.split(total[: 3 * PARTS], 3)
    names = (f"Kolmogorov-Smirnov, blocks of {BLOCK}", f"largest of {BLOCK}", f"smallest of {BLOCK}")
    expected = np.full(PARTS, n / BLOCK / PARTS)
    found = [chi_square(name, each, expected) for name, each in zip(names, split, strict=True)]
    for power, count in zip(NEAR_ZERO, total[3 * PARTS :], strict=True):
        found.append(poisson(f"within 2^{power} of zero", n, count, n * near_zero_of_the_angles(2.0**power)))
    return found


# Pairs of normals within samples.


def product(a: Tensor, b: Tensor) -> float:
    """The sum of a*b: fp32 by PyTorch's cascade over a chunk, whose error is below 1e-6 of a standard deviation."""
    return float((a * b).sum())


def tally_serial(z: Tensor) -> Floats:
    flat = z.flatten()
    square = flat * flat - 1
    found = []
    for lag in LAGS:
        a, b = slice(None, -lag), slice(lag, None)
        found += [
            product(flat[a], flat[b]),
            product(square[a], square[b]),
            product(flat[a], square[b]),
            product(square[a], flat[b]),
            len(flat) - lag,
        ]
    negative = flat < 0
    changes = torch.count_nonzero(negative[1:] ^ negative[:-1])
    up = z[..., 1:] > z[..., :-1]
    turns = torch.count_nonzero(up[..., 1:] ^ up[..., :-1])
    return np.array([*found, float(changes), len(flat) - 1, float(turns)])


def serial(total: Floats, n: int) -> list[Statistic]:
    """Elements are counted on from sample to sample.

    Products of independent normals have mean 0 and are uncorrelated, also where they share a factor.
    Var z z' = 1, Var z H2(z') = 2, Var H2(z) H2(z') = 4. Signs change with probability 1/2, independently. Of m values
    in a row 2 (m - 2) / 3 are turning points, with variance (16 m - 29) / 90 (Bienayme).
    """
    found = []
    for lag, (plain, squares, left, right, pairs) in zip(LAGS, total[:-3].reshape(-1, 5), strict=True):
        found += [
            normal(f"z z', elements {lag} apart", pairs, plain, pairs),
            normal(f"H2 H2', elements {lag} apart", pairs, squares, 4 * pairs),
            normal(f"z H2', elements {lag} apart", pairs, left, 2 * pairs),
            normal(f"H2 z', elements {lag} apart", pairs, right, 2 * pairs),
        ]
    changes, steps, turns = total[-3:]
    length = SHAPE[-1]
    rows = n // length
    found.append(normal("changes of sign", steps, changes - steps / 2, steps / 4))
    found.append(normal("turning points", n, turns - rows * 2 * (length - 2) / 3, rows * (16 * length - 29) / 90))
    return found


# Pairs of normals that differ in one part of the address.


def neighbours(z: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    half, length = SHAPE[4] // 2, SHAPE[5]
    pairs = {f"samples {k} apart": (z[..., :-k, :], z[..., k:, :]) for k in (1, 2, 4)}
    for shift in SHIFTS:
        a, b = max(shift, 0), max(-shift, 0)
        name = f"neighbouring draws, elements {shift} apart" if shift else "neighbouring draws"
        pairs[name] = (z[:, :, 0, ..., a : length - b], z[:, :, 1, ..., b : length - a])
    return {
        **pairs,
        "neighbouring purposes": (z[:, 0], z[:, 1]),
        "neighbouring seeds": (z[0], z[1]),
        "seeds 2^32 apart": (z[0], z[2]),
        "samples 2^32 apart": (z[:, :, :, 0], z[:, :, :, 1]),
        "process 1 of run s, process 0 of run s + 1": (z[0, ..., half:, :], z[1, ..., :half, :]),
    }


def tally_addresses(z: Tensor) -> Floats:
    square = z * z - 1
    plain, squares = neighbours(z), neighbours(square)
    return np.array([[product(*plain[name]), product(*squares[name]), plain[name][0].numel()] for name in plain])


def addresses(total: Floats, n: int) -> list[Statistic]:
    """As within samples: Var z z' = 1, Var H2(z) H2(z') = 4."""
    found = []
    for name, (plain, squares, pairs) in zip(neighbours(torch.empty(SHAPE, device="meta")), total, strict=True):
        found.append(normal(f"z z', {name}", pairs, plain, pairs))
        found.append(normal(f"H2 H2', {name}", pairs, squares, 4 * pairs))
    return found


# The two normals of Box and Muller's method.

SIDE = 256


def tally_pairs(z: Tensor) -> Floats:
    first, second = z[..., 0::2].contiguous(), z[..., 1::2].contiguous()
    a, b = first * first, second * second
    squared = a + b
    ring = (torch.exp(squared * -0.5) * SIDE).to(torch.int32).clamp_(max=SIDE - 1)
    angle = (torch.atan2(second, first) * (SIDE / (2 * math.pi))).floor_().to(torch.int32) & (SIDE - 1)
    beyond = [float(torch.count_nonzero(squared > k * k)) for k in RADII]
    return np.concatenate(
        [
            counts(ring * SIDE + angle, SIDE**2),
            beyond,
            [product(first, second), product(a - 1, b - 1), product(a - b, first * second)],
        ]
    )


def pairs(total: Floats, n: int) -> list[Statistic]:
    """exp(-r^2 / 2) and the angle are uniform and independent; 256 by 256 cells of equal probability.

    With known margins chi-square of all cells splits into rows (255), columns (255) and what is left (255^2), which are
    independent. P(r > k) = exp(-k^2 / 2). (z0^2 - z1^2) z0 z1 has mean 0 and variance
    E z0^6 z1^2 - 2 E z0^4 z1^4 + E z0^2 z1^6 = 15 - 18 + 15.
    """
    n //= 2
    table = total[: SIDE**2].reshape(SIDE, SIDE)
    rest = table - table.mean(0) - table.mean(1)[:, None] + table.mean()
    even = n / SIDE
    found = [
        chi_square("radius, 256 cells", table.sum(1), np.full(SIDE, even)),
        chi_square("angle, 256 cells", table.sum(0), np.full(SIDE, even)),
        chi_square(
            "radius and angle, 256 by 256", rest + even / SIDE, np.full((SIDE, SIDE), even / SIDE), (SIDE - 1) ** 2
        ),
    ]
    for k, count in zip(RADII, total[SIDE**2 :], strict=False):
        found.append(poisson(f"radius beyond {k:g}", n, count, n * math.exp(-k * k / 2)))
    plain, squares, mixed = total[-3:]
    found.append(normal("z z', the two of a pair", n, plain, n))
    found.append(normal("H2 H2', the two of a pair", n, squares, 4 * n))
    found.append(normal("(z^2 - z'^2) z z', the two of a pair", n, mixed, 12 * n))
    return found


# Sums over whole samples, which many small correlations would move.


def tally_sums(z: Tensor) -> Floats:
    length = SHAPE[-1]
    plain = (z.sum(-1) / math.sqrt(length)).double().flatten()
    squares = ((z * z - 1).sum(-1) / math.sqrt(2 * length)).double().flatten()
    spread = torch.special.ndtr(plain)
    return np.concatenate([parts(spread.numpy()), [float((plain**2 - 1).sum()), float((squares**2 - 1).sum())]])


def sums(total: Floats, n: int) -> list[Statistic]:
    """The sum s of a sample over sqrt(m) is N(0, 1), so Var s^2 = 2.

    q = sum H2 / sqrt(2 m), a centred chi-square(m) of variance 1, has E q^4 = 3 + 12 / m.
    """
    length = SHAPE[-1]
    rows = n // length
    return [
        chi_square(f"sums of {length}", total[:PARTS], np.full(PARTS, rows / PARTS)),
        normal(f"squared sums of {length}", rows, total[PARTS], 2 * rows),
        normal(f"squared sums of {length} squares", rows, total[PARTS + 1], (2 + 12 / length) * rows),
    ]


GROUPS = {
    "values": Group(tally_values, values),
    "blocks": Group(tally_blocks, blocks),
    "serial": Group(tally_serial, serial),
    "addresses": Group(tally_addresses, addresses),
    "pairs": Group(tally_pairs, pairs),
    "sums": Group(tally_sums, sums),
}
