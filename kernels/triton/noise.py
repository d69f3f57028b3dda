"""The random numbers of a program's groups of elements: drawn whole, and taken in the parts that its accesses move.

A group's numbers are those of one Philox block, or of two neighbours if it has eight elements. The thread that draws
them has the group's elements too, so that none goes through shared memory.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .philox import pair, philox, uniform


@triton.jit
def variates(block, c1, c2, c3, k0, k1, IS_UNIFORM: tl.constexpr = False):
    """The four standard normals of a Philox block, or its four uniforms on (0, 1), in fp32."""
    w0, w1, w2, w3 = philox(block, c1, c2, c3, k0, k1)
    if IS_UNIFORM:
        return uniform(w0), uniform(w1), uniform(w2), uniform(w3)
    else:
        return pair(w0, w1) + pair(w2, w3)


@triton.jit
def draw_groups(words, first_group, group_lane, WIDTH: tl.constexpr, IS_UNIFORM: tl.constexpr = False):
    """The random numbers of a tile's groups, at the words that :func:`address` gives for their rows.

    Returns:
        WIDTH tensors (GROUPS,) in fp32: number j has element j of each group.
    """
    c1, c2, c3, k0, k1 = words
    block = (first_group * (WIDTH // 4)).to(tl.uint32) + (group_lane * (WIDTH // 4)).to(tl.uint32)
    drawn = variates(block, c1, c2, c3, k0, k1, IS_UNIFORM)
    if WIDTH == 8:
        drawn += variates(block + 1, c1, c2, c3, k0, k1, IS_UNIFORM)
    return drawn


@triton.jit
def interleave4(values):
    """Four tensors (N,) to one (N, 4), each thread keeping its own values."""
    pairs = tl.join(tl.join(values[0], values[2]), tl.join(values[1], values[3]))
    return tl.reshape(pairs, (values[0].shape[0], 4))


@triton.jit
def take(drawn, part: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr):
    """The numbers (GROUPS, WIDTH // PARTS) of a part of each group, of what :func:`draw_groups` returns.

    Groups of eight are never parted: only 16-bit elements are taken by eight.
    """
    if WIDTH == 8:
        even = interleave4((drawn[0], drawn[2], drawn[4], drawn[6]))
        odd = interleave4((drawn[1], drawn[3], drawn[5], drawn[7]))
        return tl.reshape(tl.join(even, odd), (drawn[0].shape[0], 8))
    elif PARTS == 1:
        return interleave4(drawn)
    else:
        return tl.join(drawn[2 * part], drawn[2 * part + 1])
