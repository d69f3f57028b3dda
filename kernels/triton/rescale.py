"""A tensor times a number that stands on the device, and nothing at all where the number is 1.

    values <- fl(values * factor)        in fp32 (fp64 for fp64 values), rounded once to the dtype of the values

What a loss is divided or multiplied by after it was made, a gradient made beforehand must follow; mostly that is 1, and
the host cannot know without waiting. Bytes per element: 8 for fp32 where the factor is not 1, none where it is.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .direct_launch import launch
from .layout import on_device
from .philox import round_to

BLOCK = 1024


@triton.jit
def rescale_kernel(values_ptr, factor_ptr, count: tl.int64, BLOCK: tl.constexpr):
    factor = tl.load(factor_ptr)
    if factor != 1.0:
        dtype: tl.constexpr = values_ptr.dtype.element_ty
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(values_ptr + at, mask=at < count)
        if dtype == tl.bfloat16:
            value = value.to(tl.float32)
        tl.store(values_ptr + at, round_to(value.to(factor.dtype) * factor, dtype), mask=at < count)


def rescale(values: Tensor, factor: Tensor) -> None:
    """Multiply in place. The caller has validated everything.

    Args:
        values: dense, so that its elements are ``numel`` neighbours in memory.
        factor: ``()``, fp64 for fp64 values and fp32 otherwise.
    """
    count = values.numel()
    if count:
        with on_device(values):
            arguments = {"values_ptr": values, "factor_ptr": factor, "count": count, "BLOCK": BLOCK}
            launch(rescale_kernel, (triton.cdiv(count, BLOCK),), arguments, enable_fp_fusion=False)
