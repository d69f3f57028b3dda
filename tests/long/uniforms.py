"""What is counted of the uniforms and of the random words below them, and what the counts should be."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import fastlangevin as fl
from fastlangevin import reference
from tests.long.pvalues import Statistic, chi_square, poisson

__all__ = ["birthday_spacings", "chunk", "random_words", "statistics", "tally", "tally_words", "words"]

Floats = NDArray[np.float64]

SEED = 2
ROWS, LENGTH = 256, 4096
BITS, LOW = 23, 11
PAIR_BITS = 6
# Gaps between visits to [0, 1/32). The first of a chunk, so that their number is no matter of their lengths: 2^15
# visits are expected, and as few as this are 10 standard deviations below.
GAP_BITS, GAPS, LONGEST_GAP = 5, 31_000, 256
SIZES = {"high": 2 ** (BITS - LOW), "low": 2**LOW, "pairs": 4**PAIR_BITS, "gaps": LONGEST_GAP}
BIRTHDAYS, DAYS, YEARS = 2**17, 2**46, 4


def chunk(index: int) -> Tensor:
    return fl.rand((ROWS, LENGTH), seed=SEED, draw=index, impl="cpp")


def cells(values: Tensor, size: int) -> Floats:
    return torch.bincount(values.flatten(), minlength=size).double().numpy()


def tally(uniform: Tensor) -> Floats:
    # An odd multiple of 2^-24: the product is exact, and its floor the uniform's 23 bits.
    bits = (uniform.flatten() * 2.0**BITS).to(torch.int32)
    top = bits >> (BITS - PAIR_BITS)
    visits = torch.nonzero(bits >> (BITS - GAP_BITS) == 0).flatten()
    gaps = (visits[1 : GAPS + 1] - visits[:GAPS] - 1).clamp_(max=LONGEST_GAP - 1)
    return np.concatenate(
        [
            cells(bits >> LOW, SIZES["high"]),
            cells(bits & (2**LOW - 1), SIZES["low"]),
            cells(top[0::2] << PAIR_BITS | top[1::2], SIZES["pairs"]),
            cells(gaps, SIZES["gaps"]),
        ]
    )


def even(name: str, counts: Floats) -> Statistic:
    return chi_square(name, counts, np.full(counts.size, counts.sum() / counts.size))


def bit_frequencies(name: str, *counts: Floats) -> Statistic:
    """Each bit is 1 in n/2 of n words, independently of the others: two cells and one degree of freedom each."""
    n = counts[0].sum()
    ones = [
        float(part[np.arange(part.size) >> bit & 1 == 1].sum())
        for part in counts
        for bit in range(part.size.bit_length() - 1)
    ]
    both = np.array([ones, [n - each for each in ones]])
    return chi_square(name, both, np.full(both.shape, n / 2), len(ones))._replace(n=int(n))


def statistics(total: Floats) -> list[Statistic]:
    """A gap of k values outside an interval of length q has probability q (1 - q)^k."""
    high, low, two, gaps = np.split(total, np.cumsum(list(SIZES.values()))[:-1])
    q = 2.0**-GAP_BITS
    k = np.arange(LONGEST_GAP)
    mass = np.where(k < LONGEST_GAP - 1, q, 1.0) * (1 - q) ** k
    return [
        bit_frequencies("frequencies of the 23 bits", high, low),
        even("upper 12 bits", high),
        even("lower 11 bits", low),
        even("6 bits of two neighbours", two),
        chi_square("gaps between visits to [0, 1/32)", gaps, gaps.sum() * mass),
    ]


def birthday_spacings(uniform: Tensor) -> Statistic:
    """Marsaglia's birthday spacings: of m birthdays in k days, m^3 / 4k spacings, a Poisson number, occur again.

    46 bits of two uniforms are a day; years times m is 2^19, what k^(5/12) allows (L'Ecuyer and Simard 2001).
    """
    bits = (uniform.flatten()[: 2 * BIRTHDAYS * YEARS] * 2.0**BITS).to(torch.int64).numpy()
    days = np.sort((bits[0::2] << BITS | bits[1::2]).reshape(YEARS, BIRTHDAYS), axis=1)
    spacings = np.sort(np.diff(days, axis=1, append=days[:, :1] + DAYS), axis=1)
    again = np.count_nonzero(np.diff(spacings, axis=1) == 0)
    return poisson("birthday spacings, 2^46 days", bits.size, again, YEARS * BIRTHDAYS**3 / (4 * DAYS))


def random_words(index: int) -> Tensor:
    """All 32 bits, which no operation hands out: by plain PyTorch."""
    ids = torch.arange(64) + 64 * index
    parts = reference.words(LENGTH, ids, seed=SEED, draw=0, purpose=int(fl.Purpose.LANGEVIN))
    return torch.stack(parts, -1)


def tally_words(words: Tensor) -> Floats:
    return np.concatenate([cells(words >> 16, 2**16), cells(words & 0xFFFF, 2**16)])


def words(total: Floats) -> list[Statistic]:
    high, low = np.split(total, 2)
    return [
        bit_frequencies("frequencies of a word's 32 bits", high, low),
        even("upper 16 bits of a word", high),
        even("lower 16 bits of a word", low),
    ]
