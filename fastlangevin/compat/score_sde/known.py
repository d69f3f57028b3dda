"""Puts known data into the states of a chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fastlangevin.compat.score_sde.sde import SDE
from fastlangevin.kernels.address import Term, Update
from fastlangevin.noise import Address, Purpose
from fastlangevin.ops.move import move

__all__ = ["Known", "Put"]

# (state, values of what is known) to the state with them put in.
Put = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Known:
    """Known data, and how they are put into a state.

    Attributes:
        sde: the diffusion.
        data: the values ``(B, ...)``.
        put: puts values in.
    """

    sde: SDE
    data: Tensor
    put: Put

    def mean(self, x: Tensor, address: Address | None = None, *, time: Tensor) -> Tensor:
        """The state with the mean of the data at a time ``(1,)`` put in; draws nothing."""
        at_time, _ = self.sde.marginal_prob(self.data, time.expand(len(self.data)))
        return self.put(x, at_time)

    def perturbed(self, x: Tensor, address: Address, *, time: Tensor) -> Tensor:
        """The state with the data perturbed to a time ``(1,)`` put in, by noise of the draw of an address."""
        at_time, std = self.sde.marginal_prob(self.data, time.expand(len(self.data)))
        address = address._replace(purpose=int(Purpose.INPAINTING))
        return self.put(x, move(Update((Term(1.0, at_time),), std, address, address.draw)))
