"""Groups of neighbouring channels: those that a program's tile meets, and from their channels' numbers to theirs.

A tile's channels need not begin or end where a group does. A program therefore takes whole groups, from that of its
first channel on, as a block of GROUPS * MEMBERS channels, both powers of two, of which those exist that are a group's.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def members_of(first_channel, groups, members, GROUPS: tl.constexpr, MEMBERS: tl.constexpr):
    """The program's groups (GROUPS,); the channels (GROUPS * MEMBERS,) of these, and which of them exist."""
    first_group = first_channel // members
    place = tl.arange(0, GROUPS * MEMBERS)
    group = first_group + place // MEMBERS
    member = place % MEMBERS
    channel = group * members + member
    return first_group + tl.arange(0, GROUPS), channel, (member < members) & (group < groups)


@triton.jit
def by_group(values, GROUPS: tl.constexpr, MEMBERS: tl.constexpr):
    """Sums (GROUPS,) of numbers of the channels of the program's groups, which are 0 where there is none."""
    return tl.sum(tl.reshape(values, (GROUPS, MEMBERS)), axis=1)


@triton.jit
def to_members(values, GROUPS: tl.constexpr, MEMBERS: tl.constexpr):
    """Numbers of the program's groups, each for all channels of its group: (GROUPS * MEMBERS,)."""
    return tl.reshape(tl.broadcast_to(values[:, None], (GROUPS, MEMBERS)), (GROUPS * MEMBERS,))


@triton.jit
def to_tile(values, channel, group, members):
    """Numbers of the program's groups, each for the channels of a tile that are in its group."""
    away = channel[:, None] - (group * members)[None, :]
    return tl.sum(tl.where((away >= 0) & (away < members), values[None, :], 0), axis=1)
