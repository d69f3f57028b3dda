"""The denoising score matching objective and its gradient in one pass, the noise drawn again inside.

    r = fl(fl(p_i h) + z)    or, for a prediction of the clean data x,    r = fl(p_i fl(h - x))
    v = fl(fl(1/2 sum r^2) w_i)        g = fl(fl(k_i u) r), then rounded to the dtype of h

for a sample of level i, in fp32 (fp64 for fp64 outputs, z being the fp32 normal widened). The bits are those of
``fastlangevin.reference``, the sums' among them: a program folds whole segments of samples, in the order written there,
and ``kernels.sums`` what it leaves, one number a segment.

Bytes per element: h once and the gradient once, 8 for fp32, 4 for 16-bit, 16 for fp64; half of it for values or the
gradient alone; the clean data or ``noise`` come on top.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..operands import Objective, Sums
from .direct_launch import launch
from .layout import CHANGING, Call, address, call_for, elements_of, locate, on_device, random_arguments, tile
from .levels import at_level, column, rows_of
from .noise import draw_groups, take
from .philox import load_as, round_to
from .ptx import multiply
from .sums import finish, fold, sum_neighbours

# Of the 57.8 instructions of an fp32 element on sm_90, for values and gradient, the noise is 40.5; moving 8 bytes, an
# H200 hides 48 for fp32 and 96 for fp64, so that the kernel is bound by arithmetic with noise and by memory without.
# The sums cost 5 (37 squares and adds, an exchange between the warps and 5 in them, for 16 elements), the row's label
# and numbers 2. Measured negatives for fp32, both: one warp 53.8, but with 72 registers (80 on sm_100) for 40, and an
# SM holds 16 to 32 programs at most, of one warp each then; 4 warps 66.8; folding all by tl.split, 4 more, which goes
# through shared memory where the reduction of two shuffles.


@triton.jit(
    do_not_specialize=("levels", *CHANGING),
    do_not_specialize_on_alignment=(
        "partial_ptr",
        "labels_ptr",
        "scale_ptr",
        "slope_ptr",
        "upstream_ptr",
        "layout_ptr",
        *CHANGING,
    ),
)
def dsm_kernel(
    gradient_ptr,
    output_ptr,
    clean_ptr,
    noise_ptr,
    partial_ptr,
    labels_ptr,
    scale_ptr,
    slope_ptr,
    upstream_ptr,
    levels: tl.int64,
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
    HAS_UPSTREAMS: tl.constexpr,
    NDIM: tl.constexpr,
    IS_LONG: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    TILE: tl.constexpr,
):
    dtype: tl.constexpr = scale_ptr.dtype.element_ty
    PARTS: tl.constexpr = 2 if dtype == tl.float64 else 1
    LANES: tl.constexpr = WIDTH // PARTS

    first_row, first_group, row_lane, group_lane, row_valid, group_valid = tile(rows, count, GROUPS, TILE)
    row, row_known = rows_of(first_row, row_lane, row_valid, rows, GROUPS, TILE)
    label = tl.load(labels_ptr + row, mask=row_known, other=0)
    scale = column(at_level(scale_ptr, label, row_known, levels))
    if gradient_ptr is not None:
        upstream = tl.load(upstream_ptr + row, mask=row_known, other=0) if HAS_UPSTREAMS else tl.load(upstream_ptr)
        factor = column(at_level(slope_ptr, label, row_known, levels) * upstream)

    if clean_ptr is None and noise_ptr is None:
        words = address(row, row_known, seed, seed_high, draw, ids_ptr, sample_offset, purpose)
        drawn = draw_groups(words, first_group, group_lane, WIDTH)

    for part in tl.static_range(PARTS):
        lane = tl.arange(0, LANES)[None, :] + part * LANES
        base, e, valid = elements_of(
            first_row, first_group, row_lane, group_lane, group_valid, count, elements, lane, NDIM, IS_LONG, WIDTH
        )
        residual = load_as(locate(output_ptr, layout_ptr, 1, base, row_lane, e, NDIM), valid, dtype)
        if clean_ptr is not None:
            residual -= load_as(locate(clean_ptr, layout_ptr, 2, base, row_lane, e, NDIM), valid, dtype)
            residual *= scale
        else:
            if noise_ptr is not None:
                z = load_as(locate(noise_ptr, layout_ptr, 3, base, row_lane, e, NDIM), valid, dtype)
            else:
                z = take(drawn, part, WIDTH, PARTS).to(dtype)
            residual = multiply(residual, scale) + z
        if gradient_ptr is not None:
            gradient = round_to(residual * factor, gradient_ptr.dtype.element_ty)
            tl.store(locate(gradient_ptr, layout_ptr, 0, base, row_lane, e, NDIM), gradient, mask=valid)
        if partial_ptr is not None:
            squares = multiply(residual, residual)
            if NDIM != 0:
                squares = tl.where(valid, squares, 0)
            neighbours = sum_neighbours(squares)
            if part == 0:
                sums = neighbours
            else:
                sums += neighbours

    if partial_ptr is not None:
        if NDIM == 0:
            sums = tl.where(group_valid, sums, 0)
        sums = fold(tl.reshape(sums, (GROUPS // TILE, TILE)))
        own = first_row + tl.arange(0, GROUPS // TILE)
        tl.store(partial_ptr + own * tl.num_programs(0) + tl.program_id(0), sums, mask=own < rows)


def prepare(gradient: Tensor | None, partial: Tensor | None, given: Objective, upstream: Tensor, segment: int) -> Call:
    """The launch over the output, which must not be empty; the segments' sums go to ``partial`` (B, S), if given."""
    output, labels, tables, at, noise, clean = given
    return call_for(
        output,
        [gradient, output, clean, noise],
        random_arguments(at),
        segment,
        gradient_ptr=gradient,
        output_ptr=output,
        clean_ptr=clean,
        noise_ptr=noise,
        partial_ptr=partial,
        labels_ptr=labels,
        scale_ptr=tables.scale,
        slope_ptr=tables.slope,
        upstream_ptr=upstream,
        levels=tables.scale.numel(),
        HAS_UPSTREAMS=upstream.ndim == 1,
    )


def dsm(sums: Sums | None, gradient: Tensor | None, given: Objective, upstream: Tensor, segment: int) -> None:
    """Write the objective of a network's output.

    Args:
        sums: None where the gradient alone is wanted.
        gradient: shape and dtype of the output, any strides; does not overlap it. None where it is not wanted.
        given: the objective.
        upstream: u, ``()`` or ``(B,)``, contiguous, in the computing dtype.
        segment: elements of a segment, a power of two from 4 to 1024.
    """
    output = given.output
    partial = None
    if sums is not None:
        elements = output.numel() // max(output.shape[0], 1)
        shape = output.shape[0], max(triton.cdiv(elements, segment), 1)
        partial = sums.values.new_empty(shape) if elements else sums.values.new_zeros(shape)
    if output.numel():
        call = prepare(gradient, partial, given, upstream, segment)
        with on_device(output):
            launch(dsm_kernel, call.grid, call.arguments, num_warps=call.launch.num_warps, enable_fp_fusion=False)
    if sums is not None and partial is not None:
        finish(sums, partial, given.labels, given.tables.weight)
