"""One move of a sampler, with its noise drawn inside.

    out = a_0 s_0 + a_1 s_1 + ... + b z        z = w_0 z_0 + w_1 z_1 + ...,  z_j ~ N(0, 1)

in fp32 (fp64 for an fp64 state, the z_j being fp32 normals widened): z first, left to right, then the terms in their
order, then b z. One draw of weight 1 is not multiplied. The result is rounded once to the state's dtype, then replaced
by ``known`` where ``mask`` is True. Every operation is rounded on its own, so the bits are those of
``fastlangevin.reference``; nothing here may be contracted, reassociated or approximated.

Bytes per element: each slot and out once, 12 for two fp32 terms, 6 for 16-bit, 24 for fp64; per-element factors,
``noise``, ``mask`` (1) and ``known`` come on top. Without ``noise`` the normals cost no memory traffic.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..address import MAX_DRAWS, MAX_TERMS, Update
from . import plain
from .direct_launch import Shortcut, launch
from .factors import ELEMENT, draw_arguments, factor, factor_argument
from .layout import (
    CHANGING,
    Call,
    address,
    call_for,
    elements_of,
    locate,
    on_device,
    random_arguments,
    signed_words,
    tile,
)
from .levels import rows_of
from .noise import draw_groups, draw_sum, take
from .philox import load_as, round_to
from .ptx import multiply
from .watch import draw_number, overflows

# Of the 53.2 machine instructions of an fp32 element on sm_90, 5 are the update's own, 10.5 the random words, 30 the
# normals made of them and the rest addresses, masks and accesses. At 4.3 TB/s and 0.77 of its issue rate an H200 hides
# 6 instructions for every byte an element moves: 72 for fp32, 144 for fp64, and 36 for 16-bit states, which are bound
# by arithmetic. Measured negatives for fp32: loads without a mask, of elements that exist in place of those that do
# not, half an instruction more; 32 elements a thread, 1.5 less but 108 registers.

# What changes from step to step, and never compiles anew: kinds of arguments alone do.
NUMBERS = (*(f"a{k}" for k in range(MAX_TERMS)), "b", *(f"w{k}" for k in range(MAX_DRAWS)))
WORDS = (*(f"o{k}" for k in range(MAX_DRAWS)), "draws", "number", *CHANGING)


@triton.jit
def _product(
    slot,
    a,
    KIND: tl.constexpr,
    TERM: tl.constexpr,
    layout_ptr,
    base,
    e,
    valid,
    first_row,
    row_lane,
    row_valid,
    NDIM: tl.constexpr,
    dtype: tl.constexpr,
):
    """A term of the sum; the noise is term 6, whose factor is b."""
    ptrs = locate(a, layout_ptr, 10 + TERM, base, row_lane, e, NDIM) if KIND == ELEMENT else None
    return multiply(slot, factor(a, KIND, ptrs, valid, first_row, row_lane, row_valid, dtype))


@triton.jit(
    do_not_specialize=("draws", "number", "o0", "o1", "o2", "o3", *CHANGING),
    do_not_specialize_on_alignment=(*NUMBERS, "fault_ptr", "weights_ptr", "numbers_ptr", "layout_ptr", *WORDS),
)
def step_kernel(
    out_ptr,
    s0_ptr,
    s1_ptr,
    s2_ptr,
    s3_ptr,
    s4_ptr,
    s5_ptr,
    noise_ptr,
    mask_ptr,
    known_ptr,
    fault_ptr,
    a0,
    a1,
    a2,
    a3,
    a4,
    a5,
    b,
    w0,
    w1,
    w2,
    w3,
    o0,
    o1,
    o2,
    o3,
    weights_ptr,
    numbers_ptr,
    draws,
    number,
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
    A0_KIND: tl.constexpr,
    A1_KIND: tl.constexpr,
    A2_KIND: tl.constexpr,
    A3_KIND: tl.constexpr,
    A4_KIND: tl.constexpr,
    A5_KIND: tl.constexpr,
    B_KIND: tl.constexpr,
    DRAWS: tl.constexpr,
    FREEZE: tl.constexpr,
    NDIM: tl.constexpr,
    IS_LONG: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    TILE: tl.constexpr,
):
    dtype: tl.constexpr = tl.float64 if s0_ptr.dtype.element_ty == tl.float64 else tl.float32
    # A thread's access is 16 bytes at most, so a group of four fp64 elements is taken in two halves.
    PARTS: tl.constexpr = 2 if dtype == tl.float64 else 1
    LANES: tl.constexpr = WIDTH // PARTS

    first_row, first_group, row_lane, group_lane, row_valid, group_valid = tile(rows, count, GROUPS, TILE)
    if b is not None and noise_ptr is None:
        row, row_known = rows_of(first_row, row_lane, row_valid, rows, GROUPS, TILE)
        words = address(row, row_known, seed, seed_high, draw, ids_ptr, sample_offset, purpose)
        if DRAWS < 0:
            drawn = draw_groups(words, first_group, group_lane, WIDTH)
        else:
            weights, offsets = (w0, w1, w2, w3), (o0, o1, o2, o3)
            drawn = draw_sum(
                words, weights, offsets, weights_ptr, numbers_ptr, draws, first_group, group_lane, WIDTH, DRAWS, dtype
            )

    if fault_ptr is not None:
        at = draw_number(number)
        fault_ptrs = fault_ptr + first_row + row_lane
        if FREEZE:
            frozen = (tl.load(fault_ptrs, mask=row_valid, other=at) < at)[:, None]

    for part in tl.static_range(PARTS):
        lane = tl.arange(0, LANES)[None, :] + part * LANES
        base, e, valid = elements_of(
            first_row, first_group, row_lane, group_lane, group_valid, count, elements, lane, NDIM, IS_LONG, WIDTH
        )
        where = (layout_ptr, base, e, valid, first_row, row_lane, row_valid)
        # All loads before the arithmetic, which they overlap.
        state = load_as(locate(s0_ptr, layout_ptr, 1, base, row_lane, e, NDIM), valid, dtype)
        if s1_ptr is not None:
            s1 = load_as(locate(s1_ptr, layout_ptr, 2, base, row_lane, e, NDIM), valid, dtype)
        if s2_ptr is not None:
            s2 = load_as(locate(s2_ptr, layout_ptr, 3, base, row_lane, e, NDIM), valid, dtype)
        if s3_ptr is not None:
            s3 = load_as(locate(s3_ptr, layout_ptr, 4, base, row_lane, e, NDIM), valid, dtype)
        if s4_ptr is not None:
            s4 = load_as(locate(s4_ptr, layout_ptr, 5, base, row_lane, e, NDIM), valid, dtype)
        if s5_ptr is not None:
            s5 = load_as(locate(s5_ptr, layout_ptr, 6, base, row_lane, e, NDIM), valid, dtype)
        moved = _product(state, a0, A0_KIND, 0, *where, NDIM, dtype)
        if s1_ptr is not None:
            moved += _product(s1, a1, A1_KIND, 1, *where, NDIM, dtype)
        if s2_ptr is not None:
            moved += _product(s2, a2, A2_KIND, 2, *where, NDIM, dtype)
        if s3_ptr is not None:
            moved += _product(s3, a3, A3_KIND, 3, *where, NDIM, dtype)
        if s4_ptr is not None:
            moved += _product(s4, a4, A4_KIND, 4, *where, NDIM, dtype)
        if s5_ptr is not None:
            moved += _product(s5, a5, A5_KIND, 5, *where, NDIM, dtype)
        if b is not None:
            if noise_ptr is not None:
                z = load_as(locate(noise_ptr, layout_ptr, 7, base, row_lane, e, NDIM), valid, dtype)
            else:
                z = take(drawn, part, WIDTH, PARTS).to(dtype)
            moved += _product(z, b, B_KIND, 6, *where, NDIM, dtype)
        if mask_ptr is not None:
            fixed = tl.load(locate(mask_ptr, layout_ptr, 8, base, row_lane, e, NDIM), mask=valid)
            known = load_as(locate(known_ptr, layout_ptr, 9, base, row_lane, e, NDIM), valid, dtype)
            moved = tl.where(fixed, known, moved)
        if FREEZE:
            moved = tl.where(frozen, state, moved)
        if fault_ptr is not None:
            # What is not there may be anything.
            group = overflows(moved if NDIM == 0 else tl.where(valid, moved, 0), out_ptr.dtype.element_ty)
            if part == 0:
                faulty = group
            else:
                faulty |= group
        out_ptrs = locate(out_ptr, layout_ptr, 0, base, row_lane, e, NDIM)
        tl.store(out_ptrs, round_to(moved, out_ptr.dtype.element_ty), mask=valid)
    if fault_ptr is not None:
        tl.atomic_min(fault_ptrs, at, mask=faulty & group_valid, sem="relaxed")


def prepare(out: Tensor, update: Update) -> Call:
    """The launch that :func:`step` makes, of the same arguments. The state must not be empty."""
    state, noisy = update.state, update.b is not None
    compute = torch.float64 if state.dtype == torch.float64 else torch.float32
    slots: list[Tensor | None] = [slot for _, slot in update.terms]
    slots += [None] * (MAX_TERMS - len(slots))
    known = update.known if update.mask is not None else None
    arguments: dict[str, Any] = {"out_ptr": out, **{f"s{k}_ptr": slot for k, slot in enumerate(slots)}}
    arguments |= {"noise_ptr": update.noise if noisy else None, "mask_ptr": update.mask, "known_ptr": known}
    operands = list(arguments.values())
    number = update.number if isinstance(update.number, Tensor) else signed_words(update.number)[0]
    arguments |= {"fault_ptr": update.fault, "number": None if update.fault is None else number}
    arguments["FREEZE"] = update.freeze
    factors = [*(a for a, _ in update.terms), *[None] * (MAX_TERMS - len(update.terms)), update.b]
    for name, value in zip((*(f"a{k}" for k in range(MAX_TERMS)), "b"), factors, strict=True):
        argument, kind = factor_argument(value, compute)
        arguments[name], arguments[f"{name.upper()}_KIND"] = argument, kind
        operands.append(argument if kind == ELEMENT.value else None)
    arguments |= draw_arguments(update, compute)
    call = call_for(state, operands, random_arguments(update.address), **arguments)
    if state.dtype == torch.float64:
        # 8 elements a thread: of 16 the loads, which the compiler puts first, take 72 registers on sm_80. The 5
        # instructions an element that it costs stay hidden behind 24 bytes.
        call = call._replace(launch=call.launch._replace(num_warps=4))
    return call


shortcut = Shortcut(step_kernel, plain.CHANGING)


def step(out: Tensor, update: Update) -> Tensor:
    """Writes the result of an update to ``out``, which is returned. The caller has validated everything.

    Args:
        out: shape and dtype of the state, any strides; may be any of the slots.
        update: its factors are floats, or tensors of the computing dtype expanded to the shape. A draw or a number in
            memory is read by the kernel, at every graph replay.
    """
    if not out.numel():
        return out
    with on_device(out):
        known = plain.update(shortcut, out, update)
        if known is not None and shortcut.launch(*known):
            return out
        call = prepare(out, update)
        made = launch(step_kernel, call.grid, call.arguments, num_warps=call.launch.num_warps, enable_fp_fusion=False)
        if known is not None and made is not None:
            key, *_ = known
            shortcut.keep(key, made, call.grid, call.arguments)
    return out
