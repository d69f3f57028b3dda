"""The trajectory of a chain: the states that are kept while it runs."""

from __future__ import annotations

from torch import Tensor

from fastlangevin.samplers.chain import ChainState

__all__ = ["Frames"]


class Frames:
    """Every k-th state of a chain, kept on the state's device."""

    def __init__(self, every: int, total: int, x: Tensor, start: ChainState) -> None:
        self.every = every
        self.count = 0
        if every:
            self.buffer = x.new_empty((total // every + 1, *x.shape))
            if start.step:
                if start.trajectory is None or start.trajectory.shape[0] != start.step // every + 1:
                    raise ValueError(f"resume= has no trajectory with trajectory={every}; resume it as it was begun")
                self.count = start.trajectory.shape[0]
                self.buffer[: self.count] = start.trajectory

    def add(self, step: int, x: Tensor) -> None:
        if self.every and step % self.every == 0 and step // self.every == self.count:
            self.buffer[self.count] = x
            self.count += 1

    def coming(self, step: int) -> Tensor | None:
        """Returns where the frames up to an update go, for who writes them in one call."""
        if not self.every:
            return None
        first, self.count = self.count, step // self.every + 1
        return self.buffer[first : self.count]

    def kept(self) -> Tensor | None:
        return self.buffer[: self.count].clone() if self.every else None
