"""Samples with noise of a level's strength, the noise and, where asked, the levels drawn inside.

    out = fl(x + fl(sigma_i z))        z ~ N(0, 1), i the sample's level

in fp32 (fp64 for fp64 samples, z being the fp32 normal widened), then rounded once to the samples' dtype. The bits are
those of ``fastlangevin.reference``. A drawn level is the first word of block 0 at the sample's address, under a purpose
of its own, made a number from 0 to L - 1 in integers.

Bytes per element: x and out once each, 8 for fp32, 4 for 16-bit, 16 for fp64; ``noise`` comes on top.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..operands import Perturbation
from .direct_launch import launch
from .layout import CHANGING, Call, address, call_for, elements_of, locate, on_device, random_arguments, tile
from .levels import at_level, column, rows_of
from .noise import draw_groups, take
from .philox import load_as, philox, round_to
from .ptx import multiply

# A drawn label is a Philox block in each thread, 45 instructions on 16 elements, or on 4 where a program has many short
# rows (64 an element for 784 elements). Moving 8 bytes, an H200 hides 48 for fp32, so that this kernel is bound by
# arithmetic for all but fp64.


@triton.jit
def _draw_label(c1, c2, c3, k0, k1, levels):
    word, _, _, _ = philox(tl.zeros_like(c1), c1, c2, c3, k0, k1)
    return ((word >> 9) * 2 + 1).to(tl.int64) * levels >> 24


@triton.jit(
    do_not_specialize=("levels", "level_purpose", *CHANGING),
    do_not_specialize_on_alignment=("sigmas_ptr", "labels_ptr", "layout_ptr", *CHANGING),
)
def perturb_kernel(
    out_ptr,
    x_ptr,
    noise_ptr,
    sigmas_ptr,
    labels_ptr,
    levels: tl.int64,
    level_purpose,
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
    DRAWS_LABELS: tl.constexpr,
    NDIM: tl.constexpr,
    IS_LONG: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    TILE: tl.constexpr,
):
    dtype: tl.constexpr = sigmas_ptr.dtype.element_ty
    PARTS: tl.constexpr = 2 if dtype == tl.float64 else 1
    LANES: tl.constexpr = WIDTH // PARTS

    first_row, first_group, row_lane, group_lane, row_valid, group_valid = tile(rows, count, GROUPS, TILE)
    row, row_known = rows_of(first_row, row_lane, row_valid, rows, GROUPS, TILE)
    if DRAWS_LABELS:
        c1, c2, c3, k0, k1 = address(row, row_known, seed, seed_high, draw, ids_ptr, sample_offset, level_purpose)
        label = _draw_label(c1, c2, c3, k0, k1, levels)
        group = first_group if TILE == GROUPS else first_group + group_lane
        tl.store(labels_ptr + row, label, mask=row_known & (group == 0))
    else:
        label = tl.load(labels_ptr + row, mask=row_known, other=0)
    sigma = column(at_level(sigmas_ptr, label, row_known, levels))

    if noise_ptr is None:
        words = address(row, row_known, seed, seed_high, draw, ids_ptr, sample_offset, purpose)
        drawn = draw_groups(words, first_group, group_lane, WIDTH)

    for part in tl.static_range(PARTS):
        lane = tl.arange(0, LANES)[None, :] + part * LANES
        base, e, valid = elements_of(
            first_row, first_group, row_lane, group_lane, group_valid, count, elements, lane, NDIM, IS_LONG, WIDTH
        )
        x = load_as(locate(x_ptr, layout_ptr, 1, base, row_lane, e, NDIM), valid, dtype)
        if noise_ptr is not None:
            z = load_as(locate(noise_ptr, layout_ptr, 2, base, row_lane, e, NDIM), valid, dtype)
        else:
            z = take(drawn, part, WIDTH, PARTS).to(dtype)
        out_ptrs = locate(out_ptr, layout_ptr, 0, base, row_lane, e, NDIM)
        tl.store(out_ptrs, round_to(x + multiply(z, sigma), out_ptr.dtype.element_ty), mask=valid)


def prepare(out: Tensor, drawn: Tensor | None, given: Perturbation) -> Call:
    """The launch that :func:`perturb` makes, of the same arguments. x must not be empty."""
    x, sigmas, labels, at, level_purpose, noise = given
    return call_for(
        x,
        [out, x, noise],
        random_arguments(at),
        out_ptr=out,
        x_ptr=x,
        noise_ptr=noise,
        sigmas_ptr=sigmas,
        labels_ptr=drawn if labels is None else labels,
        levels=sigmas.numel(),
        level_purpose=level_purpose,
        DRAWS_LABELS=labels is None,
    )


def perturb(out: Tensor, drawn: Tensor | None, given: Perturbation) -> None:
    """Write x + sigma z, and the labels if they are drawn.

    Args:
        out: shape and dtype of x, any strides.
        drawn: int64 ``(B,)``, contiguous; None if the labels are given.
        given: the samples.
    """
    x = given.x
    if not x.numel() and drawn is not None:
        # Samples without elements have labels all the same.
        x = x.new_zeros(x.shape[0], 1)
        out, given = torch.empty_like(x), given._replace(x=x, noise=None)
    if x.numel():
        call = prepare(out, drawn, given)
        with on_device(x):
            launch(perturb_kernel, call.grid, call.arguments, num_warps=call.launch.num_warps, enable_fp_fusion=False)
