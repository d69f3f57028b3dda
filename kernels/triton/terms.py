"""The coefficients of an update's terms: numbers, or tensors that hold one for all, for each sample or each element.

Bytes per element: 4 for a coefficient of each element, 8 for fp64 states; none for the others.
"""

from __future__ import annotations

import struct
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..address import MAX_TERMS, Coefficient
from .layout import locate

FLOAT = tl.constexpr(0)
SCALAR = tl.constexpr(1)
SAMPLE = tl.constexpr(2)
ELEMENT = tl.constexpr(3)

# Arguments of the kernel.
SLOTS = tuple(f"slot_{place}" for place in range(MAX_TERMS))
FACTORS = tuple(f"a_{place}" for place in range(MAX_TERMS))


@triton.jit
def number(value, dtype: tl.constexpr):
    """A number as :func:`number_argument` passes it."""
    if dtype == tl.float64:
        return value.to(tl.int64).to(tl.float64, bitcast=True)
    else:
        return value


@triton.jit
def coefficient(
    value,
    KIND: tl.constexpr,
    layout_ptr,
    operand: tl.constexpr,
    first_row,
    row_lane,
    row_valid,
    base,
    element,
    valid,
    NDIM: tl.constexpr,
    dtype: tl.constexpr,
):
    """A coefficient of the elements of a tile; :func:`coefficient_argument` tells its kind."""
    if KIND == FLOAT:
        return number(value, dtype)
    elif KIND == SCALAR:
        return tl.load(value)
    elif KIND == SAMPLE:
        return tl.load(value + first_row + row_lane, mask=row_valid)[:, None]
    else:
        return tl.load(locate(value, layout_ptr, operand, base, row_lane, element, NDIM), mask=valid)


def number_argument(value: float, dtype: torch.dtype) -> float | int:
    """A number of a computing dtype as a kernel takes it."""
    if dtype == torch.float32:
        return float(value)
    # Triton narrows a float argument to fp32; the bits of an fp64 one travel as an integer.
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits


def coefficient_argument(value: Coefficient, dtype: torch.dtype) -> tuple[Any, int]:
    """A coefficient as a kernel takes it, and its kind."""
    if not isinstance(value, Tensor):
        return number_argument(value, dtype), FLOAT.value
    varying = [dim for dim, size in enumerate(value.shape) if size > 1 and value.stride(dim)]
    if not varying:
        return value, SCALAR.value
    if varying == [0]:
        return value.as_strided((value.shape[0],), (value.stride(0),)).contiguous(), SAMPLE.value
    return value, ELEMENT.value
