"""The sums of an objective, in the one order that ``fastlangevin.reference`` writes down.

    value  v = fl(fl(1/2 Q) w_i)        Q the sum of the sample's segments
    sums   of the values of each level, and of all

Segments and values are summed alike: 256 lanes, each of which takes its entries in turn, then the lanes by halves. No
atomic operation is used, so that the bits depend on no schedule. Bytes, fp32: 8 a segment, 12 a sample, and 12 a sample
for each level and for the total.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..operands import Sums
from .direct_launch import launch
from .layout import Call, Launch, on_device
from .levels import at_level
from .loops import bound

LANES = 256


@triton.jit
def fold(values):
    """Sums of the rows of (N, M), M a power of two, by halves: the upper onto the lower until one is left.

    Each reduction is of two entries, whose sum has but one order.
    """
    size: tl.constexpr = values.shape[1]
    if size == 1:
        return tl.reshape(values, (values.shape[0],))
    else:
        return fold(tl.sum(tl.reshape(values, (values.shape[0], 2, size // 2)), axis=1))


@triton.jit
def sum_neighbours(values):
    """(N, 4) to (N,), by pairs, in each thread; (N, 2) are the one pair."""
    if values.shape[1] == 4:
        even, odd = tl.split(tl.reshape(values, (values.shape[0], 2, 2)))
        values = even + odd
    even, odd = tl.split(values)
    return even + odd


@triton.jit
def across(ptr, row, row_valid, segments, LANES: tl.constexpr):
    """The sums (N,) of rows of ``segments`` entries: the lanes in turn, then by halves."""
    ptrs = ptr + row[:, None] * segments
    lane = tl.arange(0, LANES)[None, :]
    sums = tl.load(ptrs + lane, mask=row_valid[:, None] & (lane < segments), other=0)
    for start in range(LANES, bound(segments), LANES):
        turn = start + lane
        sums += tl.load(ptrs + turn, mask=row_valid[:, None] & (turn < segments), other=0)
    return fold(sums)


@triton.jit(
    do_not_specialize=("rows", "segments", "levels"),
    do_not_specialize_on_alignment=("values_ptr", "partial_ptr", "labels_ptr", "weight_ptr"),
)
def values_kernel(
    values_ptr,
    partial_ptr,
    labels_ptr,
    weight_ptr,
    rows: tl.int64,
    segments: tl.int64,
    levels: tl.int64,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_valid = row < rows
    squares = across(partial_ptr, row, row_valid, segments, LANES)
    label = tl.load(labels_ptr + row, mask=row_valid, other=0)
    weight = at_level(weight_ptr, label, row_valid, levels)
    tl.store(values_ptr + row, squares * 0.5 * weight, mask=row_valid)


@triton.jit(
    do_not_specialize=("rows", "levels"),
    do_not_specialize_on_alignment=("sums_ptr", "counts_ptr", "total_ptr", "values_ptr", "labels_ptr"),
)
def levels_kernel(
    sums_ptr, counts_ptr, total_ptr, values_ptr, labels_ptr, rows: tl.int64, levels: tl.int64, LANES: tl.constexpr
):
    # One program for each level, and a last one for the total.
    level = tl.program_id(0)
    lane = tl.arange(0, LANES)
    sums = tl.zeros((LANES,), values_ptr.dtype.element_ty)
    counts = tl.zeros((LANES,), tl.int64)
    for start in range(0, bound(rows), LANES):
        row = start + lane
        own = row < rows
        value = tl.load(values_ptr + row, mask=own, other=0)
        own &= (tl.load(labels_ptr + row, mask=own, other=0) == level) | (level == levels)
        sums += tl.where(own, value, 0)
        counts += own
    sums = tl.sum(fold(sums[None, :]))
    if level == levels:
        tl.store(total_ptr, sums)
    else:
        tl.store(sums_ptr + level, sums)
        tl.store(counts_ptr + level, tl.sum(counts))


def prepare(results: Sums, partial: Tensor, labels: Tensor, weight: Tensor) -> tuple[Call, Call]:
    """The two launches that :func:`finish` makes, of the same arguments."""
    values, level_sums, level_counts, total = results
    rows, segments = partial.shape
    lanes = min(LANES, triton.next_power_of_2(segments))
    launch = Launch(width=1, groups=LANES, num_warps=2)
    shared = {"values_ptr": values, "labels_ptr": labels, "rows": rows, "levels": weight.numel()}
    own = {"partial_ptr": partial, "weight_ptr": weight, "segments": segments, "ROWS": LANES // lanes, "LANES": lanes}
    sums = {"sums_ptr": level_sums, "counts_ptr": level_counts, "total_ptr": total, "LANES": LANES}
    return (
        Call((triton.cdiv(rows, LANES // lanes), 1, 1), shared | own, launch),
        Call((weight.numel() + 1, 1, 1), shared | sums, launch),
    )


def finish(results: Sums, partial: Tensor, labels: Tensor, weight: Tensor) -> None:
    """Fill the values and their sums, all on one device.

    Args:
        results: these.
        partial: the segments' sums of squares ``(B, S)``.
        labels: int64 ``(B,)``. One that is no level makes its sample NaN and is in no level.
        weight: w ``(L,)``.
    """
    with on_device(weight):
        for kernel, call in zip((values_kernel, levels_kernel), prepare(results, partial, labels, weight), strict=True):
            launch(kernel, call.grid, call.arguments, num_warps=call.launch.num_warps, enable_fp_fusion=False)
