"""The gradients of ``kernels.instance_norm``, in two launches; that of the residual is the incoming one.

    dy = g where y > 0, g exp(y) otherwise        n = (x - mu_k) r_k        S1_k, S2_k = sums of dy, dy n over a plane
    dbeta = S1        dgamma = S2 + alpha m S1        dalpha = gamma m S1        for each sample
    d_k = gamma_k alpha_k S1_k        e_k = (d_k - mean d - m_k sum(d m) / (C - 1)) / sqrt(var mu + 1e-5)
    dx = r gamma (dy - (S1 + n S2) / (HW)) + e / (HW)

in fp32 (fp64 for fp64 x), y being computed again and the result rounded once to the dtype of x. As forward, the first
kernel sums the splits of the planes and the second, in every program, the splits and the channels of its sample.

Bytes per element: g and x twice and the result once, 20 for fp32, 10 for 16-bit, 40 for fp64, of which the second
reading, 8 for fp32, comes from the second-level cache where the batch fits it.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..operands import InstanceNorm, InstanceNormGradients, Statistics
from .direct_launch import launch
from .layout import Call, on_device
from .philox import load_as, round_to
from .planes import SIZES, across, along, differentiate, partials, planes_of, split_sums, sum_derivatives, tile_of


@triton.jit
def _at(ptr, sample, row, channel, valid):
    """Numbers of a sample's channels, in rows of any stride."""
    return tl.load(ptr + sample * row + channel, mask=valid, other=0)


@triton.jit
def _through_elu(gradient, y):
    return tl.where(y > 0, gradient, gradient * tl.exp(y))


@triton.jit(do_not_specialize=SIZES)
def sums_kernel(
    first_sums_ptr,
    second_sums_ptr,
    grad_out_ptr,
    x_ptr,
    gamma_ptr,
    alpha_ptr,
    beta_ptr,
    mean_ptr,
    rstd_ptr,
    gamma_row: tl.int64,
    alpha_row: tl.int64,
    beta_row: tl.int64,
    channels: tl.int64,
    pixels: tl.int64,
    splits: tl.int64,
    steps: tl.int64,
    ACTIVATION: tl.constexpr,
    IS_LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    CHANNELS: tl.constexpr = COLUMNS if IS_LAST else ROWS
    sample = tl.program_id(0).to(tl.int64) // splits
    channel = tl.program_id(1).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    mean = _at(mean_ptr, sample, channels, channel, known)
    rstd = _at(rstd_ptr, sample, channels, channel, known)
    gamma = mean
    shift = mean
    if ACTIVATION:
        every = tl.arange(0, MEMBERS)
        all_means = _at(mean_ptr, sample, channels, every, every < channels)
        centre, sharpness = across(all_means, every < channels, channels)
        gamma = _at(gamma_ptr, sample, gamma_row, channel, known)
        alpha = _at(alpha_ptr, sample, alpha_row, channel, known)
        shift = _at(beta_ptr, sample, beta_row, channel, known) + gamma * alpha * ((mean - centre) * sharpness)

    sum_derivatives(
        first_sums_ptr,
        second_sums_ptr,
        grad_out_ptr,
        x_ptr,
        mean,
        rstd,
        gamma,
        shift,
        _through_elu,
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
    grad_gamma_ptr,
    grad_alpha_ptr,
    grad_beta_ptr,
    first_sums_ptr,
    second_sums_ptr,
    grad_out_ptr,
    x_ptr,
    gamma_ptr,
    alpha_ptr,
    beta_ptr,
    mean_ptr,
    rstd_ptr,
    gamma_row: tl.int64,
    alpha_row: tl.int64,
    beta_row: tl.int64,
    channels: tl.int64,
    pixels: tl.int64,
    splits: tl.int64,
    tiles: tl.int64,
    ACTIVATION: tl.constexpr,
    IS_LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
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

    every = tl.arange(0, MEMBERS)
    exists = every < channels
    all_means = _at(mean_ptr, sample, channels, every, exists)
    centre, sharpness = across(all_means, exists, channels)
    sums = tl.sum(split_sums(first_sums_ptr, sample, every, exists, channels, splits, SPLITS), axis=0)
    sums *= _at(gamma_ptr, sample, gamma_row, every, exists) * _at(alpha_ptr, sample, alpha_row, every, exists)
    average = tl.sum(sums) / channels.to(dtype)
    slope = tl.sum(sums * ((all_means - centre) * sharpness)) / (channels - 1).to(dtype)

    channel = first_channel + tl.arange(0, CHANNELS)
    known = channel < channels
    mean = _at(mean_ptr, sample, channels, channel, known)
    rstd = _at(rstd_ptr, sample, channels, channel, known)
    gamma = _at(gamma_ptr, sample, gamma_row, channel, known)
    alpha = _at(alpha_ptr, sample, alpha_row, channel, known)
    m = (mean - centre) * sharpness
    shift = _at(beta_ptr, sample, beta_row, channel, known) + gamma * alpha * m
    first = tl.sum(split_sums(first_sums_ptr, sample, channel, known, channels, splits, SPLITS), axis=0)
    second = tl.sum(split_sums(second_sums_ptr, sample, channel, known, channels, splits, SPLITS), axis=0)
    if turn == 0:
        at = sample * channels + channel
        tl.store(grad_beta_ptr + at, first, mask=known)
        tl.store(grad_gamma_ptr + at, second + alpha * m * first, mask=known)
        tl.store(grad_alpha_ptr + at, gamma * m * first, mask=known)

    share = 1.0 / pixels.to(dtype)
    of_mean = sharpness * (gamma * alpha * first - average - m * slope) * share
    dy, n = differentiate(gradient, x, mean, rstd, gamma, shift, _through_elu, ACTIVATION, IS_LAST)
    centred = dy - along(first * share, IS_LAST) - n * along(second * share, IS_LAST)
    result = centred * along(gamma * rstd, IS_LAST) + along(of_mean, IS_LAST)
    tl.store(grad_x_ptr + offset, round_to(result, grad_x_ptr.dtype.element_ty), mask=valid)


def prepare(
    gradients: InstanceNormGradients, grad_out: Tensor, given: InstanceNorm, statistics: Statistics
) -> tuple[Call, Call]:
    """The two launches that :func:`instance_norm_backward` makes, of the same arguments. x must not be empty."""
    x, gamma, alpha, beta, activation, _, _ = given
    grad_x, grad_gamma, grad_alpha, grad_beta = gradients
    mean, rstd = statistics
    planes = planes_of(x)
    first, second = partials(x, planes)
    shared: dict[str, Any] = {"first_sums_ptr": first, "second_sums_ptr": second, "grad_out_ptr": grad_out, "x_ptr": x}
    shared.update(mean_ptr=mean, rstd_ptr=rstd, ACTIVATION=activation)
    shared.update(channels=planes.channels, pixels=planes.pixels, splits=planes.splits, **planes.constants)
    for name, tensor in (("gamma", gamma), ("alpha", alpha), ("beta", beta)):
        shared |= {f"{name}_ptr": tensor, f"{name}_row": tensor.stride(0)}
    combined = planes.combined()
    shared["MEMBERS"] = combined["MEMBERS"]
    results = {"grad_x_ptr": grad_x, "tiles": planes.tiles, "SPLITS": combined["SPLITS"]}
    results.update(grad_gamma_ptr=grad_gamma, grad_alpha_ptr=grad_alpha, grad_beta_ptr=grad_beta)
    return (
        Call((x.shape[0] * planes.splits, planes.blocks, 1), shared | {"steps": planes.steps}, planes.launch),
        Call((x.shape[0] * planes.tiles, planes.blocks, 1), shared | results, planes.launch),
    )


def instance_norm_backward(
    gradients: InstanceNormGradients, grad_out: Tensor, given: InstanceNorm, statistics: Statistics
) -> None:
    """Write the gradients.

    Args:
        gradients: the results.
        grad_out: the derivative by the norm, as x.
        given: the input, without residual and labels.
        statistics: what ``kernels.instance_norm`` wrote.
    """
    if given.x.numel():
        calls = prepare(gradients, grad_out, given, statistics)
        with on_device(given.x):
            for kernel, call in zip((sums_kernel, gradient_kernel), calls, strict=True):
                launch(kernel, call.grid, call.arguments, num_warps=call.launch.num_warps)
