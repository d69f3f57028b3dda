"""Scores that make many updates of a chain in one call: what the samplers ask of them, and what they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

from fastlangevin.kernels.address import Address
from fastlangevin.rules import Coefficients

__all__ = ["ChainKernel", "ChainScore", "Run", "Segment"]


class Run(NamedTuple):
    """Neighbouring updates of one rule at one level."""

    rule: Coefficients
    level: int
    times: int


class Segment(NamedTuple):
    """Neighbouring updates of a chain.

    Attributes:
        address: of the noise of the first update; the draws of the others follow it.
        runs: the updates.
        every: frames are kept after the updates that end at a multiple of this; 0 keeps none.
        frames: contiguous ``(F, B, ...)``, where the frames of this segment go, or None.
    """

    address: Address
    runs: list[Run]
    every: int
    frames: Tensor | None

    @property
    def length(self) -> int:
        """How many updates."""
        return sum(run.times for run in self.runs)


ChainKernel = Callable[[Tensor, Segment], None]


class ChainScore(Protocol):
    """A score function that can also make many updates at once."""

    def chain_kernel(self, x: Tensor, impl: str) -> ChainKernel | None:
        """What writes a segment's updates to a state like ``x``, contiguous fp32 ``(B, ...)``; None: nothing does.

        It has the bits of the loop on the same implementation: of ``step_`` with the score at each update's level; or
        an attribute ``own_bits`` that is true. A score may say why it has none by ``why_no_kernel(x, impl)``, and a
        kernel that knows several matrix products has ``multiplying(matmul)``.
        """
