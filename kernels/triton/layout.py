"""Maps programs to elements, to their places in memory and to their random words.

A sample of D elements is cut into groups of ``width`` neighbours: one Philox block of 4, or two. A program has a tile
of rows (samples) by groups, flattened; the division that decodes it is by a constant. Three grid axes make the rest
division-free: groups on the first, rows on the second, and on the third what the second's limit of 65535 leaves over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..address import Address


class Launch(NamedTuple):
    """One line of the launch table: elements of a group, groups of a program, warps of a program."""

    width: int
    groups: int
    num_warps: int


class Call(NamedTuple):
    """A launch ready to be made: ``launch(kernel, grid, arguments, num_warps=..., enable_fp_fusion=False)``."""

    grid: tuple[int, int, int]
    arguments: dict[str, Any]
    launch: Launch


# 16 elements a thread: 53.2 instructions an element for the fp32 update on sm_90, 57 at 8 and 51.5 at 32, which takes
# 108 registers to 60. Two warps keep a program at 1024 elements, so that small tensors still fill the device.
WIDE = Launch(width=8, groups=128, num_warps=2)
NARROW = Launch(width=4, groups=256, num_warps=2)


@triton.jit
def tile(rows, count, GROUPS: tl.constexpr, TILE: tl.constexpr):
    """Locates the program among ``rows`` rows of ``count`` groups; TILE of its GROUPS groups are neighbours in a row.

    Returns:
        The first row and group (int64 scalars), each lane's distance from them (int32), and which lanes have a row and
        which a group.
    """
    index = tl.arange(0, GROUPS).to(tl.uint32)
    row_lane = (index // TILE).to(tl.int32)
    group_lane = (index % TILE).to(tl.int32)
    first_row = (tl.program_id(1) + tl.program_id(2).to(tl.int64) * tl.num_programs(1)) * (GROUPS // TILE)
    first_group = tl.program_id(0).to(tl.int64) * TILE
    row_valid = first_row + row_lane < rows
    if GROUPS % TILE:
        # The lanes left over have the next program's first row, which in place must not be updated by both.
        row_valid &= row_lane < GROUPS // TILE
    group_valid = row_valid & (group_lane < tl.minimum(count - first_group, TILE).to(tl.int32))
    return first_row, first_group, row_lane, group_lane, row_valid, group_valid


@triton.jit
def elements_of(
    first_row,
    first_group,
    row_lane,
    group_lane,
    group_valid,
    count,
    elements,
    lane,
    NDIM: tl.constexpr,
    IS_LONG: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Places of the elements ``lane`` (1, L) of the program's groups for :func:`locate`, and which of them exist."""
    if NDIM == 0:
        base = (first_row * count + first_group) * WIDTH
        element = (row_lane.to(tl.int64) * count + group_lane)[:, None] * WIDTH + lane
        # One predicate for a group: with a comparison of its elements the accesses would not be vectors.
        return base, element, group_valid[:, None]
    else:
        element = (first_group + group_lane)[:, None] * WIDTH + lane
        valid = group_valid[:, None] & (element < elements)
        if not IS_LONG:
            element = element.to(tl.uint32)
        return first_row, element, valid


@triton.jit
def locate(ptr, layout_ptr, operand: tl.constexpr, base, row_lane, element, NDIM: tl.constexpr):
    """Pointers to elements of an operand, by the table that :func:`table` makes unless NDIM is 0."""
    if NDIM == 0:
        return ptr + base + element
    else:
        strides_ptr = layout_ptr + (operand + 1) * (NDIM + 1)
        ptr += (base + row_lane[:, None]) * tl.load(strides_ptr)
        for dim in tl.static_range(NDIM, 1, -1):
            size = tl.load(layout_ptr + dim).to(element.dtype)
            ptr += (element % size).to(tl.int64) * tl.load(strides_ptr + dim)
            element = element // size
        return ptr + element.to(tl.int64) * tl.load(strides_ptr + 1)


@triton.jit
def address(row, row_valid, seed, seed_high, draw, ids_ptr, sample_offset, purpose):
    """Words c1, c2, c3, k0, k1 of the rows: all of the random address but the block."""
    if seed.dtype.is_ptr():
        # seed_high is the stride: 0 for one seed, 1 for a seed per row.
        key = tl.load(seed + row * seed_high, mask=row_valid, other=0)
        k0 = key.to(tl.uint32)
        k1 = (key >> 32).to(tl.uint32)
    else:
        k0 = seed.to(tl.uint32)
        k1 = seed_high.to(tl.uint32)
    if draw.dtype.is_ptr():
        c2 = tl.load(draw).to(tl.uint32)
    else:
        c2 = draw.to(tl.uint32)
    if ids_ptr is None:
        sample = row + sample_offset
    else:
        sample = tl.load(ids_ptr + row, mask=row_valid, other=0)
    c3 = ((sample >> 32) & 0x00FFFFFF).to(tl.uint32) | (purpose.to(tl.uint32) << 24)
    return sample.to(tl.uint32), c2, c3, k0, k1


def signed_words(word: int) -> tuple[int, int]:
    """Low and high half of a 64-bit word as int32 values: as arguments they never change type."""
    low, high = word & 0xFFFFFFFF, word >> 32 & 0xFFFFFFFF
    return low - (low >> 31 << 32), high - (high >> 31 << 32)


def random_arguments(at: Address) -> dict[str, Any]:
    """The kernel arguments that :func:`address` reads."""
    seed, draw, sample_ids, sample_offset, purpose = at
    if isinstance(seed, Tensor):
        low: int | Tensor = seed.contiguous()
        high = seed.ndim
    else:
        low, high = signed_words(seed)
    return {
        "seed": low,
        "seed_high": high,
        "draw": draw if isinstance(draw, Tensor) else signed_words(draw)[0],
        "ids_ptr": None if sample_ids is None else sample_ids.contiguous(),
        "sample_offset": sample_offset,
        "purpose": purpose,
    }


# What may change from call to call and must never compile a kernel anew.
CHANGING = ("rows", "count", "elements", "seed", "seed_high", "draw", "ids_ptr", "sample_offset", "purpose")


def launch_for(element_size: int, elements: int, contiguous: bool) -> Launch:
    """The launch table. 16-bit states take 8 elements in one 16-byte access where rows stay aligned to it."""
    return WIDE if contiguous and element_size == 2 and elements % 8 == 0 else NARROW


def tile_groups(count: int, groups: int) -> int:
    """Returns how many neighbouring groups of a row make a tile, for rows of ``count`` groups.

    Short rows are laid end to end (one compilation for each length up to 32). Longer ones take the largest power of
    two that idles at most 1/32 of the lanes, down to runs of 8 groups, which still fill 128-byte lines.
    """
    if count <= 32:
        return count
    sizes = [1 << bits for bits in range(groups.bit_length() - 1, 2, -1)]
    return next((size for size in sizes if -count % size * 32 <= count), min(sizes, key=lambda size: -count % size))


@lru_cache(maxsize=4096)
def coalesce(shape: tuple[int, ...], strides: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """The inner dimensions, merged where every operand allows it.

    Returns:
        The sizes, then the strides of each operand. The first entry of each is the batch's; dimensions of size 1 are
        dropped, and at least one inner dimension is left.
    """
    merged: list[tuple[int, ...]] = []
    for dim, size in enumerate(shape):
        column = (size, *(each[dim] for each in strides))
        if dim == 0 or size == 1:
            continue
        if merged and all(outer == inner * size for outer, inner in zip(merged[-1][1:], column[1:], strict=True)):
            merged[-1] = (merged[-1][0] * size, *column[1:])
        else:
            merged.append(column)
    batch = (shape[0], *(each[0] for each in strides))
    return tuple(zip(batch, *(merged or [(1,) + (0,) * len(strides)]), strict=True))


@cache
def table(device: torch.device, rows: tuple[tuple[int, ...], ...]) -> Tensor:
    """Sizes and strides on the device. Kept for good: a captured graph holds the address of its table."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "this memory layout was not seen before the CUDA graph capture began, and its strides cannot be copied to "
            "the device inside one: run the same call once before capturing"
        )
    return torch.tensor(rows, dtype=torch.int64, device=device)


def layout_of(operands: Sequence[Tensor | None], shape: torch.Size) -> Tensor | None:
    """The table of sizes and strides for :func:`locate`, or None where a linear index serves every operand.

    That is where all are contiguous and a sample is a whole number of Philox blocks.
    """
    present = [each for each in operands if each is not None]
    if (present[0].numel() // shape[0]) % 4 == 0 and all(each.is_contiguous() for each in present):
        return None
    none = (0,) * len(shape)
    strides = tuple(none if each is None else each.stride() for each in operands)
    return table(present[0].device, coalesce(tuple(shape), strides))


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensor's."""
    if tensor.is_cuda and tensor.get_device() != torch.cuda.current_device():
        return torch.cuda.device(tensor.device)
    return nullcontext()


@lru_cache(maxsize=4096)
def geometry(
    shape: torch.Size, element_size: int, columns: int, segment: int
) -> tuple[tuple[int, int, int], Launch, dict[str, Any]]:
    """Grid, launch and the arguments that a state's shape decides; ``columns`` of its layout's table, 0 without one."""
    rows = shape[0]
    elements = math.prod(shape[1:])
    launch = NARROW if segment else launch_for(element_size, elements, not columns)
    count = triton.cdiv(elements, launch.width)
    size = segment // launch.width or tile_groups(count, launch.groups)
    deep = triton.cdiv(chunks := triton.cdiv(rows, launch.groups // size), 65535)
    sizes = {"rows": rows, "count": count, "elements": elements, "IS_LONG": elements >= 2**31}
    constants = {"NDIM": max(columns - 1, 0), "WIDTH": launch.width, "GROUPS": launch.groups, "TILE": size}
    return (triton.cdiv(count, size), triton.cdiv(chunks, deep), deep), launch, sizes | constants


def call_for(
    state: Tensor, operands: Sequence[Tensor | None], random: dict[str, Any], segment: int = 0, **arguments: Any
) -> Call:
    """The launch over ``state``, an operand and not empty. ``segment``: elements of a row in a tile, 4 to 1024."""
    layout = layout_of(operands, state.shape)
    columns = 0 if layout is None else layout.shape[1]
    grid, launch, sizes = geometry(state.shape, state.element_size(), columns, segment)
    return Call(grid, {**arguments, **random, "layout_ptr": layout, **sizes}, launch)
