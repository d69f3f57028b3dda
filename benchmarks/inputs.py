"""Input sets that are together larger than the caches, taken in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Inputs", "image_shape"]

Set = TypeVar("Set")

# Elements of one operand over all sets: 256 MiB in fp32, more than any cache here.
ENOUGH = 2**26


def image_shape(elements: int) -> tuple[int, ...]:
    """3x32x32 where there is room for some, else one row for each of two samples."""
    if elements % 2:
        raise ValueError(f"the size must be even, or a number of images of 3072 elements, got {elements}")
    return (elements // 3072, 3, 32, 32) if elements % 3072 == 0 else (2, elements // 2)


class Inputs(Generic[Set]):
    """Up to 8 sets of operands.

    Args:
        elements: of one operand.
        make: makes the set of a number.
        sets: how many; by default so many that no cache keeps one until its next turn, and 8 at most.
    """

    def __init__(self, elements: int, make: Callable[[int], Set], sets: int = 0) -> None:
        self.sets = [make(index) for index in range(sets or max(1, min(8, ENOUGH // elements)))]
        self.at = 0

    def take(self) -> Set:
        self.at = (self.at + 1) % len(self.sets)
        return self.sets[self.at]
