"""The score of a Gaussian mixture at a level for each sample: Triton kernel, and the device functions of whole chains.

    l_k = h_k |m_k - x|^2 + g_k        score = sum_k e_k i_k (m_k - x) / sum_k e_k        e_k = 2^max(l_k - l, -100)

in the written order of ``fastlangevin.reference.mixture``, whose table this reads. The logits are made twice rather
than kept: a component's seven operations cost less than the registers. Bytes per sample: 8 D, and 8 for the level.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from .layout import Call, Launch, on_device
from .ptx import multiply

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
def pull_of(row, x, j: tl.constexpr, D: tl.constexpr, IS_DIAGONAL: tl.constexpr):
    """d = m - x of element j, and what it adds to the score: d, or d i where the variance is the element's own."""
    if IS_DIAGONAL:
        d = tl.load(row + (1 + j)) - x
        return d, d * tl.load(row + (1 + D + j))
    else:
        d = tl.load(row + (3 + j)) - x
        return d, d


@triton.jit
def logit(total, row, IS_DIAGONAL: tl.constexpr):
    if IS_DIAGONAL:
        return multiply(total, MINUS_HALF_LOG2_E) + tl.load(row)
    else:
        return multiply(total, tl.load(row + 1)) + tl.load(row)


@triton.jit
def component(row, x0, x1, x2, x3, D: tl.constexpr, IS_DIAGONAL: tl.constexpr):
    """The logit and the four pulls of a component; past D, those of the first element stand in."""
    d, u0 = pull_of(row, x0, 0, D, IS_DIAGONAL)
    total = multiply(u0, d)
    u1 = u0
    u2 = u0
    u3 = u0
    if D > 1:
        d, u1 = pull_of(row, x1, 1, D, IS_DIAGONAL)
        total = total + multiply(u1, d)
    if D > 2:
        d, u2 = pull_of(row, x2, 2, D, IS_DIAGONAL)
        total = total + multiply(u2, d)
    if D > 3:
        d, u3 = pull_of(row, x3, 3, D, IS_DIAGONAL)
        total = total + multiply(u3, d)
    return logit(total, row, IS_DIAGONAL), u0, u1, u2, u3


@triton.jit
def score_of(row, x0, x1, x2, x3, components, D: tl.constexpr, IS_DIAGONAL: tl.constexpr, UNROLL: tl.constexpr):
    """The score for up to four elements; ``row`` points to the level's first component, for all lanes or for each."""
    WIDTH: tl.constexpr = 1 + 2 * D if IS_DIAGONAL else 3 + D
    most = tl.full(x0.shape, -float("inf"), tl.float32)
    for k in tl.range(0, components, loop_unroll_factor=UNROLL):
        value, _, _, _, _ = component(row + k * WIDTH, x0, x1, x2, x3, D, IS_DIAGONAL)
        most = tl.maximum(value, most)
    # -0 is what leaves every first summand as it is.
    s0 = tl.full(x0.shape, -0.0, tl.float32)
    s1 = s0
    s2 = s0
    s3 = s0
    weight = s0
    for k in tl.range(0, components, loop_unroll_factor=UNROLL):
        at = row + k * WIDTH
        value, u0, u1, u2, u3 = component(at, x0, x1, x2, x3, D, IS_DIAGONAL)
        e = exp2_below_one(value - most)
        weight = weight + e
        if IS_DIAGONAL:
            pull = e
        else:
            pull = e * tl.load(at + 2)
        s0 = s0 + multiply(pull, u0)
        if D > 1:
            s1 = s1 + multiply(pull, u1)
        if D > 2:
            s2 = s2 + multiply(pull, u2)
        if D > 3:
            s3 = s3 + multiply(pull, u3)
    share = tl.div_rn(tl.full(x0.shape, 1.0, tl.float32), weight)
    return multiply(s0, share), multiply(s1, share), multiply(s2, share), multiply(s3, share)


@triton.jit
def load_state(ptr, valid, D: tl.constexpr):
    """The up to four elements of each chain, at pointers to the first."""
    x0 = tl.load(ptr, mask=valid, other=0.0)
    x1 = x0
    x2 = x0
    x3 = x0
    if D > 1:
        x1 = tl.load(ptr + 1, mask=valid, other=0.0)
    if D > 2:
        x2 = tl.load(ptr + 2, mask=valid, other=0.0)
    if D > 3:
        x3 = tl.load(ptr + 3, mask=valid, other=0.0)
    return x0, x1, x2, x3


@triton.jit
def store_state(ptr, x0, x1, x2, x3, valid, D: tl.constexpr):
    tl.store(ptr, x0, mask=valid)
    if D > 1:
        tl.store(ptr + 1, x1, mask=valid)
    if D > 2:
        tl.store(ptr + 2, x2, mask=valid)
    if D > 3:
        tl.store(ptr + 3, x3, mask=valid)


@triton.jit
def _far_logit(row, x_ptr, valid, D: tl.constexpr, IS_DIAGONAL: tl.constexpr):
    total = tl.full(valid.shape, -0.0, tl.float32)
    for j in range(D):
        d = tl.load(row + ((1 if IS_DIAGONAL else 3) + j)) - tl.load(x_ptr + j, mask=valid, other=0.0)
        if IS_DIAGONAL:
            total = total + multiply(d * tl.load(row + (1 + D + j)), d)
        else:
            total = total + multiply(d, d)
    return logit(total, row, IS_DIAGONAL)


@triton.jit
def _many_elements(out_ptr, x_ptr, row, valid, components, D: tl.constexpr, IS_DIAGONAL: tl.constexpr):
    """More elements than stay in registers: read again for each component, and again for each element's sum."""
    WIDTH: tl.constexpr = 1 + 2 * D if IS_DIAGONAL else 3 + D
    most = tl.full(valid.shape, -float("inf"), tl.float32)
    for k in range(components):
        most = tl.maximum(_far_logit(row + k * WIDTH, x_ptr, valid, D, IS_DIAGONAL), most)
    weight = tl.full(valid.shape, -0.0, tl.float32)
    for k in range(components):
        at = row + k * WIDTH
        e = exp2_below_one(_far_logit(at, x_ptr, valid, D, IS_DIAGONAL) - most)
        weight = weight + e
        pull = e if IS_DIAGONAL else e * tl.load(at + 2)
        for j in range(D):
            d = tl.load(at + ((1 if IS_DIAGONAL else 3) + j)) - tl.load(x_ptr + j, mask=valid, other=0.0)
            if IS_DIAGONAL:
                d = d * tl.load(at + (1 + D + j))
            # The sum stands in the result: an element is its own thread's, so that it reads what it wrote.
            before = tl.load(out_ptr + j, mask=valid & (k > 0), other=-0.0)
            tl.store(out_ptr + j, before + multiply(pull, d), mask=valid)
    share = tl.div_rn(tl.full(valid.shape, 1.0, tl.float32), weight)
    for j in range(D):
        tl.store(out_ptr + j, multiply(tl.load(out_ptr + j, mask=valid, other=0.0), share), mask=valid)


@triton.jit(do_not_specialize=["batch", "components"])
def score_kernel(
    out_ptr,
    x_ptr,
    table_ptr,
    labels_ptr,
    batch: tl.int64,
    components,
    D: tl.constexpr,
    IS_DIAGONAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    WIDTH: tl.constexpr = 1 + 2 * D if IS_DIAGONAL else 3 + D
    sample = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = sample < batch
    row = table_ptr + tl.load(labels_ptr + sample, mask=valid, other=0) * components * WIDTH
    if D <= 4:
        x0, x1, x2, x3 = load_state(x_ptr + sample * D, valid, D)
        s0, s1, s2, s3 = score_of(row, x0, x1, x2, x3, components, D, IS_DIAGONAL, 1)
        store_state(out_ptr + sample * D, s0, s1, s2, s3, valid, D)
    else:
        _many_elements(out_ptr + sample * D, x_ptr + sample * D, row, valid, components, D, IS_DIAGONAL)


def prepare(out: Tensor, x: Tensor, table: Tensor, labels: Tensor, *, diagonal: bool) -> Call:
    """The launch that :func:`mixture_score` makes, of the same arguments. ``x`` must not be empty."""
    batch, features = x.shape
    arguments: dict[str, Any] = {"out_ptr": out, "x_ptr": x, "table_ptr": table, "labels_ptr": labels, "batch": batch}
    arguments |= {"components": table.shape[1], "D": features, "IS_DIAGONAL": bool(diagonal), "BLOCK": BLOCK}
    return Call((triton.cdiv(batch, BLOCK), 1, 1), arguments, Launch(1, BLOCK, 4))


def mixture_score(out: Tensor, x: Tensor, table: Tensor, labels: Tensor, *, diagonal: bool) -> None:
    """Writes the score of a mixture. The caller has validated everything.

    Args:
        out, x: contiguous fp32 ``(B, D)``; overlap nothing.
        table: contiguous fp32 ``(L, K, W)``.
        labels: contiguous int64 ``(B,)``, below L.
        diagonal: whether the table has a variance for each element.
    """
    if x.numel():
        grid, arguments, launch = prepare(out, x, table, labels, diagonal=diagonal)
        with on_device(x):
            score_kernel[grid](**arguments, num_warps=launch.num_warps, enable_fp_fusion=False)
