"""The gradients of ``kernels.group_norm``, in two launches.

    s  = 1 / (1 + exp(-y))        dy = g s (1 + y (1 - s)), or g without SiLU        n = (x - mu_j) r_j
    dbias_k, dweight_k = sums of dy, dy n over the plane of channel k        for each sample
    A_j, B_j = sums of weight_k dbias_k, weight_k dweight_k over the channels of group j
    dx = r_j (weight_k dy - (A_j + n B_j) / (HW C/G))

in fp32 (fp64 for fp64 x), y being computed again and the result rounded once to the dtype of x. As forward, the first
kernel sums the splits of the planes and the second, in every program, the splits of the channels of its tile's groups.

Bytes per element: g and x twice and the result once, 20 for fp32, 10 for 16-bit, 40 for fp64, of which the second
reading, 8 for fp32, comes from the second-level cache where the batch fits it.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..operands import GroupNorm, GroupNormGradients, Statistics
from .direct_launch import launch
from .group_norm import logistic
from .groups import by_group, members_of, to_tile
from .layout import Call, on_device
from .philox import load_as, round_to
from .planes import SIZES, along, differentiate, partials, planes_of, split_sums, sum_derivatives, tile_of


@triton.jit
def through_silu(gradient, y):
    """g s (1 + y (1 - s)), finite for all that is finite."""
    small, large = logistic(y)
    # s (1 - s) is small large^2 on either side of 0: a difference from 1 would cancel, and y magnify what it loses.
    return gradient * (tl.where(y > 0, large, small * large) + y * (small * large * large))


@triton.jit(do_not_specialize=SIZES)
def sums_kernel(
    first_sums_ptr,
    second_sums_ptr,
    grad_out_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    rstd_ptr,
    channels: tl.int64,
    pixels: tl.int64,
    groups: tl.int64,
    members: tl.int64,
    splits: tl.int64,
    steps: tl.int64,
    ACTIVATION: tl.constexpr,
    IS_LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    CHANNELS: tl.constexpr = COLUMNS if IS_LAST else ROWS
    channel = tl.program_id(1).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    # In 32 bits: of 64, the division of each channel's number is 4 instructions an element.
    group = channel.to(tl.int32) // members.to(tl.int32)
    at = tl.program_id(0).to(tl.int64) // splits * groups + group
    mean = tl.load(mean_ptr + at, mask=known, other=0)
    rstd = tl.load(rstd_ptr + at, mask=known, other=0)
    weight = mean
    bias = mean
    if ACTIVATION:
        weight = tl.load(weight_ptr + channel, mask=known, other=0)
        bias = tl.load(bias_ptr + channel, mask=known, other=0)
    sum_derivatives(
        first_sums_ptr,
        second_sums_ptr,
        grad_out_ptr,
        x_ptr,
        mean,
        rstd,
        weight,
        bias,
        through_silu,
        channels,
        pixels,
        splits,
        steps,
        ACTIVATION,
        IS_LAST,
        ROWS,
        COLUMNS,
        WIDTH,
    )


@triton.jit(do_not_specialize=SIZES)
def gradient_kernel(
    grad_x_ptr,
    grad_weight_ptr,
    grad_bias_ptr,
    first_sums_ptr,
    second_sums_ptr,
    grad_out_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    rstd_ptr,
    channels: tl.int64,
    pixels: tl.int64,
    groups: tl.int64,
    members: tl.int64,
    splits: tl.int64,
    tiles: tl.int64,
    ACTIVATION: tl.constexpr,
    IS_LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    GROUPS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    dtype: tl.constexpr = mean_ptr.dtype.element_ty
    CHANNELS: tl.constexpr = COLUMNS if IS_LAST else ROWS
    PIXELS: tl.constexpr = ROWS if IS_LAST else COLUMNS
    sample = tl.program_id(0).to(tl.int64) // tiles
    turn = tl.program_id(0).to(tl.int64) % tiles
    first_channel = tl.program_id(1).to(tl.int64) * CHANNELS
    offset, valid = tile_of(sample, first_channel, turn * PIXELS, channels, pixels, IS_LAST, ROWS, COLUMNS, WIDTH)
    x = load_as(x_ptr + offset, valid, dtype)
    gradient = load_as(grad_out_ptr + offset, valid, dtype)

    channel = first_channel + tl.arange(0, CHANNELS)
    known = channel < channels
    if turn == 0:
        at = sample * channels + channel
        first = split_sums(first_sums_ptr, sample, channel, known, channels, splits, SPLITS)
        second = split_sums(second_sums_ptr, sample, channel, known, channels, splits, SPLITS)
        tl.store(grad_bias_ptr + at, tl.sum(first, axis=0), mask=known)
        tl.store(grad_weight_ptr + at, tl.sum(second, axis=0), mask=known)

    group, member, exists = members_of(first_channel, groups, members, GROUPS, MEMBERS)
    weights = tl.load(weight_ptr + member, mask=exists, other=0)
    first = split_sums(first_sums_ptr, sample, member, exists, channels, splits, SPLITS)
    second = split_sums(second_sums_ptr, sample, member, exists, channels, splits, SPLITS)
    share = 1.0 / (pixels * members).to(dtype)
    constant = by_group(tl.sum(first, axis=0) * weights, GROUPS, MEMBERS) * share
    slope = by_group(tl.sum(second, axis=0) * weights, GROUPS, MEMBERS) * share
    at = sample * groups + group
    mean = to_tile(tl.load(mean_ptr + at, mask=group < groups, other=0), channel, group, members)
    rstd = to_tile(tl.load(rstd_ptr + at, mask=group < groups, other=0), channel, group, members)
    weight = tl.load(weight_ptr + channel, mask=known, other=0)
    bias = tl.load(bias_ptr + channel, mask=known, other=0)

    dy, n = differentiate(gradient, x, mean, rstd, weight, bias, through_silu, ACTIVATION, IS_LAST)
    result = dy * along(weight, IS_LAST) - along(to_tile(constant, channel, group, members), IS_LAST)
    result = (result - n * along(to_tile(slope, channel, group, members), IS_LAST)) * along(rstd, IS_LAST)
    tl.store(grad_x_ptr + offset, round_to(result, grad_x_ptr.dtype.element_ty), mask=valid)


def prepare(
    gradients: GroupNormGradients, grad_out: Tensor, given: GroupNorm, statistics: Statistics
) -> tuple[Call, Call]:
    """The two launches that :func:`group_norm_backward` makes, of the same arguments. x must not be empty."""
    x, weight, bias, groups, activation = given
    grad_x, grad_weight, grad_bias = gradients
    mean, rstd = statistics
    planes = planes_of(x, groups)
    first, second = partials(x, planes)
    shared: dict[str, Any] = {"first_sums_ptr": first, "second_sums_ptr": second, "grad_out_ptr": grad_out, "x_ptr": x}
    shared.update(weight_ptr=weight, bias_ptr=bias, mean_ptr=mean, rstd_ptr=rstd, ACTIVATION=activation)
    shared.update(channels=planes.channels, pixels=planes.pixels, groups=groups, members=planes.members)
    shared.update(splits=planes.splits, **planes.constants)
    results = {"grad_x_ptr": grad_x, "grad_weight_ptr": grad_weight, "grad_bias_ptr": grad_bias, "tiles": planes.tiles}
    return (
        Call((x.shape[0] * planes.splits, planes.blocks, 1), shared | {"steps": planes.steps}, planes.launch),
        Call((x.shape[0] * planes.tiles, planes.blocks, 1), shared | results | planes.combined(), planes.launch),
    )


def group_norm_backward(
    gradients: GroupNormGradients, grad_out: Tensor, given: GroupNorm, statistics: Statistics
) -> None:
    """Write the gradients.

    Args:
        gradients: the results.
        grad_out: the derivative by the norm, as x.
        given: the input.
        statistics: what ``kernels.group_norm`` wrote.
    """
    if given.x.numel():
        calls = prepare(gradients, grad_out, given, statistics)
        with on_device(given.x):
            for kernel, call in zip((sums_kernel, gradient_kernel), calls, strict=True):
                launch(kernel, call.grid, call.arguments, num_warps=call.launch.num_warps)
