"""The sum of up to three tensors with ELU behind it, in one launch.

    total = fl(fl(a + b) + c)        out = ELU(total)

each addition in fp32 (fp64 for fp64 terms) and rounded to the dtype of the terms, as a tensor of the partial sum would
be. Bytes per element for fp32: 4 a term, 4 for the result, and 4 more where the sum is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from .direct_launch import launch
from .instance_norm import elu
from .layout import Call, Launch, on_device
from .philox import load_as, round_to, widened

BLOCK = 1024


@triton.jit(do_not_specialize=["count"])
def add_elu_kernel(out_ptr, total_ptr, a_ptr, b_ptr, c_ptr, count: tl.int64, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    kind: tl.constexpr = out_ptr.dtype.element_ty
    dtype: tl.constexpr = tl.float64 if kind == tl.float64 else tl.float32
    first = tl.program_id(0).to(tl.int64) * BLOCK
    at = tl.arange(0, BLOCK)
    # One predicate for a group, so that the accesses are vectors.
    valid = at // WIDTH < tl.minimum((count - first) // WIDTH, BLOCK).to(tl.int32)
    total = load_as(a_ptr + first + at, valid, dtype)
    if b_ptr is not None:
        total = widened(round_to(total + load_as(b_ptr + first + at, valid, dtype), kind), dtype)
    if c_ptr is not None:
        total = widened(round_to(total + load_as(c_ptr + first + at, valid, dtype), kind), dtype)
    if total_ptr is not None:
        tl.store(total_ptr + first + at, round_to(total, kind), mask=valid)
    tl.store(out_ptr + first + at, round_to(elu(total), kind), mask=valid)


def prepare(out: Tensor, total: Tensor | None, terms: Sequence[Tensor]) -> Call:
    """The launch that :func:`add_elu` makes, of the same arguments. ``out`` must not be empty."""
    count = out.numel()
    width = math.gcd(count, 16 // out.element_size())
    names = ("a_ptr", "b_ptr", "c_ptr")
    arguments = {"out_ptr": out, "total_ptr": total, "count": count, "WIDTH": width, "BLOCK": BLOCK}
    arguments |= dict(zip(names, (*terms, None, None), strict=False))
    return Call((triton.cdiv(count, BLOCK), 1, 1), arguments, Launch(width, BLOCK // width, 4))


def add_elu(out: Tensor, total: Tensor | None, terms: Sequence[Tensor]) -> None:
    """Write ELU of the terms' sum, and the sum where ``total`` is given. The caller has validated everything.

    Args:
        out, total: as the terms; overlap nothing.
        terms: one to three dense tensors of one shape, dtype and layout.
    """
    if out.numel():
        call = prepare(out, total, terms)
        with on_device(out):
            launch(add_elu_kernel, call.grid, call.arguments, num_warps=call.launch.num_warps)
