"""GroupNorm with SiLU behind it, in two launches.

    mu_j, v_j   mean and biased variance of group j, over its C/G channels and their pixels in one sample
    y   = (x - mu_j) (weight_k r_j) + bias_k        r_j = 1 / sqrt(v_j + eps)
    out = y / (1 + exp(-y))

in fp32 (fp64 for fp64 x), rounded once to the dtype of x. The first kernel is that of ``kernels.instance_norm``: mean
and sum of squared deviations of each split of a channel's plane. The second combines the splits of the channels of the
groups that its tile meets, in their order and by Chan's formula, anew in every program. So a group is shared by as many
programs as its size allows, and one sample of few groups fills the device.

Bytes per element: x twice and out once, 12 for fp32, 6 for 16-bit, 24 for fp64, of which the second reading of x comes
from the second-level cache where the batch fits it.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..operands import GroupNorm, Statistics
from .direct_launch import launch
from .groups import by_group, members_of, to_members, to_tile
from .instance_norm import statistics_kernel
from .layout import Call, on_device
from .philox import load_as, round_to
from .planes import SIZES, along, partials, planes_of, split_sums, tile_of


@triton.jit
def logistic(y):
    """exp(-|y|), which never overflows, and 1 / (1 + exp(-|y|)): of these are 1 / (1 + exp(-y)) and its like."""
    small = tl.exp(-tl.abs(y))
    return small, 1 / (1 + small)


@triton.jit
def silu(y):
    """y / (1 + exp(-y)), finite for every finite y."""
    small, large = logistic(y)
    return tl.where(y > 0, y, y * small) * large


@triton.jit(do_not_specialize=SIZES)
def apply_kernel(
    out_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    rstd_ptr,
    means_ptr,
    deviations_ptr,
    channels: tl.int64,
    pixels: tl.int64,
    groups: tl.int64,
    members: tl.int64,
    splits: tl.int64,
    steps: tl.int64,
    tiles: tl.int64,
    EPSILON: tl.constexpr,
    ACTIVATION: tl.constexpr,
    IS_LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    GROUPS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    dtype: tl.constexpr = means_ptr.dtype.element_ty
    CHANNELS: tl.constexpr = COLUMNS if IS_LAST else ROWS
    PIXELS: tl.constexpr = ROWS if IS_LAST else COLUMNS
    sample = tl.program_id(0).to(tl.int64) // tiles
    turn = tl.program_id(0).to(tl.int64) % tiles
    first_channel = tl.program_id(1).to(tl.int64) * CHANNELS
    offset, valid = tile_of(sample, first_channel, turn * PIXELS, channels, pixels, IS_LAST, ROWS, COLUMNS, WIDTH)
    x = load_as(x_ptr + offset, valid, dtype)

    group, member, exists = members_of(first_channel, groups, members, GROUPS, MEMBERS)
    first = tl.arange(0, SPLITS) * steps * PIXELS
    counts = tl.minimum(tl.maximum(pixels - first, 0), steps * PIXELS).to(dtype)[:, None]
    means = split_sums(means_ptr, sample, member, exists, channels, splits, SPLITS)
    plane_means = tl.sum(counts / pixels.to(dtype) * means, axis=0)
    mean = by_group(plane_means, GROUPS, MEMBERS) / members.to(dtype)
    away = means - to_members(mean, GROUPS, MEMBERS)[None, :]
    squares = split_sums(deviations_ptr, sample, member, exists, channels, splits, SPLITS)
    squares += tl.where(exists[None, :], counts * away * away, 0)
    squares = by_group(tl.sum(squares, axis=0), GROUPS, MEMBERS)
    rstd = tl.rsqrt(squares / (pixels * members).to(dtype) + EPSILON)
    if turn == 0:
        # By the program that has the first channel of the group.
        own = (group * members >= first_channel) & (group * members < first_channel + CHANNELS) & (group < groups)
        tl.store(mean_ptr + sample * groups + group, mean, mask=own)
        tl.store(rstd_ptr + sample * groups + group, rstd, mask=own)

    channel = first_channel + tl.arange(0, CHANNELS)
    known = channel < channels
    scale = tl.load(weight_ptr + channel, mask=known, other=0) * to_tile(rstd, channel, group, members)
    shift = tl.load(bias_ptr + channel, mask=known, other=0)
    y = (x - along(to_tile(mean, channel, group, members), IS_LAST)) * along(scale, IS_LAST) + along(shift, IS_LAST)
    if ACTIVATION:
        y = silu(y)
    tl.store(out_ptr + offset, round_to(y, out_ptr.dtype.element_ty), mask=valid)


def prepare(out: Tensor, statistics: Statistics, given: GroupNorm, eps: float) -> tuple[Call, Call]:
    """The two launches that :func:`group_norm` makes, of the same arguments. x must not be empty."""
    x, weight, bias, groups, activation = given
    mean, rstd = statistics
    planes = planes_of(x, groups)
    means, deviations = partials(x, planes)
    shared: dict[str, Any] = {"means_ptr": means, "deviations_ptr": deviations, "x_ptr": x, **planes.constants}
    shared.update(channels=planes.channels, pixels=planes.pixels, splits=planes.splits, steps=planes.steps)
    added = {"residual_ptr": None, "total_ptr": None}
    own: dict[str, Any] = {"out_ptr": out, "weight_ptr": weight, "bias_ptr": bias, "mean_ptr": mean, "rstd_ptr": rstd}
    own.update(groups=groups, members=planes.members, tiles=planes.tiles, EPSILON=float(eps), ACTIVATION=activation)
    return (
        Call((x.shape[0] * planes.splits, planes.blocks, 1), shared | added, planes.launch),
        Call((x.shape[0] * planes.tiles, planes.blocks, 1), shared | own | planes.combined(), planes.launch),
    )


def group_norm(out: Tensor, statistics: Statistics, given: GroupNorm, eps: float) -> None:
    """Write the normalised x and its statistics ``(B, G)``; ``eps`` is added to the variance."""
    if given.x.numel():
        calls = prepare(out, statistics, given, eps)
        with on_device(given.x):
            for kernel, call in zip((statistics_kernel, apply_kernel), calls, strict=True):
                launch(kernel, call.grid, call.arguments, num_warps=call.launch.num_warps)
