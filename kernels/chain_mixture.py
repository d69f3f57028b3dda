"""Whole chains of Langevin dynamics on a Gaussian mixture in one launch, a chain a thread, its state in registers.

    x <- fl(fl(fl(c x) + fl(a score(x))) + fl(b z))        update after update, for up to four elements

with the noise of the address, and the bits of the loop. Memory is touched for the table, which the caches keep, for
frames, and for the state once at each end: bound by arithmetic, whatever the number of chains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import Call, Launch, address, on_device, random_arguments
from .mixture import load_state, score_of, store_state
from .philox import pair, philox
from .ptx import multiply

BLOCK = 128
MAX_FEATURES = 4
UNROLL = 4

Run = tuple[tuple[float, float, float | None], int, int]
CHANGING = ("batch", "components", "run_count", "every", "seed", "seed_high", "draw", "sample_offset", "purpose")


@triton.jit
def _noise(c1, c2, c3, k0, k1, D: tl.constexpr):
    """The normals of one block, of which an unused pair is not made."""
    w0, w1, w2, w3 = philox(tl.zeros_like(c1), c1, c2, c3, k0, k1)
    z0, z1 = pair(w0, w1)
    z2 = z0
    z3 = z0
    if D > 2:
        z2, z3 = pair(w2, w3)
    return z0, z1, z2, z3


@triton.jit
def _move(x, score, z, c, a, b, has_b):
    moved = multiply(x, c) + multiply(score, a)
    return tl.where(has_b, moved + multiply(z, b), moved)


@triton.jit(do_not_specialize=CHANGING, do_not_specialize_on_alignment=CHANGING)
def chain_kernel(
    x_ptr,
    table_ptr,
    rules_ptr,
    runs_ptr,
    frames_ptr,
    batch: tl.int64,
    components,
    run_count,
    every: tl.int64,
    seed,
    seed_high,
    draw,
    ids_ptr,
    sample_offset: tl.int64,
    purpose,
    D: tl.constexpr,
    IS_DIAGONAL: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    WIDTH: tl.constexpr = 1 + 2 * D if IS_DIAGONAL else 3 + D
    chain = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = chain < batch
    c1, first, c3, k0, k1 = address(chain, valid, seed, seed_high, draw, ids_ptr, sample_offset, purpose)
    x0, x1, x2, x3 = load_state(x_ptr + chain * D, valid, D)
    number = first.to(tl.int64)
    frame_ptr = frames_ptr
    if frames_ptr is not None:
        frame_ptr += chain * D
    for run in range(run_count):
        c = tl.load(rules_ptr + 3 * run)
        a = tl.load(rules_ptr + 3 * run + 1)
        b = tl.load(rules_ptr + 3 * run + 2)
        has_b = tl.load(runs_ptr + 3 * run) != 0
        row = table_ptr + tl.load(runs_ptr + 3 * run + 1) * components * WIDTH
        for _ in range(tl.load(runs_ptr + 3 * run + 2)):
            s0, s1, s2, s3 = score_of(row, x0, x1, x2, x3, components, D, IS_DIAGONAL, UNROLL)
            z0, z1, z2, z3 = _noise(c1, number.to(tl.uint32), c3, k0, k1, D)
            x0 = _move(x0, s0, z0, c, a, b, has_b)
            x1 = _move(x1, s1, z1, c, a, b, has_b)
            x2 = _move(x2, s2, z2, c, a, b, has_b)
            x3 = _move(x3, s3, z3, c, a, b, has_b)
            number += 1
            if frames_ptr is not None:  # noqa: SIM102  # what is known when it is compiled stands alone
                if number % every == 0:
                    store_state(frame_ptr, x0, x1, x2, x3, valid, D)
                    frame_ptr += batch * D
    store_state(x_ptr + chain * D, x0, x1, x2, x3, valid, D)


def prepare(
    x: Tensor,
    table: Tensor,
    *,
    diagonal: bool,
    runs: Sequence[Run],
    seed: int | Tensor,
    draw: int,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
    every: int,
    frames: Tensor | None,
) -> Call:
    """The launch that :func:`chain` makes, of the same arguments. ``x`` and ``runs`` must not be empty."""
    batch, features = x.shape
    rules = torch.tensor([[c, a, b or 0.0] for (c, a, b), _, _ in runs], dtype=torch.float32)
    whole = torch.tensor([[b is not None, level, times] for (_, _, b), level, times in runs], dtype=torch.int64)
    arguments: dict[str, Any] = {
        "x_ptr": x,
        "table_ptr": table,
        "rules_ptr": rules.to(x.device),
        "runs_ptr": whole.to(x.device),
        "frames_ptr": frames if every else None,
        "batch": batch,
        "components": table.shape[1],
        "run_count": len(runs),
        "every": max(every, 1),
        **random_arguments(seed, draw, sample_ids, sample_offset, purpose),
    }
    arguments |= {"D": features, "IS_DIAGONAL": bool(diagonal), "UNROLL": UNROLL, "BLOCK": BLOCK}
    return Call((triton.cdiv(batch, BLOCK), 1, 1), arguments, Launch(1, BLOCK, 4))


def chain(x: Tensor, table: Tensor, **arguments: Any) -> None:
    """Writes the updates of chains on a mixture to their state. The caller has validated everything.

    Args:
        x: contiguous fp32 ``(B, D)``, D up to MAX_FEATURES; written to.
        table: contiguous fp32 ``(L, K, W)``.
        diagonal: whether the table has a variance for each element.
        runs: ((c, a, b), level, times) of neighbouring updates; ``b`` None: no noise.
        seed, sample_ids, sample_offset, purpose: as for ``kernels.step.step``.
        draw: number of the first update.
        every: frames are kept after the updates that end at a multiple of it; 0 keeps none.
        frames: contiguous fp32, a state for each such update; None where there are none.
    """
    if x.numel() and arguments["runs"]:
        grid, values, launch = prepare(x, table, **arguments)
        with on_device(x):
            chain_kernel[grid](**values, num_warps=launch.num_warps, enable_fp_fusion=False)
