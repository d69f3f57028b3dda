"""Whole chains of Langevin dynamics on a Gaussian mixture in one launch, a chain a thread, its state in registers.

    x <- fl(fl(fl(c x) + fl(a score(x))) + fl(b z))        update after update, up to 64 elements

with the noise of the address, and the bits of the loop. A thread holds state, sums and a component's pulls: three
registers an element, besides about 40, of the 255 that there are; with frames, 64 elements put up to 12 numbers that an
update reads once into local memory on sm_80. Memory is touched for the table, which the caches keep, for frames, and
for the state once at each end: bound by arithmetic, whatever the number of chains.

If an update of a chain needs its score in fp64, the first launch leaves the chain's state as it was, and a second
launch makes all of its updates. The other chains pay one comparison an update, and no registers.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..operands import Segment
from .layout import Call, Launch, address, on_device, random_arguments
from .loops import bound
from .mixture import load_elements, score_of, store_elements, wide_score
from .noise import variates
from .ptx import multiply, stay

BLOCK = 128
MAX_FEATURES = 64

CHANGING = ("batch", "components", "features", "run_count", "every")
CHANGING += ("seed", "seed_high", "draw", "sample_offset", "purpose")


@triton.jit
def _moved(x, score, c, a, b, has_b, c1, c2, c3, k0, k1, D: tl.constexpr):
    moved = ()
    for j in tl.static_range(D):
        if j % 4 == 0:
            # A pair that no element takes is dead code, and the compiler leaves it out.
            z = variates(tl.full(c1.shape, j // 4, tl.uint32), c1, c2, c3, k0, k1)
        one = multiply(x[j], c) + multiply(score[j], a)
        moved += (tl.where(has_b, one + multiply(z[j % 4], b), one),)
    return moved


@triton.jit
def _mended(
    score, imprecise, x_ptr, scratch_ptr, x, row, components, features, D: tl.constexpr, IS_DIAGONAL: tl.constexpr
):
    """The score, in fp64 for the chains for which fp32 does not do; by way of memory, as :func:`wide_score` goes."""
    if tl.max(imprecise.to(tl.int32), 0) > 0:
        store_elements(x_ptr, x, imprecise, D)
        wide_score(scratch_ptr, x_ptr, row, imprecise, components, features, D, IS_DIAGONAL)
        better = load_elements(scratch_ptr, imprecise, D)
        mended = ()
        for j in tl.static_range(D):
            mended += (tl.where(imprecise, better[j], score[j]),)
        score = mended
    return score


@triton.jit(do_not_specialize=CHANGING, do_not_specialize_on_alignment=CHANGING)
def chain_kernel(
    x_ptr,
    table_ptr,
    rules_ptr,
    runs_ptr,
    frames_ptr,
    missed_ptr,
    scratch_ptr,
    batch: tl.int64,
    components,
    features,
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
    IS_SECOND: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    WIDTH: tl.constexpr = 3 + 4 * D if IS_DIAGONAL else 7 + 2 * D
    chain = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = chain < batch
    if IS_SECOND:
        valid = tl.load(missed_ptr + chain, mask=valid, other=0) != 0
        run_count *= tl.max(valid.to(tl.int32), 0)
    missed = chain < 0
    c1, first, c3, k0, k1 = address(chain, valid, seed, seed_high, draw, ids_ptr, sample_offset, purpose)
    x = load_elements(x_ptr + chain * D, valid, D)
    number = first.to(tl.int64)
    frame_ptr = frames_ptr
    if frames_ptr is not None:
        frame_ptr += chain * D
    for run in range(bound(run_count)):
        c = tl.load(rules_ptr + 3 * run)
        a = tl.load(rules_ptr + 3 * run + 1)
        b = tl.load(rules_ptr + 3 * run + 2)
        has_b = tl.load(runs_ptr + 3 * run) != 0
        row = table_ptr + tl.load(runs_ptr + 3 * run + 1) * components * WIDTH
        for _ in range(bound(tl.load(runs_ptr + 3 * run + 2))):
            score, imprecise = score_of(row, x, bound(components), D, IS_DIAGONAL, UNROLL)
            if IS_SECOND:
                score = _mended(
                    score,
                    imprecise & valid,
                    x_ptr + chain * D,
                    scratch_ptr + chain * D,
                    x,
                    row,
                    components,
                    features,
                    D,
                    IS_DIAGONAL,
                )
            else:
                missed |= imprecise
            if D > 4:
                # Or what each block's first rounds have for all updates is kept, and twenty keys of each sample's own:
                # with 16 elements that was 70 registers for 64, and with 32 it spilled.
                c3 = stay(c3)
                if seed.dtype.is_ptr():
                    k0 = stay(k0)
                    k1 = stay(k1)
            x = _moved(x, score, c, a, b, has_b, c1, number.to(tl.uint32), c3, k0, k1, D)
            number += 1
            if frames_ptr is not None:  # noqa: SIM102  # what is known when it is compiled stands alone
                if number % every == 0:
                    store_elements(frame_ptr, x, valid, D)
                    frame_ptr += batch * D
    store_elements(x_ptr + chain * D, x, valid & (missed == 0), D)
    if not IS_SECOND:
        tl.store(missed_ptr + chain, missed, mask=valid)


def prepare(x: Tensor, table: Tensor, segment: Segment, *, diagonal: bool) -> Call:
    """The first launch that :func:`chain` makes, of the same arguments. Neither ``x`` nor the runs may be empty."""
    at, runs, every, frames = segment
    batch, features = x.shape
    rules = torch.tensor([[c, a, b or 0.0] for (c, a, b), _, _ in runs], dtype=torch.float32, device="cpu")
    numbers = [[b is not None, level, times] for (_, _, b), level, times in runs]
    whole = torch.tensor(numbers, dtype=torch.int64, device="cpu")
    arguments: dict[str, Any] = {
        "x_ptr": x,
        "table_ptr": table,
        "rules_ptr": rules.to(x.device),
        "runs_ptr": whole.to(x.device),
        "frames_ptr": frames if every else None,
        "missed_ptr": torch.empty(batch, dtype=torch.bool, device=x.device),
        "scratch_ptr": torch.empty_like(x),
        "batch": batch,
        "components": table.shape[1],
        "features": features,
        "run_count": len(runs),
        "every": max(every, 1),
        **random_arguments(at),
    }
    arguments |= {"D": features, "IS_DIAGONAL": bool(diagonal), "IS_SECOND": False}
    arguments |= {"UNROLL": 4 if features <= 4 else 1, "BLOCK": BLOCK}
    return Call((triton.cdiv(batch, BLOCK), 1, 1), arguments, Launch(1, BLOCK, 4))


def chain(x: Tensor, table: Tensor, segment: Segment, *, diagonal: bool) -> None:
    """Writes the updates of chains on a mixture to their state. The caller has validated everything.

    Args:
        x: contiguous fp32 ``(B, D)``, D up to MAX_FEATURES; written to.
        table: contiguous fp32 ``(L, K, 2 W + 1)``.
        diagonal: whether the table has a variance for each element.
        segment: the updates.
    """
    if x.numel() and segment.runs:
        grid, values, launch = prepare(x, table, segment, diagonal=diagonal)
        with on_device(x):
            for second in (False, True):
                values["IS_SECOND"] = second
                chain_kernel[grid](**values, num_warps=launch.num_warps, enable_fp_fusion=False)
