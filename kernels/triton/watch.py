"""Triton device functions that find the samples of a tile with a NaN or an infinity after rounding.

A group of neighbours lies in one thread, which takes the largest of their magnitudes and compares it once; no second
pass, and memory is written only where there is a fault. The record is an integer's atomic minimum, so that its bits
depend on no schedule.
"""

from __future__ import annotations

import triton
import triton.language as tl

# The least magnitudes that are rounded to an infinity.
FP16_LIMIT = tl.constexpr(65520.0)
BF16_LIMIT = tl.constexpr(float.fromhex("0x1.ffp+127"))
INFINITY = tl.constexpr(float("inf"))
# The upper half of an fp64 infinity.
FP64_LIMIT = tl.constexpr(0x7FF00000)


@triton.jit
def step_number(number, number_ptr):
    """The number of a step that is recorded, an argument or in memory, as int64."""
    if number_ptr is not None:
        return tl.load(number_ptr)
    else:
        return number


@triton.jit
def _larger(a, b):
    # Of a NaN and a number the NaN, which hardware maxima otherwise drop.
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _largest(values):
    """(N, L) to (N,), in each thread; L is 2, 4 or 8."""
    if values.shape[1] == 2:
        even, odd = tl.split(values)
        return _larger(even, odd)
    else:
        even, odd = tl.split(tl.reshape(values, (values.shape[0], values.shape[1] // 2, 2)))
        return _largest(_larger(even, odd))


@triton.jit
def overflows(values, dtype: tl.constexpr):
    """Returns which rows of (N, L) hold what is no finite number once it is rounded to a dtype: (N,)."""
    if values.dtype == tl.float64:
        # There is no maximum of fp64 that keeps a NaN; the bits of a magnitude rise with it, and a NaN's are highest.
        upper = (values.to(tl.int64, bitcast=True) >> 32).to(tl.int32) & 0x7FFFFFFF
        return _largest(upper) >= FP64_LIMIT
    else:
        limit: tl.constexpr = FP16_LIMIT if dtype == tl.float16 else BF16_LIMIT if dtype == tl.bfloat16 else INFINITY
        return ~(_largest(tl.abs(values)) < limit)
