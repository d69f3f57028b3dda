"""Samples as matrices of channels and pixels: their tiles, how they are split, and sums over planes and channels.

A contiguous sample (C, H, W) is a matrix of C rows of H*W neighbours, a channels-last one of H*W rows of C neighbours.
A program has a tile of either, so that its accesses are of neighbours in both, and reduces it along the pixels. A long
plane is split among programs, whose results are combined in the order of the splits. Tiles and splits are made from
(C, H, W), the dtype and the memory format alone, so that a sample's bits do not hang on its batch; on a GPU they
may on whether its storage begins at a multiple of 16 bytes, by which the compiler orders the sums in a program.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import Launch
from .loops import bound
from .philox import load_as

EPSILON = tl.constexpr(1e-5)

# 16 elements a thread, 8 of fp64: with 16 the sums of the backward pass spill. Every program of the second kernel reads
# the splits of all channels of the groups that its own are in: 1024 results of 4 bytes each way and 32 KiB of its own,
# an eighth more, from the cache.
TILE = 4096
# With at most 128 registers a thread, two programs of them fit on a multiprocessor.
WARPS = 8
PROGRAMS = 512
SPLIT_RESULTS = 1024


class Planes(NamedTuple):
    """The division of a sample: ``blocks`` of channels times ``splits`` of ``steps`` tiles, or times ``tiles``.

    The channels of a block are in at most ``touched`` groups of ``members``.
    """

    is_last: bool
    channels: int
    pixels: int
    members: int
    touched: int
    blocks: int
    tiles: int
    splits: int
    steps: int
    launch: Launch
    constants: dict[str, int | bool]

    def combined(self) -> dict[str, int]:
        """The sizes, powers of two, of the block of split results that a program of the second kernel reads."""
        sizes = {"SPLITS": self.splits, "GROUPS": self.touched, "MEMBERS": self.members}
        return {name: triton.next_power_of_2(size) for name, size in sizes.items()}


def planes_of(x: Tensor, groups: int = 1) -> Planes:
    """The geometry of ``x`` (B, C, H, W), contiguous or channels-last; one pixel is both, and taken as the latter.

    ``groups``: into how many groups of neighbours the channels fall whose statistics are combined.
    """
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    is_last = pixels == 1 or not x.is_contiguous()
    neighbours = channels if is_last else pixels
    width = math.gcd(neighbours, 16 // x.element_size())
    tile = TILE // 2 if x.element_size() == 8 else TILE
    # Channels-last: no more neighbours than a line of 128 bytes, the rest of the tile being pixels to reduce.
    columns = min(triton.next_power_of_2(neighbours), 128 // x.element_size() if is_last else tile)
    rows = min(triton.next_power_of_2(pixels if is_last else channels), tile // columns)
    of_channels, of_pixels = (columns, rows) if is_last else (rows, columns)
    blocks, tiles = triton.cdiv(channels, of_channels), triton.cdiv(pixels, of_pixels)
    members = channels // groups
    # A block begins at a multiple of this in a group.
    begin = math.gcd(of_channels, members)
    touched = min(groups, (members - begin + of_channels - 1) // members + 1)
    wanted = max(1, min(tiles, PROGRAMS // blocks, SPLIT_RESULTS // (touched * members)))
    steps = triton.cdiv(tiles, wanted)
    splits = triton.cdiv(tiles, steps)
    constants = {"IS_LAST": is_last, "ROWS": rows, "COLUMNS": columns, "WIDTH": width}
    # Few pixels of many channels: the block of split results is the larger one.
    warps = max(1, min(WARPS, max(rows * columns, touched * members) // (tile // WARPS)))
    launch = Launch(width, rows * columns // width, warps)
    return Planes(is_last, channels, pixels, members, touched, blocks, tiles, splits, steps, launch, constants)


def partials(x: Tensor, planes: Planes) -> tuple[Tensor, Tensor]:
    """Two results (B, S, C) of each split and channel, in the computing dtype."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    both = x.new_empty((2, x.shape[0], planes.splits, planes.channels), dtype=dtype)
    return both[0], both[1]


# What may change from call to call and must never compile a kernel anew.
SIZES = (
    "channels",
    "pixels",
    "groups",
    "members",
    "splits",
    "steps",
    "tiles",
    "levels",
    "gamma_row",
    "alpha_row",
    "beta_row",
)


@triton.jit
def tile_of(
    sample,
    first_channel,
    first_pixel,
    channels,
    pixels,
    IS_LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Offsets (ROWS, COLUMNS) of a tile's elements in memory, and which of them exist."""
    rows, groups = (pixels, channels // WIDTH) if IS_LAST else (channels, pixels // WIDTH)
    first_row, first_column = (first_pixel, first_channel) if IS_LAST else (first_channel, first_pixel)
    first_group = first_column // WIDTH
    row = tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    base = ((sample * rows + first_row) * groups + first_group) * WIDTH
    offset = base + (row.to(tl.int64) * groups * WIDTH)[:, None] + column[None, :]
    row_valid = row < tl.minimum(rows - first_row, ROWS).to(tl.int32)
    # One predicate for a group: with a comparison of its elements the accesses would not be vectors.
    group_valid = column // WIDTH < tl.minimum(groups - first_group, COLUMNS).to(tl.int32)
    return offset, row_valid[:, None] & group_valid[None, :]


@triton.jit
def along(values, IS_LAST: tl.constexpr):
    """Numbers of a tile's channels, to meet the tile."""
    return values[None, :] if IS_LAST else values[:, None]


@triton.jit
def reduce_pixels(values, IS_LAST: tl.constexpr):
    """Sums (channels,) of a tile."""
    return tl.sum(values, axis=0 if IS_LAST else 1)


@triton.jit
def differentiate(
    gradient, x, mean, rstd, gamma, shift, through: tl.constexpr, ACTIVATION: tl.constexpr, IS_LAST: tl.constexpr
):
    """dy and n of a tile; ``through`` makes, of the gradient and y, that before the activation."""
    away = x - along(mean, IS_LAST)
    if ACTIVATION:
        # As the forward pass rounds it, so that both are on the same side of 0.
        gradient = through(gradient, away * along(gamma * rstd, IS_LAST) + along(shift, IS_LAST))
    return gradient, away * along(rstd, IS_LAST)


@triton.jit
def sum_derivatives(
    first_sums_ptr,
    second_sums_ptr,
    grad_out_ptr,
    x_ptr,
    mean,
    rstd,
    gamma,
    shift,
    through: tl.constexpr,
    channels,
    pixels,
    splits,
    steps,
    ACTIVATION: tl.constexpr,
    IS_LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Store the sums of dy and of dy n over the program's split of its planes; the other numbers are its channels'."""
    dtype: tl.constexpr = mean.dtype
    CHANNELS: tl.constexpr = COLUMNS if IS_LAST else ROWS
    PIXELS: tl.constexpr = ROWS if IS_LAST else COLUMNS
    program = tl.program_id(0).to(tl.int64)
    first_pixel = program % splits * steps * PIXELS
    first_channel = tl.program_id(1).to(tl.int64) * CHANNELS
    first = tl.zeros((ROWS, COLUMNS), dtype)
    second = tl.zeros((ROWS, COLUMNS), dtype)
    for step in range(bound(steps)):
        offset, valid = tile_of(
            program // splits,
            first_channel,
            first_pixel + step * PIXELS,
            channels,
            pixels,
            IS_LAST,
            ROWS,
            COLUMNS,
            WIDTH,
        )
        x = load_as(x_ptr + offset, valid, dtype)
        gradient = load_as(grad_out_ptr + offset, valid, dtype)
        dy, n = differentiate(gradient, x, mean, rstd, gamma, shift, through, ACTIVATION, IS_LAST)
        dy = tl.where(valid, dy, 0)
        first += dy
        second += tl.where(valid, dy * n, 0)
    channel = first_channel + tl.arange(0, CHANNELS)
    at = program * channels + channel
    tl.store(first_sums_ptr + at, reduce_pixels(first, IS_LAST), mask=channel < channels)
    tl.store(second_sums_ptr + at, reduce_pixels(second, IS_LAST), mask=channel < channels)


@triton.jit
def split_sums(ptr, sample, channel, valid, channels, splits, SPLITS: tl.constexpr):
    """A result (B, S, C) of all splits of the channels, (SPLITS, channels); 0 where there is none."""
    split = tl.arange(0, SPLITS)
    ptrs = ptr + (sample * splits + split)[:, None] * channels + channel[None, :]
    return tl.load(ptrs, mask=(split < splits)[:, None] & valid[None, :], other=0)


@triton.jit
def across(means, valid, channels):
    """Mean of the channels' means, and 1 / sqrt(their unbiased variance + 1e-5)."""
    centre = tl.sum(means) / channels.to(means.dtype)
    away = tl.where(valid, means - centre, 0)
    spread = tl.sum(away * away) / (channels - 1).to(means.dtype)
    return centre, tl.rsqrt(spread + EPSILON)
