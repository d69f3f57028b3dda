"""Standard normals or uniforms at their addresses, written to memory.

    out[row, element] = z(seed, sample, draw, element, purpose)

made in fp32 and rounded once to the dtype of ``out``. Bytes per element: those of ``out``, 4 for fp32.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..address import Address
from .direct_launch import launch
from .layout import CHANGING, Call, address, call_for, elements_of, locate, on_device, random_arguments, tile
from .levels import rows_of
from .noise import draw_groups, take
from .philox import round_to


@triton.jit(do_not_specialize=CHANGING, do_not_specialize_on_alignment=("layout_ptr", *CHANGING))
def randn_kernel(
    out_ptr,
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
    IS_UNIFORM: tl.constexpr,
    NDIM: tl.constexpr,
    IS_LONG: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    TILE: tl.constexpr,
):
    dtype: tl.constexpr = out_ptr.dtype.element_ty
    PARTS: tl.constexpr = 2 if dtype == tl.float64 else 1
    LANES: tl.constexpr = WIDTH // PARTS

    first_row, first_group, row_lane, group_lane, row_valid, group_valid = tile(rows, count, GROUPS, TILE)
    row, row_known = rows_of(first_row, row_lane, row_valid, rows, GROUPS, TILE)
    words = address(row, row_known, seed, seed_high, draw, ids_ptr, sample_offset, purpose)
    drawn = draw_groups(words, first_group, group_lane, WIDTH, IS_UNIFORM)

    for part in tl.static_range(PARTS):
        lane = tl.arange(0, LANES)[None, :] + part * LANES
        base, e, valid = elements_of(
            first_row, first_group, row_lane, group_lane, group_valid, count, elements, lane, NDIM, IS_LONG, WIDTH
        )
        value = take(drawn, part, WIDTH, PARTS)
        tl.store(locate(out_ptr, layout_ptr, 0, base, row_lane, e, NDIM), round_to(value, dtype), mask=valid)


def prepare(
    out: Tensor,
    *,
    uniform: bool,
    address: Address,
) -> Call:
    """The launch that :func:`randn` makes, of the same arguments. ``out`` must not be empty."""
    random = random_arguments(address)
    return call_for(out, [out], random, out_ptr=out, IS_UNIFORM=uniform)


def randn(out: Tensor, address: Address, *, uniform: bool) -> None:
    """Fill ``out`` with standard normals, or uniforms on (0, 1). The caller has validated everything.

    Args:
        out: ``(B, ...)``, any float dtype and strides.
        uniform: uniforms in place of normals.
        address: of the noise.
    """
    if out.numel():
        call = prepare(out, address=address, uniform=uniform)
        with on_device(out):
            launch(randn_kernel, call.grid, call.arguments, num_warps=call.launch.num_warps, enable_fp_fusion=False)
