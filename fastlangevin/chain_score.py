"""Scores that make many updates of a chain in one call: what the samplers ask of them, and what they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from fastlangevin.kernels.operands import Run, Segment

__all__ = ["ChainKernel", "ChainScore", "Run", "Segment"]


ChainKernel = Callable[[Tensor, Segment], None]


class ChainScore(Protocol):
    """A score function that can also make many updates at once."""

    def chain_kernel(self, x: Tensor, impl: str) -> ChainKernel | None:
        """Returns the kernel for the updates of a state like ``x``, contiguous fp32 ``(B, ...)``, or None.

        It has the bits of the loop on the same implementation: of ``step_`` with the score at each update's level; or
        an attribute ``own_bits`` that is true. A score may say why it has none by ``why_no_kernel(x, impl)``, and a
        kernel that knows several matrix products has ``multiplying(matmul)``.
        """
