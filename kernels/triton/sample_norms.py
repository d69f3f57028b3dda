"""Norms of samples, and of the noise of an address, which is drawn and not written.

    norm = fl(sqrt(Q))        Q the sum of squares of a sample, in the one order of ``kernels.sums``

in fp32 (fp64 for fp64 samples, the normals being widened). A program folds whole segments of samples, of the tensor and
of the noise alike; a second launch sums what it leaves, one number a segment, and takes the roots.

Bytes per element: x once, 4 for fp32, 2 for 16-bit, 8 for fp64, and nothing for the noise, or as much again where it is
given.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..operands import SampleNorms
from .layout import CHANGING, Call, Launch, address, call_for, elements_of, locate, on_device, random_arguments, tile
from .levels import rows_of
from .noise import draw_groups, take
from .philox import load_as
from .ptx import multiply
from .sums import LANES, across, fold, sum_neighbours


@triton.jit
def _squares(values, valid, NDIM: tl.constexpr):
    """Sums of four neighbours' squares, or of the pair that one of two parts has."""
    squares = multiply(values, values)
    if NDIM != 0:
        squares = tl.where(valid, squares, 0)
    return sum_neighbours(squares)


@triton.jit
def _store(ptr, sums, first_row, rows, group_valid, GROUPS: tl.constexpr, TILE: tl.constexpr):
    """The sums of the program's segments, one in each of its rows."""
    sums = fold(tl.reshape(tl.where(group_valid, sums, 0), (GROUPS // TILE, TILE)))
    own = first_row + tl.arange(0, GROUPS // TILE)
    tl.store(ptr + own * tl.num_programs(0) + tl.program_id(0), sums, mask=own < rows)


@triton.jit(
    do_not_specialize=CHANGING,
    do_not_specialize_on_alignment=("of_x_ptr", "of_noise_ptr", "layout_ptr", *CHANGING),
)
def norms_kernel(
    x_ptr,
    noise_ptr,
    of_x_ptr,
    of_noise_ptr,
    layout_ptr,
    rows: tl.int64,
    count: tl.int64,
    elements: tl.int64,
    seed,
    seed_high,
    draw,
    ids_ptr,
    sample_offset: tl.int64,
    purpose,
    NDIM: tl.constexpr,
    IS_LONG: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    TILE: tl.constexpr,
):
    dtype: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    PARTS: tl.constexpr = 2 if dtype == tl.float64 else 1
    LANES: tl.constexpr = WIDTH // PARTS

    first_row, first_group, row_lane, group_lane, row_valid, group_valid = tile(rows, count, GROUPS, TILE)
    if of_noise_ptr is not None and noise_ptr is None:
        row, row_known = rows_of(first_row, row_lane, row_valid, rows, GROUPS, TILE)
        words = address(row, row_known, seed, seed_high, draw, ids_ptr, sample_offset, purpose)
        drawn = draw_groups(words, first_group, group_lane, WIDTH)

    for part in tl.static_range(PARTS):
        lane = tl.arange(0, LANES)[None, :] + part * LANES
        base, e, valid = elements_of(
            first_row, first_group, row_lane, group_lane, group_valid, count, elements, lane, NDIM, IS_LONG, WIDTH
        )
        if of_x_ptr is not None:
            x = load_as(locate(x_ptr, layout_ptr, 0, base, row_lane, e, NDIM), valid, dtype)
            own = _squares(x, valid, NDIM)
            if part == 0:
                of_x = own
            else:
                of_x += own
        if of_noise_ptr is not None:
            if noise_ptr is not None:
                z = load_as(locate(noise_ptr, layout_ptr, 1, base, row_lane, e, NDIM), valid, dtype)
            else:
                z = take(drawn, part, WIDTH, PARTS).to(dtype)
            own = _squares(z, valid, NDIM)
            if part == 0:
                of_noise = own
            else:
                of_noise += own

    if of_x_ptr is not None:
        _store(of_x_ptr, of_x, first_row, rows, group_valid, GROUPS, TILE)
    if of_noise_ptr is not None:
        _store(of_noise_ptr, of_noise, first_row, rows, group_valid, GROUPS, TILE)


@triton.jit(do_not_specialize=("rows", "segments"), do_not_specialize_on_alignment=("norms_ptr", "partial_ptr"))
def roots_kernel(norms_ptr, partial_ptr, rows: tl.int64, segments: tl.int64, ROWS: tl.constexpr, LANES: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_valid = row < rows
    sums = across(partial_ptr, row, row_valid, segments, LANES)
    root = tl.sqrt_rn(sums) if sums.dtype == tl.float32 else tl.sqrt(sums)
    tl.store(norms_ptr + row, root, mask=row_valid)


def prepare(out: Tensor, partial: Tensor, given: SampleNorms, segment: int) -> tuple[Call, Call]:
    """The two launches that :func:`norms` makes; ``partial`` (K, B, S) is of the dtype of ``out``. Nothing is empty."""
    x, at, of_x, of_noise, noise = given
    noise = noise if of_noise else None
    first = call_for(
        x,
        [x, noise],
        random_arguments(at),
        segment,
        x_ptr=x,
        noise_ptr=noise,
        of_x_ptr=partial[0] if of_x else None,
        of_noise_ptr=partial[-1] if of_noise else None,
    )
    rows, segments = partial.shape[0] * partial.shape[1], partial.shape[2]
    lanes = min(LANES, triton.next_power_of_2(segments))
    own = {"norms_ptr": out, "partial_ptr": partial, "rows": rows, "segments": segments}
    grid = triton.cdiv(rows, LANES // lanes), 1, 1
    launch = Launch(width=1, groups=LANES, num_warps=2)
    return first, Call(grid, own | {"ROWS": LANES // lanes, "LANES": lanes}, launch)


def norms(out: Tensor, given: SampleNorms, segment: int) -> None:
    """Write the norms of samples, of noise, or of both. The caller has validated everything.

    Args:
        out: ``(K, B)``, contiguous, fp64 for fp64 samples and fp32 otherwise: of x, then of the noise.
        given: the samples.
        segment: elements of a segment, a power of two from 4 to 1024.
    """
    x = given.x
    partial = out.new_empty(*out.shape, triton.cdiv(x.numel() // x.shape[0], segment))
    with on_device(x):
        calls = prepare(out, partial, given, segment)
        for kernel, call in zip((norms_kernel, roots_kernel), calls, strict=True):
            kernel[call.grid](**call.arguments, num_warps=call.launch.num_warps, enable_fp_fusion=False)
