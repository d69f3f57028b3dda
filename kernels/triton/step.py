"""One move of a sampler, with its noise drawn inside.

    out = a_0 s_0 + a_1 s_1 + ... + b z        z ~ N(0, 1), or a weighted sum of such draws

in fp32 (fp64 for an fp64 state s_0): z first, as ``draws.py`` sums it, then the terms in their order, then b z. The
result is rounded once to the state's dtype, then replaced by ``known`` where ``mask`` is True. Every operation is
rounded on its own, so the bits are those of ``fastlangevin.reference``; nothing here may be contracted, reassociated or
approximated.

Bytes per element: each slot and out once, 12 for two fp32 terms, 6 for 16-bit, 24 for fp64; per-element factors,
``noise``, ``mask`` (1) and ``known`` come on top. Without ``noise`` the normals cost no memory traffic.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..address import Update
from . import plain
from .direct_launch import Shortcut, launch
from .draws import OFFSETS, WEIGHTS, draw_arguments, sum_draws
from .layout import CHANGING, Call, Launch, address, call_for, elements_of, locate, on_device, tile
from .levels import rows_of
from .noise import take
from .philox import load_as, round_to
from .ptx import IS_PTX, multiply
from .terms import ELEMENT, FACTORS, FLOAT, SLOTS, coefficient, coefficient_argument
from .watch import overflows, step_number

# Of the 53.2 machine instructions of an fp32 element on sm_90, 5 are the update's own, 10.5 the random words, 30 the
# normals made of them and the rest addresses, masks and accesses. At 4.3 TB/s and 0.77 of its issue rate an H200 hides
# 6 instructions for every byte an element moves: 72 for fp32, 144 for fp64, and 36 for 16-bit states, which are bound
# by arithmetic. Measured negatives for fp32: loads without a mask, of elements that exist in place of those that do
# not, half an instruction more; 32 elements a thread, 1.5 less but 108 registers.

# Places of the operands in the table of the layout; a term has two, its slot's and its coefficient's.
OUT = tl.constexpr(0)
NOISE = tl.constexpr(1)
MASK = tl.constexpr(2)
KNOWN = tl.constexpr(3)
B = tl.constexpr(4)
TERM = tl.constexpr(5)

# None of these compiles a kernel anew, whatever its value or alignment.
ANY = (*FACTORS, "b", *WEIGHTS, *OFFSETS, "draw_count", "number", *CHANGING)


@triton.jit(
    do_not_specialize=ANY,
    do_not_specialize_on_alignment=("fault_ptr", "number_ptr", "weights_ptr", "numbers_ptr", "layout_ptr", *ANY),
)
def step_kernel(
    out_ptr,
    slot_0,
    slot_1,
    slot_2,
    slot_3,
    slot_4,
    slot_5,
    noise_ptr,
    mask_ptr,
    known_ptr,
    fault_ptr,
    number_ptr,
    a_0,
    a_1,
    a_2,
    a_3,
    a_4,
    a_5,
    b,
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
    number: tl.int64,
    weight_0,
    weight_1,
    weight_2,
    weight_3,
    offset_0,
    offset_1,
    offset_2,
    offset_3,
    weights_ptr,
    numbers_ptr,
    draw_count,
    TERMS: tl.constexpr,
    A_KINDS: tl.constexpr,
    B_KIND: tl.constexpr,
    DRAWS: tl.constexpr,
    FREEZE: tl.constexpr,
    NDIM: tl.constexpr,
    IS_LONG: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    TILE: tl.constexpr,
):
    dtype: tl.constexpr = tl.float64 if slot_0.dtype.element_ty == tl.float64 else tl.float32
    # A thread's access is 16 bytes at most, so a group of four fp64 elements is taken in two halves.
    PARTS: tl.constexpr = 2 if dtype == tl.float64 else 1
    LANES: tl.constexpr = WIDTH // PARTS
    slots = slot_0, slot_1, slot_2, slot_3, slot_4, slot_5
    factors = a_0, a_1, a_2, a_3, a_4, a_5

    first_row, first_group, row_lane, group_lane, row_valid, group_valid = tile(rows, count, GROUPS, TILE)
    if b is not None and noise_ptr is None:
        row, row_known = rows_of(first_row, row_lane, row_valid, rows, GROUPS, TILE)
        words = address(row, row_known, seed, seed_high, draw, ids_ptr, sample_offset, purpose)
        weights = weight_0, weight_1, weight_2, weight_3
        offsets = offset_0, offset_1, offset_2, offset_3
        table = weights_ptr, numbers_ptr, draw_count
        drawn = sum_draws(words, first_group, group_lane, weights, offsets, table, DRAWS, WIDTH, dtype)

    if fault_ptr is not None:
        step = step_number(number, number_ptr)
        fault_ptrs = fault_ptr + first_row + row_lane
        if FREEZE:
            frozen = (tl.load(fault_ptrs, mask=row_valid, other=step) < step)[:, None]

    for part in tl.static_range(PARTS):
        lane = tl.arange(0, LANES)[None, :] + part * LANES
        base, e, valid = elements_of(
            first_row, first_group, row_lane, group_lane, group_valid, count, elements, lane, NDIM, IS_LONG, WIDTH
        )
        # All loads before the arithmetic, which they overlap.
        state = load_as(locate(slot_0, layout_ptr, TERM, base, row_lane, e, NDIM), valid, dtype)
        values = (state,)
        for i in tl.static_range(1, TERMS):
            values += (load_as(locate(slots[i], layout_ptr, TERM + 2 * i, base, row_lane, e, NDIM), valid, dtype),)
        for i in tl.static_range(TERMS):
            a = coefficient(
                factors[i],
                (A_KINDS >> (2 * i)) & 3,
                layout_ptr,
                TERM + 2 * i + 1,
                first_row,
                row_lane,
                row_valid,
                base,
                e,
                valid,
                NDIM,
                dtype,
            )
            product = multiply(values[i], a)
            if i == 0:
                moved = product
            else:
                moved += product
        if b is not None:
            if noise_ptr is not None:
                z = load_as(locate(noise_ptr, layout_ptr, NOISE, base, row_lane, e, NDIM), valid, dtype)
            else:
                z = take(drawn, part, WIDTH, PARTS).to(dtype)
            factor = coefficient(b, B_KIND, layout_ptr, B, first_row, row_lane, row_valid, base, e, valid, NDIM, dtype)
            moved += multiply(z, factor)
        if mask_ptr is not None:
            fixed = tl.load(locate(mask_ptr, layout_ptr, MASK, base, row_lane, e, NDIM), mask=valid)
            known = load_as(locate(known_ptr, layout_ptr, KNOWN, base, row_lane, e, NDIM), valid, dtype)
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
        out_ptrs = locate(out_ptr, layout_ptr, OUT, base, row_lane, e, NDIM)
        tl.store(out_ptrs, round_to(moved, out_ptr.dtype.element_ty), mask=valid)
    if fault_ptr is not None:
        tl.atomic_min(fault_ptrs, step, mask=faulty & group_valid, sem="relaxed")


def fewest_warps(compute: torch.dtype, operands: int, dimensions: int, draws: int) -> int:
    """Returns how many warps a program needs for its registers; a program of 2 warps has 16 elements a thread.

    Args:
        compute: the computing dtype.
        operands: how many there are: the result, the slots, the factors of each element, and the rest.
        dimensions: the kernel's NDIM: 0 if one index serves all operands, else each has an address for each element.
        draws: the kernel's DRAWS.
    """
    # In fp64 the loads of 16 elements, which the compiler puts first, take 72 registers; the 5 instructions an element
    # that 8 cost stay hidden behind 24 bytes.
    if compute == torch.float64:
        return 4
    if dimensions == 0:
        return 2
    # Addresses take registers, the more the deeper the layout is. On sm_80 six terms in two dimensions take 216 of 2
    # warps and 126 of 4, for 5 instructions an element; with all that an update may have, 156 of 4 and 74 of 8. In more
    # dimensions two terms take 254 of 2 warps, six take 168 to 255 of 4, and up to 88 bytes of them were spilled.
    warps = 8 if operands > 9 else 4 if operands > 3 or draws != 1 else 2
    return min(2 * warps, 8) if dimensions > 2 else warps


def options(launch: Launch) -> dict[str, Any]:
    """Options of the compiler for a launch."""
    # Left to itself ptxas stops at 64 or 80 registers of 8 warps, and spills 8 bytes of a few deep layouts.
    most = {"maxnreg": 255} if launch.num_warps == 8 and IS_PTX.value else {}
    return {"num_warps": launch.num_warps, "enable_fp_fusion": False, **most}


def prepare(out: Tensor, update: Update) -> Call:
    """The launch that :func:`step` makes, of the same arguments. The state must not be empty."""
    state, number, watched = update.state, update.number, update.fault is not None
    compute = torch.float64 if state.dtype == torch.float64 else torch.float32
    noise = update.noise if update.b is not None else None
    known = update.known if update.mask is not None else None
    arguments: dict[str, Any] = {"out_ptr": out, **dict.fromkeys((*SLOTS, *FACTORS, "b"))}
    arguments.update(noise_ptr=noise, mask_ptr=update.mask, known_ptr=known, fault_ptr=update.fault)
    arguments["number_ptr"] = number if watched and isinstance(number, Tensor) else None
    arguments["number"] = 0 if not watched or isinstance(number, Tensor) else number
    operands = [out, noise, update.mask, known, None]
    b_kind, kinds = FLOAT.value, 0
    if update.b is not None:
        arguments["b"], b_kind = coefficient_argument(update.b, compute)
        operands[B.value] = arguments["b"] if b_kind == ELEMENT.value else None
    for place, (a, slot) in enumerate(update.terms):
        factor, kind = coefficient_argument(a, compute)
        arguments[SLOTS[place]], arguments[FACTORS[place]] = slot, factor
        kinds |= kind << 2 * place
        operands += [slot, factor if kind == ELEMENT.value else None]
    arguments.update(TERMS=len(update.terms), A_KINDS=kinds, B_KIND=b_kind, FREEZE=update.freeze and watched)
    call = call_for(state, operands, draw_arguments(update, compute), **arguments)
    present = sum(each is not None for each in operands)
    warps = fewest_warps(compute, present, call.arguments["NDIM"], call.arguments["DRAWS"])
    return call._replace(launch=call.launch._replace(num_warps=warps))


shortcut = Shortcut(step_kernel)


def step(out: Tensor, update: Update) -> Tensor:
    """Writes the result of an update to ``out``, which is returned. The caller has validated everything.

    Args:
        out: shape and dtype of the state, any strides; may be any of the slots.
        update: its factors are numbers, or tensors of the computing dtype expanded to the shape. A draw or a number in
            memory is read by the kernel, at every graph replay.
    """
    if not out.numel():
        return out
    with on_device(out):
        known = plain.update(shortcut, out, update)
        if known is not None and shortcut.launch(*known):
            return out
        call = prepare(out, update)
        made = launch(step_kernel, call.grid, call.arguments, **options(call.launch))
        if known is not None and made is not None:
            key, *_ = known
            shortcut.keep(key, made, call, plain.changing(update))
    return out
