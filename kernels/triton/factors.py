"""Factors of an update's terms, one number, one in memory, one for each sample or for each element; and its draws."""

from __future__ import annotations

import struct
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..address import MAX_DRAWS, ONE_DRAW, DrawTable, Update

FLOAT = tl.constexpr(0)
SCALAR = tl.constexpr(1)
SAMPLE = tl.constexpr(2)
ELEMENT = tl.constexpr(3)


@triton.jit
def number(value, dtype: tl.constexpr):
    """A number that is an argument; those of fp64 travel as the integers of their bits."""
    if dtype == tl.float64:
        return value.to(tl.int64).to(tl.float64, bitcast=True)
    else:
        return value


@triton.jit
def factor(value, KIND: tl.constexpr, ptrs, valid, first_row, row_lane, row_valid, dtype: tl.constexpr):
    """A factor for the elements at ``ptrs``, which are those of an ELEMENT factor."""
    if KIND == FLOAT:
        return number(value, dtype)
    elif KIND == SCALAR:
        return tl.load(value)
    elif KIND == SAMPLE:
        return tl.load(value + first_row + row_lane, mask=row_valid)[:, None]
    else:
        return tl.load(ptrs, mask=valid)


def number_argument(value: float, dtype: torch.dtype) -> float | int:
    """A number as kernels take it: Triton narrows a float argument to fp32."""
    if dtype == torch.float32:
        return float(value)
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits


def factor_argument(value: float | Tensor | None, dtype: torch.dtype) -> tuple[Any, int]:
    """A factor as the kernel takes it, and its kind."""
    if value is None:
        return None, FLOAT.value
    if not isinstance(value, Tensor):
        return number_argument(value, dtype), FLOAT.value
    varying = [dim for dim, size in enumerate(value.shape) if size > 1 and value.stride(dim)]
    if not varying:
        return value, SCALAR.value
    if varying == [0]:
        return value.as_strided((value.shape[0],), (value.stride(0),)).contiguous(), SAMPLE.value
    return value, ELEMENT.value


def draw_arguments(update: Update, compute: torch.dtype) -> dict[str, Any]:
    """Weights and offsets of the draws, and how many: -1 for one of weight 1, 0 for a table."""
    weights: list[Any] = [None] * MAX_DRAWS
    offsets: list[Any] = [None] * MAX_DRAWS
    table: dict[str, Any] = {"weights_ptr": None, "numbers_ptr": None, "draws": None}
    drawn: Any = update.draws
    count = -1
    if isinstance(drawn, DrawTable) and update.draws_noise:
        count = 0
        table = {"weights_ptr": drawn.weights, "numbers_ptr": drawn.numbers, "draws": len(drawn.weights)}
    elif drawn != ONE_DRAW and update.draws_noise:
        count = len(drawn)
        for place, (weight, offset) in enumerate(drawn):
            weights[place], offsets[place] = number_argument(weight, compute), offset - (offset >> 31 << 32)
    named = {f"w{k}": weight for k, weight in enumerate(weights)} | {f"o{k}": each for k, each in enumerate(offsets)}
    return {**named, **table, "DRAWS": count}
