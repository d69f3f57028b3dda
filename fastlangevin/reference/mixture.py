"""The score of a Gaussian mixture, in fp32 and a written order of + - * and division, each rounded once.

A row of the table belongs to a component at a noise level, V being its variance plus sigma^2:

    isotropic     g, h, i, m_1 .. m_D     i = 1/V, h = -i/(2 ln 2), m the mean
    diagonal      g, m_1 .. m_D, i_1 .. i_D

with g = log2(weight) - 1/2 sum log2 V, up to one number for all components. For a state x, with d = m - x,

    isotropic     l = h (d_1^2 + .. + d_D^2) + g          u_j = e i d_j
    diagonal      l = MINUS_HALF_LOG2_E (d_1 i_1 d_1 + ..) + g  u_j = e i_j d_j
    e = 2^max(l - largest l, LOWEST)
    score_j = (u_j of the first + .. + u_j of the last) / (e of the first + .. + e of the last)

the quotient being the product with one reciprocal. LOWEST keeps everything far from fp32's smallest number: a component
further away counts 2^-100 of the nearest. The power of 2 is the nearest integer's, in the exponent, times a polynomial
on [-1/2, 1/2], within 3.2 x 2^-24 of its value.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MINUS_HALF_LOG2_E", "exp2", "mixture_score"]

# 2^r = 1 + r Q(r) on [-1/2, 1/2].
EXP2_Q = tuple(
    map(float.fromhex, ("0x1.62e42ap-1", "0x1.ebf9bcp-3", "0x1.c6b754p-5", "0x1.3cea86p-7", "0x1.5bb9f0p-10"))
)
MINUS_HALF_LOG2_E = float.fromhex("-0x1.715476p-1")
LOWEST = -100.0
ROUND = 1.5 * 2.0**23  # added and taken away, it rounds to an integer


def exp2(y: Tensor) -> Tensor:
    """2^y for fp32 y up to 0, of LOWEST for all below and for NaN."""
    y = torch.where(y > LOWEST, y, LOWEST)
    shifted = y + ROUND
    r = y - (shifted - ROUND)
    power = r * EXP2_Q[4] + EXP2_Q[3]
    for coefficient in EXP2_Q[2::-1]:
        power = power * r + coefficient
    power = power * r + 1.0
    return (power.view(torch.int32) + (shifted.view(torch.int32) << 23)).view(torch.float32)


def mixture_score(x: Tensor, table: Tensor, labels: Tensor, diagonal: bool) -> Tensor:
    """The score at ``x``.

    Args:
        x: fp32 ``(B, D)``.
        table: fp32 ``(L, K, W)``, a row of W numbers for each of K components at each of L levels.
        labels: int64 ``(B,)``, the level of each sample.
        diagonal: whether the rows are of variances for each element.
    """
    features = x.shape[1]
    rows = table[labels].unbind(1)
    logits, distances = [], []
    for row in rows:
        means = row[:, 1 : 1 + features] if diagonal else row[:, 3:]
        d = means - x
        squares = d * row[:, 1 + features :] * d if diagonal else d * d
        total = squares[:, 0]
        for j in range(1, features):
            total = total + squares[:, j]
        logits.append(total * (MINUS_HALF_LOG2_E if diagonal else row[:, 1]) + row[:, 0])
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
    return pulls * (torch.ones_like(weight) / weight)[:, None]
