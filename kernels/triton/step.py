"""The update of a stochastic sampler, with its noise drawn inside.

    out = fl(fl(fl(c*x) + fl(a*score)) + fl(b*z))        z ~ N(0, 1)

in fp32 (fp64 for an fp64 state, z being the fp32 normal widened), then rounded once to the state's dtype, then
replaced by ``known`` where ``mask`` is True. Every operation is rounded on its own, so the bits are those of
``fastlangevin.reference``; nothing here may be contracted, reassociated or approximated.

Bytes per element: x, score and out once each, 12 for fp32, 6 for 16-bit, 24 for fp64; per-element coefficients,
``noise``, ``mask`` (1) and ``known`` come on top. Without ``noise`` the normals cost no memory traffic.
"""

from __future__ import annotations

import struct
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..address import Address
from . import plain
from .direct_launch import Shortcut, launch
from .layout import CHANGING, Call, address, call_for, elements_of, locate, on_device, random_arguments, tile
from .levels import rows_of
from .noise import draw_groups, take
from .philox import load_as, round_to
from .ptx import multiply
from .watch import draw_number, overflows

# Of the 53.2 machine instructions of an fp32 element on sm_90, 5 are the update's own, 10.5 the random words, 30 the
# normals made of them and the rest addresses, masks and accesses. At 4.3 TB/s and 0.77 of its issue rate an H200 hides
# 6 instructions for every byte an element moves: 72 for fp32, 144 for fp64, and 36 for 16-bit states, which are bound
# by arithmetic. Measured negatives for fp32: loads without a mask, of elements that exist in place of those that do
# not, half an instruction more; 32 elements a thread, 1.5 less but 108 registers.

FLOAT = tl.constexpr(0)
SCALAR = tl.constexpr(1)
SAMPLE = tl.constexpr(2)
ELEMENT = tl.constexpr(3)


@triton.jit
def _coefficient(value, KIND: tl.constexpr, ptrs, valid, first_row, row_lane, row_valid, dtype: tl.constexpr):
    if KIND == FLOAT:
        if dtype == tl.float64:
            return value.to(tl.int64).to(tl.float64, bitcast=True)
        else:
            return value
    elif KIND == SCALAR:
        return tl.load(value)
    elif KIND == SAMPLE:
        return tl.load(value + first_row + row_lane, mask=row_valid)[:, None]
    else:
        return tl.load(ptrs, mask=valid)


@triton.jit(
    do_not_specialize=CHANGING,
    do_not_specialize_on_alignment=("c", "a", "b", "fault_ptr", "layout_ptr", *CHANGING),
)
def step_kernel(
    out_ptr,
    x_ptr,
    score_ptr,
    noise_ptr,
    mask_ptr,
    known_ptr,
    fault_ptr,
    c,
    a,
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
    C_KIND: tl.constexpr,
    A_KIND: tl.constexpr,
    B_KIND: tl.constexpr,
    FREEZE: tl.constexpr,
    NDIM: tl.constexpr,
    IS_LONG: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    TILE: tl.constexpr,
):
    dtype: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    # A thread's access is 16 bytes at most, so a group of four fp64 elements is taken in two halves.
    PARTS: tl.constexpr = 2 if dtype == tl.float64 else 1
    LANES: tl.constexpr = WIDTH // PARTS

    first_row, first_group, row_lane, group_lane, row_valid, group_valid = tile(rows, count, GROUPS, TILE)
    if b is not None and noise_ptr is None:
        row, row_known = rows_of(first_row, row_lane, row_valid, rows, GROUPS, TILE)
        words = address(row, row_known, seed, seed_high, draw, ids_ptr, sample_offset, purpose)
        drawn = draw_groups(words, first_group, group_lane, WIDTH)

    if fault_ptr is not None:
        number = draw_number(draw)
        fault_ptrs = fault_ptr + first_row + row_lane
        if FREEZE:
            frozen = (tl.load(fault_ptrs, mask=row_valid, other=number) < number)[:, None]

    for part in tl.static_range(PARTS):
        lane = tl.arange(0, LANES)[None, :] + part * LANES
        base, e, valid = elements_of(
            first_row, first_group, row_lane, group_lane, group_valid, count, elements, lane, NDIM, IS_LONG, WIDTH
        )
        x = load_as(locate(x_ptr, layout_ptr, 1, base, row_lane, e, NDIM), valid, dtype)
        score = load_as(locate(score_ptr, layout_ptr, 2, base, row_lane, e, NDIM), valid, dtype)
        c_ptrs = locate(c, layout_ptr, 6, base, row_lane, e, NDIM) if C_KIND == ELEMENT else None
        a_ptrs = locate(a, layout_ptr, 7, base, row_lane, e, NDIM) if A_KIND == ELEMENT else None
        moved = multiply(x, _coefficient(c, C_KIND, c_ptrs, valid, first_row, row_lane, row_valid, dtype))
        moved += multiply(score, _coefficient(a, A_KIND, a_ptrs, valid, first_row, row_lane, row_valid, dtype))
        if b is not None:
            if noise_ptr is not None:
                z = load_as(locate(noise_ptr, layout_ptr, 3, base, row_lane, e, NDIM), valid, dtype)
            else:
                z = take(drawn, part, WIDTH, PARTS).to(dtype)
            b_ptrs = locate(b, layout_ptr, 8, base, row_lane, e, NDIM) if B_KIND == ELEMENT else None
            moved += multiply(z, _coefficient(b, B_KIND, b_ptrs, valid, first_row, row_lane, row_valid, dtype))
        if mask_ptr is not None:
            fixed = tl.load(locate(mask_ptr, layout_ptr, 4, base, row_lane, e, NDIM), mask=valid)
            known = load_as(locate(known_ptr, layout_ptr, 5, base, row_lane, e, NDIM), valid, dtype)
            moved = tl.where(fixed, known, moved)
        if FREEZE:
            moved = tl.where(frozen, x, moved)
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
        tl.atomic_min(fault_ptrs, number, mask=faulty & group_valid, sem="relaxed")


def _coefficient_argument(value: float | Tensor | None, dtype: torch.dtype) -> tuple[Any, int]:
    """A coefficient as the kernel takes it, and its kind."""
    if not isinstance(value, Tensor):
        if value is None or dtype == torch.float32:
            return None if value is None else float(value), FLOAT.value
        # Triton narrows a float argument to fp32; the bits of an fp64 one travel as an integer.
        return struct.unpack("<q", struct.pack("<d", value))[0], FLOAT.value
    varying = [dim for dim, size in enumerate(value.shape) if size > 1 and value.stride(dim)]
    if not varying:
        return value, SCALAR.value
    if varying == [0]:
        return value.as_strided((value.shape[0],), (value.stride(0),)).contiguous(), SAMPLE.value
    return value, ELEMENT.value


def prepare(
    out: Tensor,
    x: Tensor,
    score: Tensor,
    *,
    c: float | Tensor,
    a: float | Tensor,
    b: float | Tensor | None,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
    noise: Tensor | None,
    mask: Tensor | None,
    known: Tensor | None,
    fault: Tensor | None = None,
    freeze: bool = False,
) -> Call:
    """The launch that :func:`step` makes, of the same arguments. ``x`` must not be empty."""
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    arguments: dict[str, Any] = {
        "out_ptr": out,
        "x_ptr": x,
        "score_ptr": score,
        "noise_ptr": noise if b is not None else None,
    }
    arguments.update(mask_ptr=mask, known_ptr=known)
    operands = list(arguments.values())
    arguments.update(fault_ptr=fault, FREEZE=freeze)
    for name, coefficient in (("c", c), ("a", a), ("b", b)):
        value, kind = _coefficient_argument(coefficient, compute)
        arguments[name] = value
        arguments[f"{name.upper()}_KIND"] = kind
        operands.append(value if kind == ELEMENT.value else None)
    call = call_for(x, operands, random_arguments(Address(seed, draw, sample_ids, sample_offset, purpose)), **arguments)
    if x.dtype == torch.float64:
        # 8 elements a thread: of 16 the loads, which the compiler puts first, take 72 registers on sm_80. The 5
        # instructions an element that it costs stay hidden behind 24 bytes.
        call = call._replace(launch=call.launch._replace(num_warps=4))
    return call


shortcut = Shortcut(step_kernel, plain.CHANGING)


def step(out: Tensor, x: Tensor, score: Tensor, **arguments: Any) -> None:
    """Write the update of ``x`` to ``out``. The caller has validated everything.

    Args:
        out: result; may be ``x`` itself. All tensors have one shape ``(B, ...)`` and any strides.
        x: state.
        score: score at ``x``, any float dtype.
        c, a, b: floats, or tensors of the computing dtype expanded to the shape. ``b=None`` draws nothing.
        seed: 64 bits as an int, or an int64 tensor ``()`` or ``(B,)`` with the bits.
        draw: 32 bits as an int, or an int64 tensor ``()``; a tensor is read by the kernel, at every graph replay.
        sample_ids: int64 ``(B,)``, or None for ``sample_offset + row``.
        sample_offset: id of the first sample.
        purpose: 0 to 255.
        noise: used in place of the drawn normals.
        mask: bool; where True the result is ``known``.
        known: values for ``mask``.
        fault: int64 ``(B,)``, contiguous: lowered to ``draw`` where a sample's result is not finite.
        freeze: samples whose fault is below ``draw`` are left as they are.
    """
    if not x.numel():
        return
    with on_device(x):
        known = plain.update(shortcut, out, x, score, **arguments)
        if known is not None and shortcut.launch(*known):
            return
        call = prepare(out, x, score, **arguments)
        made = launch(step_kernel, call.grid, call.arguments, num_warps=call.launch.num_warps, enable_fp_fusion=False)
        if known is not None and made is not None:
            shortcut.keep(known[0], made, call.grid, call.arguments)
