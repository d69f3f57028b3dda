"""The noise of an update: the normals of one draw, or a weighted sum of those of several.

    z = w_0 z_0 + w_1 z_1 + ...

left to right, every product and every sum rounded to the computing dtype, to which each normal is widened first; the
normals of one draw of weight 1 are not multiplied. The draws are arguments, up to MAX_DRAWS, or a table in memory of
any length, which a loop goes through. Bytes per element: none; each program reads a table once, 12 bytes a draw, or 16
for fp64.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from ..address import MAX_DRAWS, DrawTable, Update
from .layout import random_arguments, signed_words
from .loops import bound
from .noise import draw_groups
from .ptx import multiply
from .terms import number, number_argument

# Arguments of the kernel.
WEIGHTS = tuple(f"weight_{place}" for place in range(MAX_DRAWS))
OFFSETS = tuple(f"offset_{place}" for place in range(MAX_DRAWS))


@triton.jit
def _shifted(words, offset):
    """The words of the address whose draw is ``offset`` further, modulo 2^32."""
    c1, c2, c3, k0, k1 = words
    # In 64 bits: the interpreter warns where a 32-bit scalar wraps.
    return c1, (c2.to(tl.int64) + offset).to(tl.uint32), c3, k0, k1


@triton.jit
def _minus_zeros(group_lane, WIDTH: tl.constexpr, dtype: tl.constexpr):
    """Minus zeros, which a sum begins with: added to a number, 0 and -0 too, they give that number."""
    # Triton makes a full tensor of -0.0 one of 0.0, so the bits are given.
    zero = tl.full(group_lane.shape, 0x80000000, tl.uint32).to(tl.float32, bitcast=True).to(dtype)
    zeros = ()
    for _ in tl.static_range(WIDTH):
        zeros += (zero,)
    return zeros


@triton.jit
def _plus(sums, drawn, weight, WIDTH: tl.constexpr, dtype: tl.constexpr):
    added = ()
    for j in tl.static_range(WIDTH):
        added += (sums[j] + multiply(drawn[j].to(dtype), weight),)
    return added


@triton.jit
def _of_table(words, first_group, group_lane, table, WIDTH: tl.constexpr, dtype: tl.constexpr):
    c1, _, c3, k0, k1 = words
    weights_ptr, numbers_ptr, draw_count = table
    sums = _minus_zeros(group_lane, WIDTH, dtype)
    for index in range(bound(draw_count)):
        c2 = tl.load(numbers_ptr + index).to(tl.uint32)
        drawn = draw_groups((c1, c2, c3, k0, k1), first_group, group_lane, WIDTH)
        sums = _plus(sums, drawn, tl.load(weights_ptr + index), WIDTH, dtype)
    return sums


@triton.jit
def sum_draws(
    words,
    first_group,
    group_lane,
    weights,
    offsets,
    table,
    DRAWS: tl.constexpr,
    WIDTH: tl.constexpr,
    dtype: tl.constexpr,
):
    """z of a tile's groups.

    Args:
        words: those that :func:`.layout.address` gives for the rows.
        first_group, group_lane: as of :func:`.noise.draw_groups`.
        weights, offsets: of DRAWS draws. None for a single one, which is then neither multiplied nor moved.
        table: weights, numbers and length of the table that is summed if DRAWS is 0.
        DRAWS, WIDTH: number of draws that are arguments; elements of a group.
        dtype: the computing dtype.

    Returns:
        The form of :func:`.noise.draw_groups`, in the computing dtype; in fp32 for one draw without a weight.
    """
    if DRAWS == 0:
        return _of_table(words, first_group, group_lane, table, WIDTH, dtype)
    elif weights[0] is None:
        if offsets[0] is not None:
            words = _shifted(words, offsets[0])
        return draw_groups(words, first_group, group_lane, WIDTH)
    else:
        sums = _minus_zeros(group_lane, WIDTH, dtype)
        for k in tl.static_range(DRAWS):
            drawn = draw_groups(_shifted(words, offsets[k]), first_group, group_lane, WIDTH)
            sums = _plus(sums, drawn, number(weights[k], dtype), WIDTH, dtype)
        return sums


def only_draw(update: Update) -> int | None:
    """The offset of a single draw that is not multiplied; 0 if nothing is drawn; None for any other draws."""
    draws = update.draws
    if not update.draws_noise:
        return 0
    if isinstance(draws, DrawTable) or len(draws) > 1:
        return None
    ((weight, offset),) = draws
    return offset if weight == 1 else None


def draw_arguments(update: Update, dtype: torch.dtype) -> dict[str, Any]:
    """The kernel arguments that :func:`sum_draws` and the address of its words read."""
    arguments: dict[str, Any] = dict.fromkeys((*WEIGHTS, *OFFSETS, "weights_ptr", "numbers_ptr"))
    address, draws, only = update.address, update.draws, only_draw(update)
    arguments.update(draw_count=0, DRAWS=1)
    if only == 0:
        return arguments | random_arguments(address)
    if isinstance(draws, DrawTable):
        arguments.update(weights_ptr=draws.weights, numbers_ptr=draws.numbers, draw_count=len(draws.numbers), DRAWS=0)
    elif only is not None and isinstance(address.draw, int):
        address = address._replace(draw=address.draw + only)
    else:
        arguments["DRAWS"] = len(draws)
        for place, (weight, offset) in enumerate(draws):
            arguments[WEIGHTS[place]] = None if only is not None else number_argument(weight, dtype)
            arguments[OFFSETS[place]], _ = signed_words(offset)
    return arguments | random_arguments(address)
