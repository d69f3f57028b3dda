"""Standard normals or uniforms at their addresses, written to memory.

    out[row, element] = z(seed, sample, draw, element, purpose)

made in fp32 and rounded once to the dtype of ``out``. Bytes per element: those of ``out``, 4 for fp32.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..address import Address
from .direct_launch import launch
from .layout import CHANGING, Call, address, call_for, elements_of, locate, on_device, random_arguments, tile
from .levels import rows_of
from .philox import interleave4, interleave8, normals, philox, round_to, uniform


@triton.jit
def _variates(block, c1, c2, c3, k0, k1, IS_UNIFORM: tl.constexpr):
    w0, w1, w2, w3 = philox(block, c1, c2, c3, k0, k1)
    if IS_UNIFORM:
        return uniform(w0), uniform(w1), uniform(w2), uniform(w3)
    else:
        return normals(w0, w1, w2, w3)


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
    c1, c2, c3, k0, k1 = address(row, row_known, seed, seed_high, draw, ids_ptr, sample_offset, purpose)
    block = (first_group * (WIDTH // 4)).to(tl.uint32) + (group_lane * (WIDTH // 4)).to(tl.uint32)
    z0, z1, z2, z3 = _variates(block, c1, c2, c3, k0, k1, IS_UNIFORM)
    if WIDTH == 8:
        z4, z5, z6, z7 = _variates(block + 1, c1, c2, c3, k0, k1, IS_UNIFORM)

    for part in tl.static_range(PARTS):
        lane = tl.arange(0, LANES)[None, :] + part * LANES
        base, e, valid = elements_of(
            first_row, first_group, row_lane, group_lane, group_valid, count, elements, lane, NDIM, IS_LONG, WIDTH
        )
        if WIDTH == 8:
            value = interleave8(z0, z1, z2, z3, z4, z5, z6, z7)
        elif PARTS == 1:
            value = interleave4(z0, z1, z2, z3)
        else:
            value = tl.join(z0, z1) if part == 0 else tl.join(z2, z3)
        tl.store(locate(out_ptr, layout_ptr, 0, base, row_lane, e, NDIM), round_to(value, dtype), mask=valid)


def prepare(
    out: Tensor,
    *,
    uniform: bool,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
) -> Call:
    """The launch that :func:`randn` makes, of the same arguments. ``out`` must not be empty."""
    random = random_arguments(Address(seed, draw, sample_ids, sample_offset, purpose))
    return call_for(out, [out], random, out_ptr=out, IS_UNIFORM=uniform)


def randn(out: Tensor, **arguments: Any) -> None:
    """Fill ``out`` with standard normals, or uniforms on (0, 1). The caller has validated everything.

    Args:
        out: ``(B, ...)``, any float dtype and strides.
        uniform: uniforms in place of normals.
        seed, draw, sample_ids, sample_offset, purpose: as for ``kernels.step.step``.
    """
    if out.numel():
        call = prepare(out, **arguments)
        with on_device(out):
            launch(randn_kernel, call.grid, call.arguments, num_warps=call.launch.num_warps, enable_fp_fusion=False)
