"""What a sampler's plain update, with numbers alone beside its tensors, is launched by the next time."""

from __future__ import annotations

from typing import Any

import torch

from ..address import ONE_DRAW, Update
from .direct_launch import Shortcut
from .layout import signed_words

# The arguments of the step kernel that differ between updates of one key, in the order of :func:`update`.
CHANGING = (
    "out_ptr",
    "s0_ptr",
    "s1_ptr",
    "fault_ptr",
    "number",
    "a0",
    "a1",
    "b",
    "seed",
    "seed_high",
    "draw",
    "sample_offset",
    "purpose",
)


def update(shortcut: Shortcut, out: torch.Tensor, given: Update) -> tuple[Any, ...] | None:
    """The key of a launch, then the arguments that it leaves open; None where the update is not plain.

    Plain is an update of a state and a score with one draw, whose numbers are floats, which fp64 alone passes as
    integers of any size, and integers of 32 bits or of a parameter that has a type: which variant of the kernel is
    launched hangs on none of them.
    """
    if given.draws is not ONE_DRAW or len(given.terms) != 2 or given.noise is not None or given.mask is not None:
        return None
    (c, x), (a, score) = given.terms
    b, fault, number = given.b, given.fault, given.number
    seed, draw, ids, sample_offset, purpose = given.address
    if not (type(c) is type(a) is float and (b is None or type(b) is float)):
        return None
    if not (ids is None and type(seed) is type(draw) is int and (fault is None or type(number) is int)):
        return None
    begun = shortcut.circumstances()
    dtype = x.dtype
    if begun is None or dtype is torch.float64:
        return None
    to, at, along = out.data_ptr(), x.data_ptr(), score.data_ptr()
    aligned = to % 16 == 0, at % 16 == 0, along % 16 == 0
    kind = out.dtype, dtype, score.dtype, b is None, fault is None, given.freeze
    key = begun, aligned, *kind, x.shape, out.stride(), x.stride(), score.stride()
    record = None if fault is None else fault.data_ptr()
    counted = None if fault is None else signed_words(number)[0]  # type: ignore[arg-type]
    numbers = record, counted, c, a, b, *signed_words(seed), signed_words(draw)[0], sample_offset, purpose
    return key, to, at, along, *numbers
