"""Whole chains of a small score network in one launch: the state stays in registers for all of its updates.

    x <- fl(fl(fl(c*x) + fl(a*s)) + fl(b*z)),  s = gain_i (W h_n + w) - pull_i (x - mean)
    h_l = f(W_l h_{l-1} + b_{l,i}),  h_0 = (x - mean) scale_i

A program has BLOCK chains. Noise and update are the stream's, rounded as in kernels/triton/step.py. The products are
fused multiply-adds in fp32 (``"fp32"``), or go to the matrix units with factors of tf32 or bf16 and sums in fp32; exp
and log are the device's, within 2^-21 of their value, and so an activation is off by 2^-21 of its largest term.

Memory traffic is 8 bytes an element of the state for the whole launch. The weights are read once, into shared memory.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from ..operands import ChainNetwork, ChainUpdates
from .activations import activate
from .layout import Call, Launch, address, on_device, random_arguments
from .loops import bound
from .noise import interleave4, variates
from .philox import round_to
from .ptx import IS_INTERPRETED, IS_PTX, multiply

# What may change from call to call and must never compile a kernel anew.
CHANGING = ("rows", "features", "steps", "every", "seed", "seed_high", "draw", "ids_ptr", "sample_offset", "purpose")


def launch_for(features: int, width: int, matmul: str) -> Launch:
    """The launch table: features of a chain, chains of a program and its warps.

    In fp32 more chains of a program, or fewer warps, spill hundreds of registers.
    """
    if matmul == "fp32":
        return Launch(features, 16 if features > 16 and width <= 64 else 32, max(4, width // 8))
    return Launch(features, 64, 4 if width <= 64 else 8)


@triton.jit
def _product(h, weights, MATMUL: tl.constexpr):
    if MATMUL == "bf16":
        return _dot(round_to(h, tl.bfloat16), weights)
    elif MATMUL == "tf32":
        return tl.dot(h, weights, input_precision="tf32")
    else:
        return tl.dot(h, weights, input_precision="ieee")


@triton.jit
def _dot(h, weights):
    # The interpreter multiplies the bits of bf16 numbers as integers.
    if IS_INTERPRETED:
        return tl.dot(h.to(tl.float32), weights.to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(h, weights)


@triton.jit
def _matrix(ptr, index: tl.constexpr, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr):
    """Matrix number ``index`` of its kind, (INPUTS, OUTPUTS)."""
    at = tl.arange(0, INPUTS)[:, None] * OUTPUTS + tl.arange(0, OUTPUTS)[None, :]
    return tl.load(ptr + index * INPUTS * OUTPUTS + at)


@triton.jit(do_not_specialize=CHANGING)
def chain_kernel(
    x_ptr,
    frames_ptr,
    first_ptr,
    hidden_ptr,
    last_ptr,
    biases_ptr,
    head_ptr,
    frame_ptr,
    mean,
    levels_ptr,
    coefficients_ptr,
    noisy_ptr,
    rows: tl.int64,
    features,
    steps,
    every,
    seed,
    seed_high,
    draw,
    ids_ptr,
    sample_offset: tl.int64,
    purpose,
    ACTIVATION: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
    FEATURES: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    MATMUL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    feature = tl.arange(0, FEATURES)
    valid = (row < rows)[:, None] & (feature < features)[None, :]
    at = row[:, None] * features + feature[None, :]
    x = tl.load(x_ptr + at, mask=valid, other=0.0)
    c1, c2, c3, k0, k1 = address(row, row < rows, seed, seed_high, draw, ids_ptr, sample_offset, purpose)
    # A Philox block for each four features, in a row for each block of each chain.
    blocks = tl.reshape(tl.broadcast_to(tl.arange(0, GROUPS)[None, :], (BLOCK, GROUPS)), (BLOCK * GROUPS,)).to(
        tl.uint32
    )
    c1 = tl.reshape(tl.broadcast_to(c1[:, None], (BLOCK, GROUPS)), (BLOCK * GROUPS,))
    c3 = tl.reshape(tl.broadcast_to(c3[:, None], (BLOCK, GROUPS)), (BLOCK * GROUPS,))
    if seed.dtype.is_ptr():
        k0 = tl.reshape(tl.broadcast_to(k0[:, None], (BLOCK, GROUPS)), (BLOCK * GROUPS,))
        k1 = tl.reshape(tl.broadcast_to(k1[:, None], (BLOCK, GROUPS)), (BLOCK * GROUPS,))
    hidden = tl.arange(0, WIDTH)
    first = _matrix(first_ptr, 0, FEATURES, WIDTH)
    last = _matrix(last_ptr, 0, WIDTH, FEATURES)
    if DEPTH > 1:
        second = _matrix(hidden_ptr, 0, WIDTH, WIDTH)
    if DEPTH > 2:
        third = _matrix(hidden_ptr, 1, WIDTH, WIDTH)
    if DEPTH > 3:
        fourth = _matrix(hidden_ptr, 2, WIDTH, WIDTH)
    for index in range(bound(steps)):
        level = tl.load(levels_ptr + index)
        bias_ptrs = biases_ptr + level * (DEPTH * WIDTH) + hidden
        centred = x - mean
        h = multiply(centred, tl.load(frame_ptr + level * 3))
        h = activate(_product(h, first, MATMUL) + tl.load(bias_ptrs)[None, :], ACTIVATION)
        if DEPTH > 1:
            h = activate(_product(h, second, MATMUL) + tl.load(bias_ptrs + WIDTH)[None, :], ACTIVATION)
        if DEPTH > 2:
            h = activate(_product(h, third, MATMUL) + tl.load(bias_ptrs + 2 * WIDTH)[None, :], ACTIVATION)
        if DEPTH > 3:
            h = activate(_product(h, fourth, MATMUL) + tl.load(bias_ptrs + 3 * WIDTH)[None, :], ACTIVATION)
        out = _product(h, last, MATMUL) + tl.load(head_ptr + feature)[None, :]
        score = multiply(out, tl.load(frame_ptr + level * 3 + 1)) - multiply(
            centred, tl.load(frame_ptr + level * 3 + 2)
        )
        moved = multiply(x, tl.load(coefficients_ptr + index * 3))
        moved += multiply(score, tl.load(coefficients_ptr + index * 3 + 1))
        # Repeated to the width of the state, whose features past the last are zero.
        z = tl.reshape(interleave4(variates(blocks, c1, c2, c3, k0, k1)), (BLOCK, 1, 4 * GROUPS))
        z = tl.reshape(tl.broadcast_to(z, (BLOCK, FEATURES // (4 * GROUPS), 4 * GROUPS)), (BLOCK, FEATURES))
        noisy = moved + multiply(z, tl.load(coefficients_ptr + index * 3 + 2))
        x = tl.where(valid, tl.where(tl.load(noisy_ptr + index) != 0, noisy, moved), 0.0)
        if frames_ptr is not None:  # noqa: SIM102  # known when it is compiled, and the other is not
            # Before c2 is raised, which goes back to 0 after the last draw number.
            if (c2.to(tl.int64) + 1) % every == 0:
                tl.store(frames_ptr + at, x, mask=valid)
                frames_ptr += rows * features
        c2 += 1
    tl.store(x_ptr + at, x, mask=valid)


def _padded(size: int) -> int:
    return max(16, int(triton.next_power_of_2(size)))


def prepare(x: Tensor, network: ChainNetwork, updates: ChainUpdates, matmul: str) -> Call:
    """The launch that :func:`mlp_chain` makes, of the same arguments. Neither ``x`` nor the updates may be empty."""
    weights, biases, head, frame, mean, activation = network
    rows, features = x.shape
    depth, width = biases.shape[1:]
    inputs, wide = _padded(features), _padded(width)
    held = torch.bfloat16 if matmul == "bf16" else torch.float32
    more, rest = wide - width, inputs - features
    middle = torch.stack([F.pad(each.t(), (0, more, 0, more)) for each in weights[1:-1]]) if depth > 1 else None
    launch = launch_for(inputs, wide, matmul)
    arguments: dict[str, Any] = {
        "x_ptr": x,
        "frames_ptr": updates.frames,
        "first_ptr": F.pad(weights[0].t(), (0, more, 0, rest)).to(held).contiguous(),
        "hidden_ptr": None if middle is None else middle.to(held),
        "last_ptr": F.pad(weights[-1].t(), (0, rest, 0, more)).to(held).contiguous(),
        "biases_ptr": F.pad(biases, (0, more)).contiguous(),
        "head_ptr": F.pad(head, (0, rest)),
        "frame_ptr": frame.contiguous(),
        "mean": mean,
        "levels_ptr": updates.levels,
        "coefficients_ptr": updates.coefficients.contiguous(),
        "noisy_ptr": updates.noisy,
        "rows": rows,
        "features": features,
        "steps": len(updates.levels),
        "every": updates.every,
        "ACTIVATION": activation,
        "DEPTH": depth,
        "WIDTH": wide,
        "FEATURES": inputs,
        "GROUPS": triton.next_power_of_2(triton.cdiv(features, 4)),
        "BLOCK": launch.groups,
        "MATMUL": matmul,
    }
    arguments |= random_arguments(updates.address)
    return Call((triton.cdiv(rows, launch.groups), 1, 1), arguments, launch)


def options(launch: Launch) -> dict[str, Any]:
    """Compiler options. Left to itself ptxas stops at 64 or 128 registers and spills a few of them."""
    most = {"maxnreg": min(255, 65536 // (32 * launch.num_warps))} if IS_PTX.value else {}
    return {"enable_fp_fusion": False, "num_stages": 1, **most}


def mlp_chain(x: Tensor, network: ChainNetwork, updates: ChainUpdates, matmul: str) -> None:
    """Make some updates of every chain.

    Args:
        x: state ``(B, D)`` in fp32, contiguous; written.
        network: the score.
        updates: what is done.
        matmul: ``"fp32"``, ``"tf32"`` or ``"bf16"``.
    """
    if x.numel() and len(updates.levels):
        grid, values, launch = prepare(x, network, updates, matmul)
        with on_device(x):
            chain_kernel[grid](**values, num_warps=launch.num_warps, **options(launch))
