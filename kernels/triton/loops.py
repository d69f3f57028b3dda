"""Bounds of loops that are known when a kernel runs."""

from __future__ import annotations

import triton
import triton.language as tl  # noqa: F401  # the interpreter asks for it beside every kernel

from .ptx import IS_INTERPRETED


@triton.jit
def bound(number):
    """``number`` as ``range`` takes it: itself where it is compiled, a Python int in the interpreter.

    There it is an array of one element, which Triton before 3.7 hands to ``int``; NumPy 2.4 and later refuse that.
    """
    if IS_INTERPRETED:
        return number.handle.data.item()
    else:
        return number
