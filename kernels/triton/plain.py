"""What a sampler's plain update, with numbers alone beside its tensors, is launched by the next time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .direct_launch import Shortcut
from .layout import signed_words

# The arguments of the step kernel that differ between updates of one key, in the order of :func:`update`.
CHANGING = (
    "out_ptr",
    "x_ptr",
    "score_ptr",
    "fault_ptr",
    "c",
    "a",
    "b",
    "seed",
    "seed_high",
    "draw",
    "sample_offset",
    "purpose",
)


def update(
    shortcut: Shortcut,
    out: Tensor,
    x: Tensor,
    score: Tensor,
    *,
    c: Any,
    a: Any,
    b: Any,
    seed: Any,
    draw: Any,
    sample_offset: int,
    purpose: int,
    fault: Tensor | None = None,
    freeze: bool = False,
    **operands: Any,
) -> tuple[Any, ...] | None:
    """The key of a launch, then the arguments that it leaves open; None where the update is not plain.

    The numbers are floats, which fp64 alone passes as integers of any size, and integers of 32 bits or of a parameter
    that has a type: which variant of the kernel is launched hangs on none of them.
    """
    if not (type(c) is type(a) is float and (b is None or type(b) is float) and type(seed) is type(draw) is int):
        return None
    for operand in operands.values():
        if operand is not None:
            return None
    begun = shortcut.circumstances()
    dtype = x.dtype
    if begun is None or dtype is torch.float64:
        return None
    to, at, along = out.data_ptr(), x.data_ptr(), score.data_ptr()
    aligned = to % 16 == 0, at % 16 == 0, along % 16 == 0
    kind = out.dtype, dtype, score.dtype, b is None, fault is None, freeze
    key = begun, aligned, *kind, x.shape, out.stride(), x.stride(), score.stride()
    record = None if fault is None else fault.data_ptr()
    return key, to, at, along, record, c, a, b, *signed_words(seed), signed_words(draw)[0], sample_offset, purpose
