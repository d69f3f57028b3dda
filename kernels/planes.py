"""Samples as matrices of channels and pixels: their tiles, how they are split, and the statistics over the channels.

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

EPSILON = tl.constexpr(1e-5)

# 16 elements a thread, 8 of fp64: with 16 the sums of the backward pass spill. Every program of the second kernel reads
# the C*S results of its sample's splits: at 1024 of 4 bytes and 32 KiB of its own, an eighth more, from the cache.
TILE = 4096
WARPS = 8
PROGRAMS = 512
SPLIT_RESULTS = 1024


class Planes(NamedTuple):
    """How a sample is taken apart: ``blocks`` of channels times ``splits`` of ``steps`` tiles, or times ``tiles``."""

    is_last: bool
    channels: int
    pixels: int
    blocks: int
    tiles: int
    splits: int
    steps: int
    launch: Launch
    constants: dict[str, int | bool]


def planes_of(x: Tensor) -> Planes:
    """The geometry of ``x`` (B, C, H, W), contiguous or channels-last; one pixel is both, and taken as the latter."""
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
    wanted = max(1, min(tiles, PROGRAMS // blocks, SPLIT_RESULTS // channels))
    steps = triton.cdiv(tiles, wanted)
    splits = triton.cdiv(tiles, steps)
    constants = {
        "IS_LAST": is_last,
        "ROWS": rows,
        "COLUMNS": columns,
        "WIDTH": width,
        "SPLITS": triton.next_power_of_2(splits),
        "ALL": triton.next_power_of_2(channels),
    }
    warps = max(1, min(WARPS, rows * columns // (tile // WARPS)))
    launch = Launch(width, rows * columns // width, warps)
    return Planes(is_last, channels, pixels, blocks, tiles, splits, steps, launch, constants)


def partials(x: Tensor, planes: Planes) -> tuple[Tensor, Tensor]:
    """Two results (B, S, C) of each split and channel, in the computing dtype."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    both = x.new_empty((2, x.shape[0], planes.splits, planes.channels), dtype=dtype)
    return both[0], both[1]


# What may change from call to call and must never compile a kernel anew.
SIZES = ("channels", "pixels", "splits", "steps", "levels", "gamma_row", "alpha_row", "beta_row")


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
