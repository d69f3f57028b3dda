"""Steps by their number, where those of a noise level are alike."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from fastlangevin.rules import Coefficients, denoise
from fastlangevin.schemes.table import Evaluate, Step, step_of

__all__ = ["ByLevel", "denoising", "exploding"]


class ByLevel:
    """Makes the step of a number. It keeps the last one, so that all steps of a level are one object.

    Args:
        coefficients: of each level.
        evaluations: of each level: what its score is called with.
        steps: how many steps each level has, or one number for all.
    """

    def __init__(
        self, coefficients: Sequence[Coefficients], evaluations: Sequence[Evaluate], steps: int | Sequence[int]
    ) -> None:
        self.coefficients = coefficients
        self.evaluations = evaluations
        self.each = steps if isinstance(steps, int) else 0  # 0: each level has its own
        self.ends = list(accumulate([steps] * len(coefficients) if isinstance(steps, int) else steps))
        self.kept: tuple[int, Step] | None = None

    @property
    def total(self) -> int:
        """Steps of all levels."""
        return self.ends[-1]

    def __call__(self, number: int) -> Step:
        place = number // self.each if self.each else bisect_right(self.ends, number)
        if self.kept is not None:
            last, step = self.kept
            if last == place:
                return step
        step = step_of(self.coefficients[place], self.evaluations[place])
        self.kept = place, step
        return step


def exploding(ladder: Sequence[float]) -> list[Evaluate]:
    """The evaluations at the levels of variance exploding noise, one for each."""
    return [Evaluate(level=level, sigma=sigma) for level, sigma in enumerate(ladder)]


def denoising(ladder: Sequence[float]) -> Step:
    """The step from the last level of variance exploding noise to the posterior mean: Tweedie's formula."""
    return step_of(denoise(ladder[-1]), Evaluate(level=len(ladder) - 1, sigma=ladder[-1]))
