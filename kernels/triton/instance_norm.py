"""InstanceNorm++ of a tensor, or of the sum of two, with ELU behind it, in two launches.

    m_k = (mu_k - mean mu) / sqrt(var mu + 1e-5)        over the channels of a sample, the variance unbiased
    y   = (x - mu_k) (gamma_k r_k) + (beta_k + gamma_k alpha_k m_k)        r_k = 1 / sqrt(v_k + 1e-5)
    out = ELU(y)        of x, or of total = x + residual

in fp32 (fp64 for fp64 x), rounded once to the dtype of x. The first kernel has mean and sum of squared deviations of
each split of a plane, each lane by Welford's update and the lanes by Chan's, so that nothing cancels; the second, which
needs the means of all channels of its sample, combines them anew in every program rather than in a launch between.

Bytes per element: x twice and out once, 12 for fp32, 6 for 16-bit, 24 for fp64, of which the second reading of x comes
from the second-level cache where the batch fits it; for a sum two more, of the residual and the sum. A plane held in
registers would save that reading, but the means of the other channels are in other programs.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..operands import InstanceNorm, Statistics
from .direct_launch import launch
from .layout import Call, on_device
from .loops import bound
from .philox import load_as, round_to, widened
from .planes import EPSILON, SIZES, across, along, partials, planes_of, reduce_pixels, split_sums, tile_of

# Below -1/2 exp(y) - 1 loses at most one bit of exp's; above, the Taylor series of expm1 to these powers of y is short
# by 0.5^8 / 9! = 1.1e-8 of y in fp32 and 0.5^15 / 16! = 1.5e-18 in fp64, a quarter and a seventieth of a rounding.
SERIES_FROM = tl.constexpr(-0.5)


@triton.jit
def _taylor(y, factor: tl.constexpr, power: tl.constexpr, last: tl.constexpr):
    """factor (1 + y / (power + 1) (1 + y / (power + 2) (...))), the last power being ``last``."""
    if power == last:
        return tl.full(y.shape, factor, y.dtype)
    else:
        return _taylor(y, factor / (power + 1), power + 1, last) * y + factor


@triton.jit
def elu(y):
    """y where y > 0, exp(y) - 1 otherwise."""
    LAST: tl.constexpr = 15 if y.dtype == tl.float64 else 8
    near = _taylor(y, 0.5, 2, LAST) * (y * y) + y
    return tl.where(y > 0, y, tl.where(y > SERIES_FROM, near, tl.exp(y) - 1))


@triton.jit(do_not_specialize=SIZES)
def statistics_kernel(
    means_ptr,
    deviations_ptr,
    x_ptr,
    residual_ptr,
    total_ptr,
    channels: tl.int64,
    pixels: tl.int64,
    splits: tl.int64,
    steps: tl.int64,
    IS_LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    dtype: tl.constexpr = means_ptr.dtype.element_ty
    CHANNELS: tl.constexpr = COLUMNS if IS_LAST else ROWS
    PIXELS: tl.constexpr = ROWS if IS_LAST else COLUMNS
    program = tl.program_id(0).to(tl.int64)
    sample = program // splits
    first_pixel = program % splits * steps * PIXELS
    first_channel = tl.program_id(1).to(tl.int64) * CHANNELS

    mean = tl.zeros((ROWS, COLUMNS), dtype)
    squares = tl.zeros((ROWS, COLUMNS), dtype)
    turn = tl.full((), 0, dtype)
    for step in range(bound(steps)):
        turn += 1
        offset, valid = tile_of(
            sample, first_channel, first_pixel + step * PIXELS, channels, pixels, IS_LAST, ROWS, COLUMNS, WIDTH
        )
        x = load_as(x_ptr + offset, valid, dtype)
        if residual_ptr is not None:
            # Rounded as a tensor of the sum would be, and read back as it was rounded.
            total = round_to(x + load_as(residual_ptr + offset, valid, dtype), total_ptr.dtype.element_ty)
            tl.store(total_ptr + offset, total, mask=valid)
            x = widened(total, dtype)
        away = tl.where(valid, x - mean, 0)
        mean += away * (1.0 / turn)
        squares += tl.where(valid, away * (x - mean), 0)

    own = tl.minimum(steps * PIXELS, pixels - first_pixel)
    turns = tl.maximum((own - tl.arange(0, PIXELS) + PIXELS - 1) // PIXELS, 0).to(dtype)
    turns = along(turns, not IS_LAST)
    whole = reduce_pixels(mean * turns, IS_LAST) / own.to(dtype)
    away = mean - along(whole, IS_LAST)
    squares = reduce_pixels(squares + turns * away * away, IS_LAST)
    channel = first_channel + tl.arange(0, CHANNELS)
    at = program * channels + channel
    tl.store(means_ptr + at, whole, mask=channel < channels)
    tl.store(deviations_ptr + at, squares, mask=channel < channels)


@triton.jit(do_not_specialize=SIZES)
def apply_kernel(
    out_ptr,
    x_ptr,
    gamma_ptr,
    alpha_ptr,
    beta_ptr,
    mean_ptr,
    rstd_ptr,
    means_ptr,
    deviations_ptr,
    labels_ptr,
    levels: tl.int64,
    gamma_row: tl.int64,
    alpha_row: tl.int64,
    beta_row: tl.int64,
    channels: tl.int64,
    pixels: tl.int64,
    splits: tl.int64,
    steps: tl.int64,
    tiles: tl.int64,
    ACTIVATION: tl.constexpr,
    IS_LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
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

    first = tl.arange(0, SPLITS) * steps * PIXELS
    counts = tl.minimum(tl.maximum(pixels - first, 0), steps * PIXELS).to(dtype)[:, None]
    shares = counts / pixels.to(dtype)
    every = tl.arange(0, MEMBERS)
    all_means = split_sums(means_ptr, sample, every, every < channels, channels, splits, SPLITS)
    all_means = tl.sum(shares * all_means, axis=0)
    centre, sharpness = across(all_means, every < channels, channels)

    channel = first_channel + tl.arange(0, CHANNELS)
    known = channel < channels
    means = split_sums(means_ptr, sample, channel, known, channels, splits, SPLITS)
    mean = tl.sum(shares * means, axis=0)
    away = means - mean[None, :]
    squares = split_sums(deviations_ptr, sample, channel, known, channels, splits, SPLITS) + counts * away * away
    rstd = tl.rsqrt(tl.sum(squares, axis=0) / pixels.to(dtype) + EPSILON)
    if turn == 0:
        tl.store(mean_ptr + sample * channels + channel, mean, mask=known)
        tl.store(rstd_ptr + sample * channels + channel, rstd, mask=known)
    row = sample
    if labels_ptr is not None:
        row = tl.load(labels_ptr + sample)
        # The host does not read labels that are on a device: one out of range makes its sample NaN.
        known &= (row >= 0) & (row < levels)
    nothing = float("nan")
    gamma = tl.load(gamma_ptr + row * gamma_row + channel, mask=known, other=nothing)
    alpha = tl.load(alpha_ptr + row * alpha_row + channel, mask=known, other=nothing)
    beta = tl.load(beta_ptr + row * beta_row + channel, mask=known, other=nothing)
    shift = beta + gamma * alpha * ((mean - centre) * sharpness)
    y = (x - along(mean, IS_LAST)) * along(gamma * rstd, IS_LAST) + along(shift, IS_LAST)
    if ACTIVATION:
        y = elu(y)
    tl.store(out_ptr + offset, round_to(y, out_ptr.dtype.element_ty), mask=valid)


def prepare(out: Tensor, total: Tensor | None, statistics: Statistics, given: InstanceNorm) -> tuple[Call, Call]:
    """The two launches that :func:`instance_norm` makes, of the same arguments. x must not be empty."""
    x, gamma, alpha, beta, activation, residual, labels = given
    mean, rstd = statistics
    planes = planes_of(x)
    means, deviations = partials(x, planes)
    shared: dict[str, Any] = {"means_ptr": means, "deviations_ptr": deviations, "x_ptr": x}
    shared.update(channels=planes.channels, pixels=planes.pixels, splits=planes.splits, steps=planes.steps)
    added = {"residual_ptr": residual, "total_ptr": total}
    own = {
        "out_ptr": out,
        "x_ptr": x if total is None else total,
        "mean_ptr": mean,
        "rstd_ptr": rstd,
        "tiles": planes.tiles,
    }
    own |= {"labels_ptr": labels, "levels": gamma.shape[0]}
    for name, tensor in (("gamma", gamma), ("alpha", alpha), ("beta", beta)):
        own |= {f"{name}_ptr": tensor, f"{name}_row": tensor.stride(0)}
    combined = {name: size for name, size in planes.combined().items() if name != "GROUPS"}
    return (
        Call((x.shape[0] * planes.splits, planes.blocks, 1), shared | added | planes.constants, planes.launch),
        Call(
            (x.shape[0] * planes.tiles, planes.blocks, 1),
            shared | own | planes.constants | combined | {"ACTIVATION": activation},
            planes.launch,
        ),
    )


def instance_norm(out: Tensor, total: Tensor | None, statistics: Statistics, given: InstanceNorm) -> None:
    """Write the norm, the sum where there is a residual, and the statistics. A label that is no level gives NaN.

    Args:
        out: the result.
        total: as x, overlaps nothing: x plus the residual. None where there is none.
        statistics: ``(B, C)``.
        given: the input.
    """
    if given.x.numel():
        calls = prepare(out, total, statistics, given)
        with on_device(given.x):
            for kernel, call in zip((statistics_kernel, apply_kernel), calls, strict=True):
                launch(kernel, call.grid, call.arguments, num_warps=call.launch.num_warps)
