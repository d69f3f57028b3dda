"""A chain before it is run: a list of moves, one for each draw number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from fastlangevin.noise import MAX_DRAW
from fastlangevin.rules import Coefficients
from fastlangevin.samplers.chain import ChainState
from fastlangevin.samplers.signal import SignalToNoise

__all__ = ["Level", "Move", "Plan", "check_draws"]

Noise = Callable[[int], Tensor]
# What a chain's score is called with beside the state: the level's index, the labels of a replayed update, or nothing.
Level = int | Tensor | None


class Move(NamedTuple):
    """An update: its rule, or what finds its step size from the score; and its level."""

    rule: Coefficients | SignalToNoise
    level: int | None


class Plan(NamedTuple):
    """A chain: ``total`` moves by their number, then perhaps a denoise step at the last level.

    ``record`` says what the chain is, ``ladder`` the sigma of each level, ``noise`` makes the noise of a draw where it
    is not that of the chain's own address.
    """

    move: Callable[[int], Move]
    total: int
    denoise: Move | None
    record: dict[str, Any]
    ladder: list[float]
    noise: Callable[[ChainState], Noise] | None = None

    def level(self, index: int) -> int | None:
        """The noise level of an update, or of the denoise step, whose number is ``total``."""
        return self.move(index).level if index < self.total or self.denoise is None else self.denoise.level


def check_draws(updates: int) -> int:
    if updates > MAX_DRAW + 1:
        raise ValueError(f"the chain has {updates} updates; the draw number has room for {MAX_DRAW + 1}")
    return updates
