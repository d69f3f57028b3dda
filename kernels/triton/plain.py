"""Caches the launch of a sampler's plain update (tensors and Python numbers only)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..address import Update
from .direct_launch import Shortcut
from .draws import OFFSETS, WEIGHTS, only_draw
from .layout import signed_words
from .terms import FACTORS, SLOTS

FIRST = ("out_ptr", "fault_ptr", "number", "b", "seed", "seed_high", "draw", "sample_offset", "purpose")


def changing(update: Update) -> tuple[str, ...]:
    """The arguments of the step kernel that differ between updates of one key, in the order of :func:`update`."""
    several = 0 if only_draw(update) is not None else len(update.draws)
    terms = zip(SLOTS[: len(update.terms)], FACTORS, strict=False)
    draws = zip(WEIGHTS[:several], OFFSETS, strict=False)
    return (*FIRST, *(name for pair in (*terms, *draws) for name in pair))


def update(shortcut: Shortcut, out: Tensor, given: Update) -> tuple[Any, ...] | None:
    """The key of a launch, then the arguments that it leaves open; None where the update is not plain.

    Plain is an update of any terms and draws without a table, whose numbers are floats, which fp64 alone passes as
    integers of any size, and integers of 32 bits or of a parameter that has a type: which variant of the kernel is
    launched hangs on none of them.
    """
    terms, b, (seed, draw, ids, sample_offset, purpose), number, draws, noise, mask, known, fault, freeze = given
    if not (ids is noise is mask is known is None and type(seed) is type(draw) is int and type(draws) is tuple):
        return None
    begun = shortcut.circumstances()
    if begun is None or out.dtype is torch.float64 or not (b is None or type(b) is float):
        return None
    to = out.data_ptr()
    kinds: list[Any] = [begun, b is None, freeze, out.dtype, out.shape, out.stride(), to % 16 == 0]
    operands: list[Any] = []
    for a, slot in terms:
        if type(a) is not float:
            return None
        at = slot.data_ptr()
        kinds += slot.dtype, slot.stride(), at % 16 == 0
        operands += at, a
    record = None
    if fault is None:
        number = 0
    elif type(number) is int:
        record = fault.data_ptr()
    else:
        return None
    kinds.append(record is None)
    only = only_draw(given)
    if only is None:
        kinds.append(len(draws))
        for weight, offset in draws:
            low, _ = signed_words(offset)
            operands += float(weight), low
    else:
        draw += only
    low, high = signed_words(seed)
    first, _ = signed_words(draw)
    return tuple(kinds), to, record, number, b, low, high, first, sample_offset, purpose, *operands
