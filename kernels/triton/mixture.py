"""The score of a Gaussian mixture at a level for each sample: Triton kernel, and the device functions of whole chains.

    l_k = h_k |m_k - x|^2 + g_k        score = sum_k e_k i_k (m_k - x) / sum_k e_k        e_k = 2^max(l_k - l, -100)

in the written order of ``fastlangevin.reference.mixture``, whose table this reads. The logits are made twice rather
than kept: a component's operations cost less than the registers. Elements are a tuple, a register each, so that their
sum goes in the written order. Samples whose logits are too large for fp32 are computed in fp64, in a branch that a
whole program takes; consumer GPUs have a 32nd of their speed there or less. Bytes per sample: 8 D, and 8 for the level.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from .layout import Call, Launch, on_device
from .loops import bound
from .ptx import load_apart, multiply, store_apart

BLOCK = 128
# 2^r = 1 + r Q(r) on [-1/2, 1/2].
EXP2_0 = tl.constexpr(float.fromhex("0x1.62e42ap-1"))
EXP2_1 = tl.constexpr(float.fromhex("0x1.ebf9bcp-3"))
EXP2_2 = tl.constexpr(float.fromhex("0x1.c6b754p-5"))
EXP2_3 = tl.constexpr(float.fromhex("0x1.3cea86p-7"))
EXP2_4 = tl.constexpr(float.fromhex("0x1.5bb9f0p-10"))
MINUS_HALF_LOG2_E = tl.constexpr(float.fromhex("-0x1.715476p-1"))
LOWEST = tl.constexpr(-100.0)
ROUND = tl.constexpr(1.5 * 2.0**23)
# The same in fp64: ln(2)^n / n!.
WIDE_EXP2_0 = tl.constexpr(float.fromhex("0x1.62e42fefa39efp-1"))
WIDE_EXP2_1 = tl.constexpr(float.fromhex("0x1.ebfbdff82c58fp-3"))
WIDE_EXP2_2 = tl.constexpr(float.fromhex("0x1.c6b08d704a0c0p-5"))
WIDE_EXP2_3 = tl.constexpr(float.fromhex("0x1.3b2ab6fba4e77p-7"))
WIDE_EXP2_4 = tl.constexpr(float.fromhex("0x1.5d87fe78a6731p-10"))
WIDE_EXP2_5 = tl.constexpr(float.fromhex("0x1.430912f86c787p-13"))
WIDE_EXP2_6 = tl.constexpr(float.fromhex("0x1.ffcbfc588b0c7p-17"))
WIDE_EXP2_7 = tl.constexpr(float.fromhex("0x1.62c0223a5c824p-20"))
WIDE_EXP2_8 = tl.constexpr(float.fromhex("0x1.b5253d395e7c4p-24"))
WIDE_EXP2_9 = tl.constexpr(float.fromhex("0x1.e4cf5158b8ecap-28"))
WIDE_EXP2_10 = tl.constexpr(float.fromhex("0x1.e8cac7351bb25p-32"))
WIDE_MINUS_HALF_LOG2_E = tl.constexpr(float.fromhex("-0x1.71547652b82fep-1"))
WIDE_ROUND = tl.constexpr(1.5 * 2.0**52)


@triton.jit
def exp2_below_one(y):
    """2^y for y up to 0, of LOWEST for all below and for NaN."""
    y = tl.where(y > LOWEST, y, LOWEST)
    shifted = y + ROUND
    r = y - (shifted - ROUND)
    p = multiply(r, EXP2_4) + EXP2_3
    p = multiply(p, r) + EXP2_2
    p = multiply(p, r) + EXP2_1
    p = multiply(p, r) + EXP2_0
    p = multiply(p, r) + 1.0
    return (p.to(tl.int32, bitcast=True) + (shifted.to(tl.int32, bitcast=True) << 23)).to(tl.float32, bitcast=True)


@triton.jit
def wide_exp2_below_one(y):
    """As :func:`exp2_below_one`, in fp64."""
    y = tl.where(y > LOWEST, y, LOWEST)
    shifted = y + WIDE_ROUND
    r = y - (shifted - WIDE_ROUND)
    p = r * WIDE_EXP2_10 + WIDE_EXP2_9
    p = p * r + WIDE_EXP2_8
    p = p * r + WIDE_EXP2_7
    p = p * r + WIDE_EXP2_6
    p = p * r + WIDE_EXP2_5
    p = p * r + WIDE_EXP2_4
    p = p * r + WIDE_EXP2_3
    p = p * r + WIDE_EXP2_2
    p = p * r + WIDE_EXP2_1
    p = p * r + WIDE_EXP2_0
    p = p * r + 1.0
    return (p.to(tl.int64, bitcast=True) + (shifted.to(tl.int64, bitcast=True) << 52)).to(tl.float64, bitcast=True)


@triton.jit
def component(row, x, D: tl.constexpr, IS_DIAGONAL: tl.constexpr):
    """The logit of a component, and what it adds to the score of each element: d = m - x, or d i where i is its own."""
    pulls = ()
    for j in tl.static_range(D):
        if IS_DIAGONAL:
            d = tl.load(row + (1 + j)) - x[j]
            pull = d * tl.load(row + (1 + D + j))
        else:
            d = tl.load(row + (3 + j)) - x[j]
            pull = d
        if j == 0:
            total = multiply(pull, d)
        else:
            total = total + multiply(pull, d)
        pulls += (pull,)
    if IS_DIAGONAL:
        return multiply(total, MINUS_HALF_LOG2_E) + tl.load(row), pulls
    else:
        return multiply(total, tl.load(row + 1)) + tl.load(row), pulls


@triton.jit
def score_of(row, x, components, D: tl.constexpr, IS_DIAGONAL: tl.constexpr, UNROLL: tl.constexpr):
    """The score of a tuple of elements, and which samples must have it by :func:`wide_score_of` instead.

    ``row`` points to the level's first component, for all lanes or for each. ``components`` is a :func:`bound`.
    """
    NUMBERS: tl.constexpr = 1 + 2 * D if IS_DIAGONAL else 3 + D
    WIDTH: tl.constexpr = 2 * NUMBERS + 1
    most = tl.full(x[0].shape, -float("inf"), tl.float32)
    for k in tl.range(0, components, loop_unroll_factor=UNROLL):
        value, _ = component(row + k * WIDTH, x, D, IS_DIAGONAL)
        most = tl.maximum(value, most)
    # -0 is what leaves every first summand as it is.
    weight = tl.full(x[0].shape, -0.0, tl.float32)
    score = ()
    for j in tl.static_range(D):  # noqa: B007
        score += (weight,)
    for k in tl.range(0, components, loop_unroll_factor=UNROLL):
        at = row + k * WIDTH
        value, pulls = component(at, x, D, IS_DIAGONAL)
        e = exp2_below_one(value - most)
        weight = weight + e
        if IS_DIAGONAL:
            pull = e
        else:
            pull = e * tl.load(at + 2)
        added = ()
        for j in tl.static_range(D):
            added += (score[j] + multiply(pull, pulls[j]),)
        score = added
    share = tl.div_rn(tl.full(x[0].shape, 1.0, tl.float32), weight)
    shared = ()
    for j in tl.static_range(D):
        shared += (multiply(score[j], share),)
    # Also where all logits are NaN.
    return shared, (most >= tl.load(row + 2 * NUMBERS)) == 0


@triton.jit
def load_elements(ptr, valid, D: tl.constexpr):
    """The elements of each sample, a tuple, at pointers to the first."""
    x = ()
    for j in tl.static_range(D):
        if D <= 4:
            x += (tl.load(ptr + j, mask=valid, other=0.0),)
        else:
            x += (load_apart(ptr + j, valid),)
    return x


@triton.jit
def store_elements(ptr, x, valid, D: tl.constexpr):
    for j in tl.static_range(D):
        if D <= 4:
            tl.store(ptr + j, x[j], mask=valid)
        else:
            store_apart(ptr + j, x[j], valid)


@triton.jit
def wide(ptr, NUMBERS: tl.constexpr):
    """A number of the table in fp64."""
    return tl.load(ptr).to(tl.float64) + tl.load(ptr + NUMBERS).to(tl.float64)


@triton.jit
def wide_pull(row, x_ptr, j, valid, D: tl.constexpr, IS_DIAGONAL: tl.constexpr, NUMBERS: tl.constexpr):
    """d = m - x of an element, and d or d i as in :func:`component`."""
    # Not by `wide`: Triton's interpreter takes far longer to call a function than for what this one does.
    at = row + ((1 if IS_DIAGONAL else 3) + j)
    d = tl.load(at).to(tl.float64) + tl.load(at + NUMBERS).to(tl.float64)
    d = d - tl.load(x_ptr + j, mask=valid, other=0.0).to(tl.float64)
    if IS_DIAGONAL:
        at += D
        return d, d * (tl.load(at).to(tl.float64) + tl.load(at + NUMBERS).to(tl.float64))
    else:
        return d, d


@triton.jit
def wide_logit(row, x_ptr, features, valid, D: tl.constexpr, IS_DIAGONAL: tl.constexpr, NUMBERS: tl.constexpr):
    total = tl.full(valid.shape, -0.0, tl.float64)
    for j in range(bound(features)):
        d, pull = wide_pull(row, x_ptr, j, valid, D, IS_DIAGONAL, NUMBERS)
        total = total + pull * d
    if IS_DIAGONAL:
        return total * WIDE_MINUS_HALF_LOG2_E + wide(row, NUMBERS)
    else:
        return total * wide(row + 1, NUMBERS) + wide(row, NUMBERS)


@triton.jit
def wide_score(out_ptr, x_ptr, row, valid, components, features, D: tl.constexpr, IS_DIAGONAL: tl.constexpr):
    """Writes the score of the samples that are ``valid``, computed in fp64 and rounded to fp32.

    This is a rare branch, which must not take registers from the common one: with 16 elements in registers it took 152,
    and now it takes 64 on sm_90, where the common branch alone took 67. So elements come from memory, up to eight
    scores are summed at a time, and the logits are computed again for each eight. ``features`` equals D, and is not a
    constant, since loops over it would be unrolled.
    """
    NUMBERS: tl.constexpr = 1 + 2 * D if IS_DIAGONAL else 3 + D
    WIDTH: tl.constexpr = 2 * NUMBERS + 1
    GROUP: tl.constexpr = min(D, 8)
    most = tl.full(valid.shape, -float("inf"), tl.float64)
    for k in range(bound(components)):
        most = tl.maximum(wide_logit(row + k * WIDTH, x_ptr, features, valid, D, IS_DIAGONAL, NUMBERS), most)
    for first in range(0, bound(features), GROUP):
        weight = tl.full(valid.shape, -0.0, tl.float64)
        score = ()
        for j in tl.static_range(GROUP):  # noqa: B007
            score += (weight,)
        for k in range(bound(components)):
            at = row + k * WIDTH
            e = wide_exp2_below_one(wide_logit(at, x_ptr, features, valid, D, IS_DIAGONAL, NUMBERS) - most)
            weight = weight + e
            if not IS_DIAGONAL:
                e = e * wide(at + 2, NUMBERS)
            added = ()
            for j in tl.static_range(GROUP):
                # The last group may have fewer elements: it makes the last of all several times.
                place = tl.minimum(first + j, features - 1)
                _, pull = wide_pull(at, x_ptr, place, valid, D, IS_DIAGONAL, NUMBERS)
                added += (score[j] + e * pull,)
            score = added
        share = 1.0 / weight
        for j in tl.static_range(GROUP):
            place = tl.minimum(first + j, features - 1)
            tl.store(out_ptr + place, (score[j] * share).to(tl.float32), mask=valid)


@triton.jit(do_not_specialize=["batch", "components", "features", "levels"])
def score_kernel(
    out_ptr,
    x_ptr,
    table_ptr,
    labels_ptr,
    batch: tl.int64,
    components,
    features,
    levels: tl.int64,
    D: tl.constexpr,
    IS_DIAGONAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    WIDTH: tl.constexpr = 3 + 4 * D if IS_DIAGONAL else 7 + 2 * D
    sample = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = sample < batch
    label = tl.load(labels_ptr + sample, mask=valid, other=0)
    # As elsewhere, a label of no level gives NaN: it could be refused only by waiting for the device.
    known = label.to(tl.uint64) < levels.to(tl.uint64)
    row = table_ptr + tl.where(known, label, 0) * components * WIDTH
    x = load_elements(x_ptr + sample * D, valid, D)
    score, imprecise = score_of(row, x, bound(components), D, IS_DIAGONAL, 1)
    told = ()
    for j in tl.static_range(D):
        told += (tl.where(known, score[j], float("nan")),)
    store_elements(out_ptr + sample * D, told, valid, D)
    again = imprecise & known & valid
    if tl.max(again.to(tl.int32), 0) > 0:
        wide_score(out_ptr + sample * D, x_ptr + sample * D, row, again, components, features, D, IS_DIAGONAL)


def prepare(out: Tensor, x: Tensor, table: Tensor, labels: Tensor, *, diagonal: bool) -> Call:
    """The launch that :func:`mixture_score` makes, of the same arguments. ``x`` must not be empty."""
    batch, features = x.shape
    arguments: dict[str, Any] = {"out_ptr": out, "x_ptr": x, "table_ptr": table, "labels_ptr": labels, "batch": batch}
    arguments |= {"levels": table.shape[0], "components": table.shape[1], "features": features}
    arguments |= {"D": features, "IS_DIAGONAL": bool(diagonal), "BLOCK": BLOCK}
    return Call((triton.cdiv(batch, BLOCK), 1, 1), arguments, Launch(1, BLOCK, 4))


def mixture_score(out: Tensor, x: Tensor, table: Tensor, labels: Tensor, *, diagonal: bool) -> None:
    """Writes the score of a mixture. The caller has validated everything.

    Args:
        out, x: contiguous fp32 ``(B, D)``; overlap nothing.
        table: contiguous fp32 ``(L, K, 2 W + 1)``.
        labels: contiguous int64 ``(B,)``; for one that is no level the score is NaN.
        diagonal: whether the table has a variance for each element.
    """
    if x.numel():
        grid, arguments, launch = prepare(out, x, table, labels, diagonal=diagonal)
        with on_device(x):
            score_kernel[grid](**arguments, num_warps=launch.num_warps, enable_fp_fusion=False)
