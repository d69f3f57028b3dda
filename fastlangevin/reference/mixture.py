"""The score of a Gaussian mixture, in a written order of + - * and division, each rounded once.

A row of the table belongs to a component at a noise level, V being its variance plus sigma^2:

    isotropic     g, h, i, m_1 .. m_D     i = 1/V, h = -i/(2 ln 2), m the mean
    diagonal      g, m_1 .. m_D, i_1 .. i_D

with g = log2(weight) - 1/2 sum log2 V, up to one number for all components. These W numbers are rounded to fp32. Behind
them stand the W remainders of that rounding, in fp32 too, and ``limit``, which all rows of a level share. For a state
x, with d = m - x,

    isotropic     l = h (d_1^2 + .. + d_D^2) + g          u_j = e i d_j
    diagonal      l = MINUS_HALF_LOG2_E (d_1 i_1 d_1 + ..) + g  u_j = e i_j d_j
    e = 2^max(l - largest l, LOWEST)
    score_j = (u_j of the first + .. + u_j of the last) / (e of the first + .. + e of the last)

the quotient being the product with one reciprocal. LOWEST keeps everything far from fp32's smallest number: a component
further away counts 2^-100 of the nearest. The power of 2 is the nearest integer's, in the exponent, times a polynomial
on [-1/2, 1/2], within 3.2 x 2^-24 of its value.

The error of a logit is a few of its last places. If all logits are large, their differences are therefore lost: a
thousand standard deviations from two modes, both are half a million. If a sample's largest logit is below ``limit``, or
NaN, its score is computed in fp64, in the same order and with each number of the table the sum of its two parts, and
rounded to fp32 at the end. The choice depends on the sample and its level alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MINUS_HALF_LOG2_E", "exp2", "mixture_score"]

# 2^r = 1 + r Q(r) on [-1/2, 1/2].
EXP2_Q = tuple(
    map(float.fromhex, ("0x1.62e42ap-1", "0x1.ebf9bcp-3", "0x1.c6b754p-5", "0x1.3cea86p-7", "0x1.5bb9f0p-10"))
)
# In fp64: ln(2)^n / n! for n from 1 to 11, which is within 2^-47 of it.
WIDE_EXP2_Q = (
    *map(float.fromhex, ("0x1.62e42fefa39efp-1", "0x1.ebfbdff82c58fp-3", "0x1.c6b08d704a0c0p-5")),
    *map(float.fromhex, ("0x1.3b2ab6fba4e77p-7", "0x1.5d87fe78a6731p-10", "0x1.430912f86c787p-13")),
    *map(float.fromhex, ("0x1.ffcbfc588b0c7p-17", "0x1.62c0223a5c824p-20", "0x1.b5253d395e7c4p-24")),
    *map(float.fromhex, ("0x1.e4cf5158b8ecap-28", "0x1.e8cac7351bb25p-32")),
)
MINUS_HALF_LOG2_E = float.fromhex("-0x1.715476p-1")
WIDE_MINUS_HALF_LOG2_E = float.fromhex("-0x1.71547652b82fep-1")
LOWEST = -100.0


def exp2(y: Tensor) -> Tensor:
    """2^y for fp32 or fp64 y up to 0, of LOWEST for all below and for NaN."""
    wide = y.dtype == torch.float64
    polynomial, digits, whole = (WIDE_EXP2_Q, 52, torch.int64) if wide else (EXP2_Q, 23, torch.int32)
    rounding = 1.5 * 2.0**digits  # added and taken away, it rounds to an integer
    y = torch.where(y > LOWEST, y, LOWEST)
    shifted = y + rounding
    r = y - (shifted - rounding)
    power = r * polynomial[-1] + polynomial[-2]
    for coefficient in polynomial[-3::-1]:
        power = power * r + coefficient
    power = power * r + 1.0
    return (power.view(whole) + (shifted.view(whole) << digits)).view(y.dtype)


def mixture_score(x: Tensor, table: Tensor, labels: Tensor, diagonal: bool) -> Tensor:
    """The score at ``x``.

    Args:
        x: fp32 ``(B, D)``.
        table: fp32 ``(L, K, 2 W + 1)``, a row of numbers for each of K components at each of L levels.
        labels: int64 ``(B,)``, the level of each sample.
        diagonal: whether the rows are of variances for each element.
    """
    width = table.shape[2] // 2
    rows = table[labels]
    rounded, rest, limit = rows.split([width, width, 1], 2)
    score, largest = _score(x, rounded, diagonal)
    imprecise = ~(largest >= limit[:, 0, 0])
    # On a device the host would wait for the answer.
    if x.device.type == "cpu" and not imprecise.any():
        return score
    wide, _ = _score(x.double(), rounded.double() + rest.double(), diagonal)
    return torch.where(imprecise[:, None], wide.float(), score)


def _score(x: Tensor, table: Tensor, diagonal: bool) -> tuple[Tensor, Tensor]:
    """The score in the dtype of ``x``, by rows ``(B, K, W)`` of each sample, and the largest logit of each."""
    features = x.shape[1]
    factor = WIDE_MINUS_HALF_LOG2_E if x.dtype == torch.float64 else MINUS_HALF_LOG2_E
    rows = table.unbind(1)
    logits, distances = [], []
    for row in rows:
        means = row[:, 1 : 1 + features] if diagonal else row[:, 3:]
        d = means - x
        squares = d * row[:, 1 + features :] * d if diagonal else d * d
        total = squares[:, 0]
        for j in range(1, features):
            total = total + squares[:, j]
        logits.append(total * (factor if diagonal else row[:, 1]) + row[:, 0])
        distances.append(d)
    largest = logits[0]
    for logit in logits[1:]:
        largest = torch.where(logit > largest, logit, largest)
    pulls = weight = None
    for row, logit, d in zip(rows, logits, distances, strict=True):
        e = exp2(logit - largest)
        pull = e[:, None] * (d * row[:, 1 + features :]) if diagonal else (e * row[:, 2])[:, None] * d
        weight = e if weight is None else weight + e
        pulls = pull if pulls is None else pulls + pull
    assert pulls is not None
    assert weight is not None
    return pulls * (torch.ones_like(weight) / weight)[:, None], largest
